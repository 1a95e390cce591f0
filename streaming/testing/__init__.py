"""What users test with: suites that a new store or codec passes, stores that delay and fail, stand-ins for clouds."""

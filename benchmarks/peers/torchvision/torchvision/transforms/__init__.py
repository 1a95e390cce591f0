"""What `streaming.vision` imports."""

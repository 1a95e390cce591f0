"""From lines of results to docs/benchmarks.md and its plots: `targets` says what is to be reached, `page` and `plots` show it."""

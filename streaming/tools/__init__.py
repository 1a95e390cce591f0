"""What people do with datasets that exist: look at them, check them, copy them, clear caches; without a line of output."""

"""Samples -> shards -> a store. A dataset exists from the moment its index is put, which is the last thing a writer does."""

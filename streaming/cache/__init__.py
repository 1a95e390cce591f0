"""Shards on local disk, shared by the processes of a node: fetched once, verified, and found by name."""

"""What the contenders run, each in a process of its own and under its own Python: a module a package."""

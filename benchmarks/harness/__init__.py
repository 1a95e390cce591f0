"""What benchmarks share: contenders in processes of their own, rounds in which each has its turn, a line of JSON a result."""

from harness.bench import Bench, call

__all__ = ['Bench', 'call']

"""``python -m streaming.cli``: the same where the console script is not on the path."""

from streaming.cli import main

main()

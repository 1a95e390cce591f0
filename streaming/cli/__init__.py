"""The command line: a thin layer of arguments and output above `streaming.tools` and `streaming.writers`."""

import signal
import sys
from typing import NoReturn

__all__ = ['main']


def main() -> None:
    """The console script ``streaming``."""
    # As Ctrl-C does, so that what is half-written is removed by whoever wrote it.
    signal.signal(signal.SIGTERM, _leave)
    try:
        from streaming.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ('typer', 'rich'):
            raise
        sys.exit(f"error: the command line needs {error.name}: pip install 'streaming-dataset[cli]'")
    app(prog_name='streaming')


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)

"""What commands share: their common arguments, and how they print."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

__all__ = ['ByteBar', 'Dataset', 'Json', 'Workers', 'console', 'counted', 'print_json', 'print_rows', 'say']

Dataset = Annotated[str, typer.Argument(metavar='URL', help='A dataset: the path or URL of the folder that has its index.json.')]
Json = Annotated[bool, typer.Option('--json', help='Print JSON, for programs.')]
Workers = Annotated[int, typer.Option('--workers', '-j', min=1, help='Objects at a time.')]

# Where nobody looks, lines are as long as they are.
_WIDE = 10_000


def console(*, stderr: bool = False) -> Console:
    """Where to print for people."""
    out = Console(stderr=stderr, highlight=False)
    if not out.is_terminal:
        out.width = _WIDE
    return out


def counted(count: int, noun: str) -> str:
    """A count of things, for people: ``1 shard``, ``2,000 shards``."""
    return f'{count:,} {noun}{"" if count == 1 else "s"}'


def say(text: str, *, err: bool = False) -> None:
    """Print a text, whatever is in it: names in a bucket may hold what steers a terminal."""
    typer.echo(_printable(text), err=err)


def _printable(text: str) -> str:
    return ''.join(
        letter if letter.isprintable() or letter == '\n' else letter.encode('unicode_escape').decode() for letter in text
    )


def print_json(value: Any) -> None:
    """Print a value of plain types and dataclasses as one line of JSON."""
    typer.echo(msgspec.json.encode(value))


def print_rows(rows: Sequence[tuple[str, ...]], *, head: tuple[str, ...] | None = None, stderr: bool = False) -> None:
    """Print rows of cells, in columns as wide as they have to be."""
    table = Table(*(head or [''] * len(rows[0])), box=None, show_header=head is not None, pad_edge=False)
    for column in table.columns:
        column.overflow = 'fold'
    for row in rows:
        table.add_row(*(escape(_printable(cell)) for cell in row))
    out = console(stderr=stderr)
    with out.capture() as text:
        out.print(table)
    # Without the blanks that fill the last column.
    typer.echo('\n'.join(line.rstrip() for line in text.get().splitlines()), err=stderr)


class ByteBar:
    """A bar of bytes on stderr, where somebody looks; gone when its block ends.

    Args:
        title: What is going on.
    """

    def __init__(self, title: str) -> None:
        out = console(stderr=True)
        columns = (TextColumn('{task.description}'), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
        self._task = self._progress.add_task(title, total=None)

    def begin(self, total: int) -> None:
        """Say how many bytes there will be."""
        self._progress.update(self._task, total=total)

    def advance(self, count: int) -> None:
        """Count bytes. Any thread may."""
        self._progress.advance(self._task, count)

    def __enter__(self) -> 'ByteBar':
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

"""What commands share: their common arguments, and how they print."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ['Dataset', 'Json', 'console', 'print_json', 'print_rows']

Dataset = Annotated[str, typer.Argument(metavar='URL', help='A dataset: the path or URL of the folder that has its index.json.')]
Json = Annotated[bool, typer.Option('--json', help='Print JSON, for programs.')]

# Where nobody looks, lines are as long as they are.
_WIDE = 10_000


def console(*, stderr: bool = False) -> Console:
    """Where to print for people."""
    out = Console(stderr=stderr, highlight=False)
    if not out.is_terminal:
        out.width = _WIDE
    return out


def print_json(value: Any) -> None:
    """Print a value of plain types and dataclasses as one line of JSON."""
    typer.echo(msgspec.json.encode(value))


def print_rows(rows: Sequence[tuple[str, ...]], *, head: tuple[str, ...] | None = None) -> None:
    """Print rows of cells, in columns as wide as they have to be."""
    table = Table(*(head or [''] * len(rows[0])), box=None, show_header=head is not None, pad_edge=False)
    for column in table.columns:
        column.overflow = 'fold'
    for row in rows:
        table.add_row(*map(escape, row))
    console().print(table)

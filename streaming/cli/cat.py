"""``streaming cat``"""

import sys
from typing import Annotated

import typer

from streaming.cli.output import Dataset
from streaming.tools.plain import to_json
from streaming.tools.source import DatasetSource

__all__ = ['cat']


def cat(
    url: Dataset,
    span: Annotated[
        str, typer.Option('--range', '-r', metavar='[START]:[STOP]', help='Which samples, as Python slices; or one number.')
    ] = ':',
    columns: Annotated[str | None, typer.Option('--columns', '-c', metavar='A,B', help='Only these columns.')] = None,
    allow_unsafe_types: Annotated[
        bool, typer.Option('--allow-unsafe-types', help='Read pickled columns, which can run any code of their writer.')
    ] = False,
) -> None:
    """Print samples as lines of JSON: arrays as lists, bytes as base64, images as their mode and size.

    A few samples of a shard that is not compressed are read by range, other shards are fetched whole, one at a time.

    \b
    Examples:
      streaming cat oci://bucket/corpus/train --range 0:10
      streaming cat data/train --range -1: --columns text,url | jq -r .text
    """
    with DatasetSource(url) as source:
        start, stop = _bounds(span, source.table.num_samples)
        names = None if columns is None else [name.strip() for name in columns.split(',')]
        for sample in source.samples(start, stop, columns=names, allow_unsafe_types=allow_unsafe_types):
            sys.stdout.buffer.write(to_json(sample) + b'\n')
    sys.stdout.buffer.flush()


def _bounds(span: str, size: int) -> tuple[int, int]:
    """The samples that a range asks for, as a start and an end within the dataset."""
    first, colon, last = span.partition(':')
    try:
        start, stop = int(first) if first.strip() else None, int(last) if last.strip() else None
        if not colon and start is None:
            raise ValueError
    except ValueError:
        raise typer.BadParameter(f'{span!r} is not like 0:10, -5: or 7', param_hint='--range') from None
    if not colon and start is not None:
        number = start + size if start < 0 else start
        if not 0 <= number < size:
            raise typer.BadParameter(f'sample {start} of a dataset of {size:,}', param_hint='--range')
        return number, number + 1
    start, stop, _ = slice(start, stop).indices(size)
    return start, max(start, stop)

"""``streaming inspect``"""

from dataclasses import replace
from typing import Annotated

import typer
from rich.markup import escape

from streaming.cli.output import Dataset, Json, console, counted, print_json, print_rows
from streaming.tools.inspect import Inspection, Schema, inspect_dataset
from streaming.tools.plain import brief
from streaming.units import human_bytes

__all__ = ['inspect']


def inspect(
    url: Dataset,
    samples: Annotated[int, typer.Option('--samples', '-n', min=0, help='How many of the first samples to show.')] = 3,
    json: Json = False,
) -> None:
    """Say what a dataset is: columns, samples, shards, bytes, codecs, and its first samples.

    Reads the index and the ranges of the samples. Only where shards are compressed, the first is fetched whole.

    \b
    Examples:
      streaming inspect oci://bucket/corpus/train
      streaming inspect data/train --samples 0 --json | jq .samples
    """
    found = inspect_dataset(url, samples=samples)
    found = replace(found, first=tuple({name: brief(value) for name, value in sample.items()} for sample in found.first))
    if json:
        print_json(found)
    else:
        _show(found)


def _show(found: Inspection) -> None:
    rows = [
        ('dataset', found.url),
        ('index', f'{human_bytes(found.index_bytes)}, sha256 {found.index_sha256}'),
        ('samples', f'{found.samples:,}'),
        ('shards', f'{found.shards:,}'),
        ('bytes', _bytes(found)),
    ]
    if found.shards > 1:
        samples, sizes = found.shard_samples, [human_bytes(size) for size in found.shard_bytes]
        rows += [
            ('samples a shard', f'{samples[0]:,} to {samples[2]:,}, median {samples[1]:,}'),
            ('bytes a shard', f'{sizes[0]} to {sizes[2]}, median {sizes[1]}'),
        ]
    print_rows(rows)
    for schema in found.schemas:
        _section(_name(schema, len(found.schemas) > 1))
        print_rows(list(schema.columns.items()), head=('column', 'encoding'))
    for number, sample in enumerate(found.first):
        _section(f'sample {number}')
        print_rows(list(sample.items()))
    if found.unread:
        _section(f'not read, because that can run code: {", ".join(found.unread)}')


def _bytes(found: Inspection) -> str:
    if found.stored_bytes == found.raw_bytes:
        return human_bytes(found.raw_bytes)
    share = found.stored_bytes / found.raw_bytes if found.raw_bytes else 1.0
    return f'{human_bytes(found.stored_bytes)} stored, {human_bytes(found.raw_bytes)} decompressed ({share:.0%})'


def _name(schema: Schema, one_of_many: bool) -> str:
    hashes = ', '.join(schema.hashes) or 'none'
    text = f'format {schema.format}, compression {schema.compression or "none"}, hashes {hashes}'
    return f'{text}: {counted(schema.samples, "sample")} in {counted(schema.shards, "shard")}' if one_of_many else text


def _section(title: str) -> None:
    console().print(f'\n[bold]{escape(title)}[/bold]')

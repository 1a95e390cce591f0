"""``streaming merge``"""

from typing import Annotated

import typer

from streaming.cli.output import Json, counted, print_json, say
from streaming.tools.source import DatasetSource
from streaming.writers.merge import merge_index

__all__ = ['merge']


def merge(
    out: Annotated[str, typer.Argument(metavar='OUT', help='The folder of the merged index: a path or URL.')],
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar='PART', help='Datasets below OUT, in the order wanted. Default: all, by path.'),
    ] = None,
    json: Json = False,
) -> None:
    """Merge the indices of datasets that were written side by side into one. Their shards stay where they are.

    \b
    Examples:
      streaming merge oci://bucket/corpus
      streaming merge data/all data/all/part-1 data/all/part-0
    """
    if parts:
        merge_index(parts, out)
    else:
        merge_index(out)
    with DatasetSource(out) as merged:
        shards, samples = len(merged.table), merged.table.num_samples
    if json:
        print_json({'url': merged.url, 'shards': shards, 'samples': samples})
    else:
        say(f'{merged.url}: {counted(samples, "sample")} in {counted(shards, "shard")}')

"""``streaming cp``"""

from typing import Annotated

import typer

from streaming.cli.output import ByteBar, Json, Workers, counted, print_json, say
from streaming.tools.copy import copy_dataset
from streaming.units import human_bytes

__all__ = ['cp']


def cp(
    source: Annotated[str, typer.Argument(metavar='SOURCE', help='The dataset: a path or URL.')],
    destination: Annotated[str, typer.Argument(metavar='DESTINATION', help='Its new root: a path or URL that holds no dataset.')],
    workers: Workers = 8,
    json: Json = False,
) -> None:
    """Copy a dataset from store to store. Every object is verified on the way, the index is put last.

    The same command takes up a copy that broke off. Nothing that is there already is overwritten.

    \b
    Examples:
      streaming cp s3://old-bucket/corpus oci://new-bucket/corpus
      streaming cp oci://bucket/corpus/validation data/validation
    """
    with ByteBar('copying') as bar:
        copied = copy_dataset(source, destination, workers=workers, on_begin=bar.begin, on_bytes=bar.advance)
    if json:
        print_json(copied)
        return
    there = copied.objects - copied.copied_objects
    say(
        f'{copied.destination}: {counted(copied.samples, "sample")}; {counted(copied.copied_objects, "object")} copied, '
        f'{human_bytes(copied.copied_bytes)}'
        + (f'; {there:,} there already' if there else '')
        + ('; only sizes were compared, as no hashes are recorded' if copied.hashed_objects < copied.copied_objects else '')
    )

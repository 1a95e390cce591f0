"""``streaming verify``"""

from typing import Annotated

import typer

from streaming.cli.output import ByteBar, Dataset, Json, Workers, counted, print_json, say
from streaming.tools.verify import Verification, verify_dataset
from streaming.units import human_bytes

__all__ = ['verify']


def verify(
    url: Dataset,
    sizes_only: Annotated[bool, typer.Option('--sizes-only', help='Ask for sizes only, and read nothing.')] = False,
    workers: Workers = 16,
    json: Json = False,
) -> None:
    """Hold every object of a dataset against its index: size, all hashes, what it decompresses to, offsets of samples.

    Names each bad object. Exit status 1 if there is any.

    \b
    Examples:
      streaming verify oci://bucket/corpus/train
      streaming verify /data/train --sizes-only
      streaming verify s3://bucket/corpus --json | jq -r '.problems[].url'
    """
    with ByteBar('verifying') as bar:
        found = verify_dataset(url, sizes_only=sizes_only, workers=workers, on_begin=bar.begin, on_bytes=bar.advance)
    if json:
        print_json(found)
    else:
        for problem in found.problems:
            # The message names the object.
            say(f'{problem.kind}: {problem.message}')
        say(_summary(found, sizes_only))
    if not found.is_good:
        raise typer.Exit(1)


def _summary(found: Verification, sizes_only: bool) -> str:
    checked = 'sizes' if sizes_only else f'sizes and offsets, hashes of {found.hashed:,}'
    text = f'{found.url}: {counted(found.objects, "object")}, {human_bytes(found.bytes)} ({checked}): '
    return text + (f'{len(found.problems):,} bad' if found.problems else 'all good')

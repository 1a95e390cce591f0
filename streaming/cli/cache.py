"""``streaming cache``"""

import time
from typing import Annotated

import typer

from streaming.cli.output import Json, counted, print_json, print_rows, say
from streaming.tools.caches import Cache, clear_cache, find_caches
from streaming.units import human_bytes

__all__ = ['cache']

cache = typer.Typer(no_args_is_help=True, help='Folders that shards were fetched into: list them, clear them.')

_DAY_S = 86_400.0

Folders = Annotated[
    list[str] | None,
    typer.Argument(metavar='FOLDER', help='Cache folders, or folders of such. Default: your own, where no other was named.'),
]


@cache.command()
def ls(folders: Folders = None, json: Json = False) -> None:
    """List cache folders: what of, how much, when last used.

    \b
    Examples:
      streaming cache ls
      streaming cache ls /scratch/cache --json | jq '.[] | select(.in_use | not) | .path'
    """
    found = find_caches(folders)
    if json:
        print_json(found)
    elif found:
        head = ('folder', 'size', 'shards', 'used', 'remote')
        print_rows([_row(one) for one in found], head=head)


def _row(one: Cache) -> tuple[str, ...]:
    used = 'now' if one.in_use else _ago(time.time() - one.used)
    shards = '-' if one.remote is None else f'{one.shards_here:,} of {one.shards:,}'
    return one.path, human_bytes(one.bytes), shards, used, one.remote or 'orders of epochs'


def _ago(seconds: float) -> str:
    for unit, length in (('days', _DAY_S), ('hours', 3600.0), ('minutes', 60.0)):
        if seconds >= 2 * length:
            return f'{seconds // length:.0f} {unit} ago'
    return 'a minute ago'


@cache.command()
def clear(
    folders: Folders = None,
    every: Annotated[bool, typer.Option('--all', help='All of your own that are not in use.')] = False,
    unused_days: Annotated[
        float | None, typer.Option('--unused-days', min=0, help='Only those that nobody has used for so many days.')
    ] = None,
    dry_run: Annotated[bool, typer.Option('--dry-run', help='Say what would be deleted, and delete nothing.')] = False,
    json: Json = False,
) -> None:
    """Delete what was fetched into cache folders, and nothing else: files that others put there stay.

    What a running process uses is refused where it is named, and left alone where it is not.

    \b
    Examples:
      streaming cache clear --unused-days 7
      streaming cache clear /scratch/cache/train
      streaming cache clear --all --dry-run
    """
    if not folders and not every and unused_days is None:
        raise typer.BadParameter('say which: folders, --all or --unused-days', param_hint='FOLDER')
    if folders and unused_days is None:
        paths = folders
    else:
        oldest = time.time() - (unused_days or 0.0) * _DAY_S
        paths = [one.path for one in find_caches(folders or None) if not one.in_use and one.used <= oldest]
    cleared = [clear_cache(path, dry_run=dry_run) for path in paths]
    if json:
        print_json(cleared)
        return
    for one in cleared:
        verb = 'would delete' if dry_run else 'deleted'
        say(f'{one.path}: {verb} {counted(one.files, "file")}, {human_bytes(one.bytes)}')
        for path in one.kept:
            say(f'  kept {path}, which was not fetched')

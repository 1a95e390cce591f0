"""From arguments to a job, and from a job to its parts: nothing is written here, and nothing depends on who is going to work."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

from streaming.errors import ArgumentError, ColumnTypeError, FormatError
from streaming.format.infer import infer_columns
from streaming.format.mds import MDSSchema
from streaming.units import bytes_to_int, number_abbrev_to_int
from streaming.writers.base import check_hashes, check_size_limit
from streaming.writers.convert.job import Job, Part
from streaming.writers.convert.pipeline import Rejects, Transform
from streaming.writers.convert.sources import Range, Source, open_source
from streaming.writers.convert.tokens import Tokenizing

__all__ = ['JobOptions', 'plan_parts', 'prepare']

# Parts of about this size where there is enough: several shards each, so that the small one at its end does not matter, and
# little is done again after an interruption. Of less input the parts are smaller, so that all cores have some.
_MOST_PART_BYTES = 256 << 20
_LEAST_PART_BYTES = 32 << 20
_USUAL_PARTS = 64
# Records that encodings are inferred from.
_LOOK_AT = 1000


class JobOptions(TypedDict, total=False):
    """The keywords of a job; `convert` says what they mean."""

    kind: str | None
    columns: Mapping[str, str] | None
    select: Sequence[str] | None
    compression: str | None
    hashes: Sequence[str] | None
    size_limit: int | str | None
    split: str | None
    splits: Mapping[str, float] | None
    function: Callable[[Any], Any] | str | None
    tokenizing: Tokenizing | None
    limit: int | str | None
    shuffle_seed: int | None
    on_error: str
    part_bytes: int | str | None


def prepare(
    source: Any,
    dest: str | Path,
    *,
    kind: str | None = None,
    columns: Mapping[str, str] | None = None,
    select: Sequence[str] | None = None,
    compression: str | None = None,
    hashes: Sequence[str] | None = None,
    size_limit: int | str | None = 1 << 26,
    split: str | None = None,
    splits: Mapping[str, float] | None = None,
    function: Callable[[Any], Any] | str | None = None,
    tokenizing: Tokenizing | None = None,
    limit: int | str | None = None,
    shuffle_seed: int | None = None,
    on_error: str = 'raise',
    part_bytes: int | str | None = None,
) -> Job:
    """Look at a source and say what converting it would be.

    Args:
        source: What is read, as for `convert`.
        dest: Where the dataset goes.
        kind: Of the files, one of `get_source_kinds`. Default: None, what their names say.
        columns: Encodings, which go before those that are inferred. Default: None.
        select: The columns to write. Default: None, all.
        compression: Of the shards, as in `Writer`. Default: None.
        hashes: Of the shards, as in `Writer`. Default: None.
        size_limit: Of the shards, as in `Writer`. Default: 64 MiB.
        split: Sub-folder of ``dest`` to write to. Default: None.
        splits: Sub-folders that samples are drawn for, and their shares: ``{'train': 0.9, 'val': 0.1}``. Default: None.
        function: Called with each record, or its name as ``'module:function'``: gives the record to write, an iterable of
            several, or None for none. Default: None.
        tokenizing: How text becomes tokens. Default: None.
        limit: Records to read, as an int or ``'10k'``: the first ones. Default: None, all.
        shuffle_seed: Shuffle all samples, in bounded memory. Default: None, they stay in the order of the source.
        on_error: ``'raise'`` at the first bad record, or ``'reject'``: put it into a file below ``rejected`` and go on.
            Default: ``'raise'``.
        part_bytes: Input of a part, as an int or ``'64mb'``. Default: None, 32 to 256 MiB.

    Raises:
        ArgumentError: values that cannot work.
        NotFoundError: there is no source.
        ColumnTypeError: no encoding suggests itself for a column.
        FormatError: the source is not what it should be.
        MissingExtraError: an optional package is needed.
    """
    _check_choices(split, splits, on_error, shuffle_seed)
    opened = open_source(source, kind)
    _check_names(opened.splits)
    if opened.splits and (split or splits):
        raise ArgumentError(f'{opened.url} has splits of its own ({", ".join(opened.splits)}); others cannot be given')
    found = _columns(opened, function, tokenizing, dict(columns or {}), select, on_error)
    MDSSchema.from_columns(found)
    return Job(
        source=opened,
        dest=str(dest),
        columns=found,
        compression=compression or None,
        hashes=check_hashes(hashes),
        size_limit=check_size_limit(size_limit),
        split=split or '',
        splits=dict(splits or {}),
        function=function,
        tokenizing=tokenizing,
        limit=None if limit is None else number_abbrev_to_int(limit),
        shuffle_seed=shuffle_seed,
        on_error=on_error,
        part_bytes=_part_bytes(opened) if part_bytes is None else max(1, bytes_to_int(part_bytes)),
    )


def _check_choices(split: str | None, splits: Mapping[str, float] | None, on_error: str, shuffle_seed: int | None) -> None:
    if on_error not in ('raise', 'reject'):
        raise ArgumentError(f"on_error must be 'raise' or 'reject', got {on_error!r}")
    if split and splits:
        raise ArgumentError(f'give split or splits, not both: {split!r} and {dict(splits)!r}')
    _check_names([*(splits or {}), *([split] if split else [])])
    if splits and not all(share > 0 for share in splits.values()):
        raise ArgumentError(f'the shares of splits must be positive, got {dict(splits)!r}')
    if shuffle_seed is not None and shuffle_seed < 0:
        raise ArgumentError(f'shuffle_seed must not be negative, got {shuffle_seed}')


def _check_names(splits: Iterable[str]) -> None:
    """Refuse splits that are no sub-folders, or that mean something else in a URL or to a conversion.

    Raises:
        ArgumentError: one is.
    """
    for name in splits:
        odd = any(part in ('', '.', '..') or part.startswith(('.', 'part-')) for part in name.split('/'))
        if odd or name.split('/')[0] == 'rejected' or set(name) & set('\\?#%*'):
            raise ArgumentError(f'a split must name a sub-folder, got {name!r}')


def _part_bytes(source: Source) -> int:
    return min(_MOST_PART_BYTES, max(_LEAST_PART_BYTES, source.total_bytes() // _USUAL_PARTS))


def _columns(
    source: Source,
    function: Callable[[Any], Any] | str | None,
    tokenizing: Tokenizing | None,
    given: dict[str, str],
    select: Sequence[str] | None,
    on_error: str,
) -> dict[str, str]:
    """The columns that are written, and their encodings: what was given goes before what is found."""
    known = source.encodings() if function is None and tokenizing is None else None
    if known is None:
        made = {} if tokenizing is None else {tokenizing.column: tokenizing.encoding}
        known = _infer(source, Transform(function, tokenizing), Rejects(on_error), {**made, **given}, select)
    unknown = sorted({*given, *(select or ())} - set(known))
    if unknown:
        raise ArgumentError(f'{source.url} has no column {", ".join(unknown)}; there are {", ".join(sorted(known))}')
    chosen = known if select is None else {name: known[name] for name in select}
    return {**chosen, **{name: encoding for name, encoding in given.items() if name in chosen}}


def _infer(
    source: Source, transform: Transform, rejects: Rejects, given: Mapping[str, str], select: Sequence[str] | None
) -> dict[str, str]:
    """The encodings that suggest themselves for the first records. What only some have, or is now this and now that, is JSON."""
    seen: dict[str, Counter[str]] = {}
    count = 0
    for sample in islice(_first_samples(source, transform, rejects), _LOOK_AT):
        count += 1
        for name in sample if select is None else (name for name in select if name in sample):
            suggested = given.get(name) or (source.suggest(name, sample[name]) if transform.is_plain else None)
            suggested = suggested or infer_columns({name: sample[name]})[name]
            seen.setdefault(name, Counter())[suggested] += 1
    if not count:
        raise FormatError(f'{source.url} has no records, so there is nothing to convert')
    is_text = source.is_text and transform.is_plain
    return {name: given.get(name) or _common(name, found, count, is_text=is_text) for name, found in seen.items()}


def _common(name: str, found: Counter[str], count: int, *, is_text: bool) -> str:
    encodings = set(found)
    if len(encodings) == 1 and found.total() == count:
        return next(iter(encodings))
    if encodings == {'int', 'float64'}:
        return 'float64'
    if is_text:
        return 'str'
    if encodings <= {'jpeg', 'png', 'pil', 'bytes'}:
        return 'bytes'
    if any(encoding == 'bytes' or encoding.startswith('ndarray') for encoding in encodings):
        raise ColumnTypeError(f'column {name!r} is {" and ".join(sorted(encodings))}; say which it is: columns={{...}}')
    return 'json'


def _first_samples(source: Source, transform: Transform, rejects: Rejects) -> Iterator[Mapping[str, Any]]:
    for batch in source.first():
        for _, samples in transform.apply(batch, rejects):
            yield from samples


def plan_parts(job: Job) -> list[Part]:
    """The parts of a job, in the order of its samples: the same on every machine, and for any number of workers.

    Raises:
        StoreError: the source cannot be read.
    """
    groups = list(_grouped(job.source.ranges(job.part_bytes), job.part_bytes))
    if job.limit is not None:
        groups = list(_limited(job.source, groups, job.limit))
    if job.shuffle_seed is None:
        return [
            Part(number=number, ranges=ranges, split=_split(ranges), limit=limit) for number, (ranges, limit) in enumerate(groups)
        ]
    heaps: dict[str, int] = {}
    for ranges, _ in groups:
        heaps[_split(ranges)] = heaps.get(_split(ranges), 0) + 1
    return [
        Part(number=number, ranges=ranges, split=_split(ranges), limit=limit, stage='scatter', heaps=heaps[_split(ranges)])
        for number, (ranges, limit) in enumerate(groups)
    ]


Group = tuple[tuple[Range, ...], int | None]


def _split(ranges: Sequence[Range]) -> str:
    return ranges[0].split if ranges else ''


def _grouped(ranges: Sequence[Range], part_bytes: int) -> Iterator[Group]:
    """Ranges that follow each other, as many as are about one part."""
    group: list[Range] = []
    size = 0
    for piece in ranges:
        if group and (size + piece.bytes > part_bytes or piece.split != group[0].split):
            yield tuple(group), None
            group, size = [], 0
        group.append(piece)
        size += piece.bytes
    if group:
        yield tuple(group), None


def _limited(source: Source, groups: Sequence[Group], limit: int) -> Iterator[Group]:
    """The parts that the first records are in; the last one is told how many of its own."""
    left = limit
    for ranges, _ in groups:
        if left <= 0:
            return
        counted = sum(source.count(piece) for piece in ranges)
        yield ranges, min(left, counted)
        left -= counted

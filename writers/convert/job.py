"""What a conversion is, as a value: it pickles, so that any process of any machine can do a part of it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streaming.format.index import ShardInfo, ShardTable, dump_index
from streaming.writers.convert.named import name_of
from streaming.writers.convert.sources import Range, Source
from streaming.writers.convert.sources.files import join_url
from streaming.writers.convert.tokens import Tokenizing

__all__ = ['Job', 'Part', 'PartResult', 'Spill', 'part_folder']

# Of how a job is cut into parts and what is in them. Another version does not go on with what this one began.
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A conversion. `prepare` makes one.

    Args:
        source: What is read.
        dest: Where the dataset goes: a path or a URL.
        columns: The encoding of each column that is written.
        compression: The codec, None for none.
        hashes: Recorded of each file.
        size_limit: Of a shard, in bytes; None: a part is a shard.
        split: Sub-folder of ``dest`` that all goes to; empty for none.
        splits: The share of samples by sub-folder, drawn at random; empty: all are in one place.
        function: Called with each record, or its name.
        tokenizing: How text becomes windows of tokens; None: it does not.
        limit: How many records are read at the most; None: all.
        shuffle_seed: Of the order of the samples; None: that of the source.
        on_error: ``'raise'`` or ``'reject'``: what becomes of a bad record.
        part_bytes: Of input that a part has about.
    """

    source: Source
    dest: str
    columns: Mapping[str, str]
    compression: str | None = None
    hashes: tuple[str, ...] = ()
    size_limit: int | None = 1 << 26
    split: str = ''
    splits: Mapping[str, float] = field(default_factory=dict)
    function: Callable[[Any], Any] | str | None = None
    tokenizing: Tokenizing | None = None
    limit: int | None = None
    shuffle_seed: int | None = None
    on_error: str = 'raise'
    part_bytes: int = 1 << 28

    def describe(self) -> dict[str, Any]:
        """All that decides what comes out, as JSON, without secrets."""
        return {
            'version': _VERSION,
            'kind': self.source.name,
            'source': dict(self.source.describe()),
            'columns': dict(sorted(self.columns.items())),
            'compression': self.compression,
            'hashes': list(self.hashes),
            'size_limit': self.size_limit,
            'split': self.split,
            'splits': dict(self.splits),
            'function': name_of(self.function),
            'tokenizing': None if self.tokenizing is None else self.tokenizing.describe(),
            'limit': self.limit,
            'shuffle_seed': self.shuffle_seed,
            'on_error': self.on_error,
            'part_bytes': self.part_bytes,
        }

    @property
    def fingerprint(self) -> str:
        """Of `describe`, in hex: two jobs that have the same one write the same."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()

    @property
    def outputs(self) -> list[str]:
        """The sub-folders of ``dest`` that become datasets; ``['']`` where ``dest`` itself does."""
        return list(self.splits) or list(self.source.splits) or [self.split]

    def folder(self, key: str) -> str:
        """The path or URL of something below ``dest``."""
        return join_url(self.dest, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a job: what one worker does at a time, alone, and again from its start if it was interrupted.

    Args:
        number: From 0, within its stage.
        ranges: What it reads, in order.
        split: Sub-folder of the output that the source gives its records.
        limit: Records that it reads at the most; None: all.
        stage: ``'write'``: from the source to shards. ``'scatter'``: from the source to heaps. ``'gather'``: a heap to shards.
        heaps: How many heaps there are to scatter to.
    """

    number: int
    ranges: tuple[Range, ...]
    split: str = ''
    limit: int | None = None
    stage: str = 'write'
    heaps: int = 0

    @property
    def bytes(self) -> int:
        """Of its input."""
        return sum(piece.bytes for piece in self.ranges)

    @property
    def name(self) -> str:
        """Of what tells that it is done."""
        return f'{"scatter" if self.stage == "scatter" else "part"}-{self.number:05}'


def part_folder(split: str, number: int) -> str:
    """Where a part's shards lie, below ``dest``."""
    return f'{split}/part-{number:05}' if split else f'part-{number:05}'


@dataclass(frozen=True, slots=True)
class Spill:
    """Samples of a part, heap after heap, in one object.

    Args:
        key: Of the object.
        bounds: Where each heap's samples begin, and the end of the last (heaps + 1,).
    """

    key: str
    bounds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What became of a part.

    Args:
        number: The part's.
        stage: The part's.
        records: That were read.
        samples: That were written.
        rejected: Records that were not what they should be.
        dropped_tokens: At the end of the part, too few for a window.
        shards: What its folder below ``dest`` holds, by the sub-folder of the split.
        spills: What it has scattered.
    """

    number: int
    stage: str
    records: int = 0
    samples: int = 0
    rejected: int = 0
    dropped_tokens: int = 0
    shards: Mapping[str, tuple[ShardInfo, ...]] = field(default_factory=dict)
    spills: tuple[Spill, ...] = ()

    @property
    def raw_bytes(self) -> int:
        """Of its shards, uncompressed."""
        return sum(file.bytes for shards in self.shards.values() for shard in shards for file in shard.raw_files)

    def to_json(self) -> bytes:
        """Its entry in the journal."""
        return json.dumps(
            {
                'number': self.number,
                'stage': self.stage,
                'records': self.records,
                'samples': self.samples,
                'rejected': self.rejected,
                'dropped_tokens': self.dropped_tokens,
                'indices': {split: json.loads(dump_index(shards)) for split, shards in self.shards.items()},
                'spills': [[spill.key, *spill.bounds] for spill in self.spills],
            },
            sort_keys=True,
        ).encode()

    @classmethod
    def from_json(cls, data: bytes, source: str) -> 'PartResult':
        """Read an entry of the journal.

        Raises:
            FormatError: it is none.
            ValueError, LookupError, TypeError: it is none.
        """
        entry = json.loads(data)
        indices = {split: json.dumps(index).encode() for split, index in entry.pop('indices').items()}
        spills = tuple(Spill(key, tuple(map(int, bounds))) for key, *bounds in entry.pop('spills'))
        shards = {split: tuple(ShardTable.from_json(index, source)) for split, index in indices.items()}
        return cls(**entry, shards=shards, spills=spills)

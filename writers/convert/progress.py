"""How far a conversion is, and how it ended."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from streaming.writers.convert.job import Part, PartResult

__all__ = ['ConvertSummary', 'Progress', 'Tracker']


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a conversion is.

    Args:
        stage: ``'write'``, ``'scatter'`` or ``'gather'``.
        input_bytes: That were read, of this stage.
        total_input_bytes: That this stage reads.
        records: That were read.
        sample_bytes: That were written, before compression.
        parts: That are done, of this stage.
        total_parts: Of this stage.
        seconds: Since the stage began.
    """

    stage: str
    input_bytes: int
    total_input_bytes: int
    records: int
    sample_bytes: int
    parts: int
    total_parts: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSummary:
    """How a conversion ended.

    Args:
        url: Where the dataset is, without secrets.
        columns: Their encodings.
        samples: Of the dataset, all splits together.
        samples_by_split: Of each; ``''`` stands for ``url`` itself.
        shards: Of the dataset.
        raw_bytes: Of the shards before compression.
        stored_bytes: Of the shards as they are stored.
        records: That were read.
        rejected: Bad records, which are in ``rejected/`` below ``url``.
        dropped_tokens: At the ends of parts, too few for a window.
        parts: Of the job.
        resumed_parts: Of those, done by an earlier run.
        seconds: That this run took; 0 where all was done before.
    """

    url: str
    columns: Mapping[str, str] = field(default_factory=dict)
    samples: int = 0
    samples_by_split: Mapping[str, int] = field(default_factory=dict)
    shards: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    records: int = 0
    rejected: int = 0
    dropped_tokens: int = 0
    parts: int = 0
    resumed_parts: int = 0
    seconds: float = 0.0

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> 'ConvertSummary':
        """The summary that a journal has; what it lacks is 0."""
        return cls(**{'url': '', **{item.name: entry[item.name] for item in fields(cls) if item.name in entry}})

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


class Tracker:
    """Adds up what parts report.

    Args:
        stage: Of the parts.
        parts: That are to be done.
        done: Of this stage, done by an earlier run.
        on_progress: Called after each report; None: nobody is.
    """

    def __init__(
        self, stage: str, parts: Mapping[int, Part], done: Mapping[int, Part], on_progress: Callable[[Progress], None] | None
    ) -> None:
        self._stage, self._parts, self._on_progress = stage, parts, on_progress
        self._total_parts = len(parts) + len(done)
        self._before = sum(part.bytes for part in done.values())
        self._total = self._before + sum(part.bytes for part in parts.values())
        self._done = len(done)
        self._live: dict[int, list[int]] = {}
        self._sums = [self._before, 0, 0]
        self._start = time.monotonic()

    def report(self, number: int, input_bytes: int, records: int, sample_bytes: int) -> None:
        """Take in what was done of a part since its last report."""
        live = self._live.setdefault(number, [0, 0, 0])
        for at, more in enumerate((input_bytes, records, sample_bytes)):
            live[at] += more
            self._sums[at] += more
        self._tell()

    def finished(self, result: PartResult) -> None:
        """Take in that a part is done: what it reported was about right, this is."""
        live = self._live.pop(result.number, [0, 0, 0])
        exact = (self._parts[result.number].bytes, result.records, result.raw_bytes or live[2])
        for at, (guess, value) in enumerate(zip(live, exact, strict=True)):
            self._sums[at] += value - guess
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._on_progress is not None:
            input_bytes, records, sample_bytes = self._sums
            self._on_progress(
                Progress(
                    self._stage,
                    min(input_bytes, self._total),
                    self._total,
                    records,
                    sample_bytes,
                    self._done,
                    self._total_parts,
                    time.monotonic() - self._start,
                )
            )

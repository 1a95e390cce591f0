"""Running a job: what is not done yet, on some engine, then the index."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streaming.errors import ArgumentError, StoreError, StreamingError
from streaming.format.index import ShardInfo, dump_index
from streaming.writers.convert.job import Job, Part, PartResult
from streaming.writers.convert.journal import Journal
from streaming.writers.convert.parts import convert_part
from streaming.writers.convert.plan import plan_parts, prepare
from streaming.writers.convert.pool import run_here, run_in_processes
from streaming.writers.convert.progress import ConvertSummary, Progress, Tracker
from streaming.writers.convert.shuffle import gather_parts
from streaming.writers.destination import INDEX

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from streaming.writers.convert.plan import JobOptions

__all__ = ['Engine', 'convert', 'finish', 'run']

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """What does parts: it calls a function, which pickles, with each part, anywhere and in any order."""

    def __call__(self, function: Callable[[Part], PartResult], parts: Sequence[Part], /) -> Iterable[PartResult]:
        """The results, as they come. What a part raises is raised."""
        ...


def convert(
    source: Any,
    dest: str | Path,
    *,
    workers: int | None = None,
    exist_ok: bool = False,
    progress_bar: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    engine: Engine | None = None,
    **options: 'Unpack[JobOptions]',
) -> ConvertSummary:
    """Convert what people have into a dataset: on all cores, and again from where it stopped if it was interrupted.

    The input is cut into parts, which do not depend on the number of workers; each is written to a folder of its own below
    ``dest``, and the index is put when all are done. Called again with the same arguments, it goes on with the parts that are not
    done. Workers are spawned: a script that calls this does it under ``if __name__ == '__main__':``.

    Args:
        source: A path, a URL or a glob of Parquet, Arrow, JSONL and so on (`get_source_kinds`), in any store; a list of those; a
            `Source`.
        dest: Where the dataset goes: a path or a URL.
        workers: Processes. Default: None, one a core. With 1, all is done in this process.
        exist_ok: Whether a dataset, or an unfinished conversion, that is at ``dest`` is deleted first. Default: False.
        progress_bar: Whether to show how far it is. Default: False.
        on_progress: Called with how far it is, a few times a second. Default: None.
        engine: What does the parts instead of processes of this machine. Default: None.
        **options: Of the job, as for `prepare`, which says what they are.

    Raises:
        ArgumentError: values that cannot work.
        AlreadyExistsError: there is a dataset, or an unfinished conversion of another job, and ``exist_ok`` is False.
        NotFoundError: there is no source.
        FormatError: a record or a file is not what it should be; the message says where it stands.
        ColumnTypeError: no encoding suggests itself for a column.
        MissingExtraError: an optional package is needed.
        StoreError: something cannot be read or stored.
    """
    job = prepare(source, dest, **options)
    if not progress_bar:
        return run(job, workers=workers, exist_ok=exist_ok, on_progress=on_progress, engine=engine)
    with _Bar() as bar:
        return run(job, workers=workers, exist_ok=exist_ok, on_progress=bar.update, engine=engine)


def run(
    job: Job,
    *,
    workers: int | None = None,
    exist_ok: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    engine: Engine | None = None,
) -> ConvertSummary:
    """Do what is not done yet of a job. Arguments and errors are those of `convert`."""
    if workers is not None and workers < 1:
        raise ArgumentError(f'workers must be at least 1, got {workers}')
    start = time.monotonic()
    with closing(job.source), closing(Journal(job)) as journal:
        ended = journal.begin(exist_ok=exist_ok)
        if ended is not None:
            logger.info('%s is converted already, by the same arguments', ended.get('url'))
            return ConvertSummary.from_json(ended)
        parts = plan_parts(job)
        stages = _Stages(job, journal, workers or os.cpu_count() or 1, on_progress, engine)
        results = stages.run(parts)
        scattered: list[PartResult] = []
        if job.shuffle_seed is not None:
            scattered, results = results, stages.run(gather_parts(parts, results))
        return finish(job, [*scattered, *results], seconds=time.monotonic() - start, resumed=stages.resumed)


@dataclass(slots=True)
class _Stages:
    """Runs parts of a stage, those that are not done."""

    job: Job
    journal: Journal
    workers: int
    on_progress: Callable[[Progress], None] | None
    engine: Engine | None
    resumed: int = 0

    def run(self, parts: Sequence[Part]) -> list[PartResult]:
        """The results of all, in order."""
        marks = self.journal.done()
        found = {part.number: marks[part.name] for part in parts if part.name in marks}
        found = {number: result for number, result in found.items() if result.stage == parts[number].stage}
        self.resumed += len(found)
        todo = [part for part in parts if part.number not in found]
        by_number = {part.number: part for part in todo}
        tracker = Tracker(
            parts[0].stage if parts else 'write',
            by_number,
            {number: parts[number] for number in found},
            self.on_progress,
        )
        for result in self._results(todo, tracker):
            found[result.number] = result
            tracker.finished(result)
        missing = [part.number for part in parts if part.number not in found]
        if missing:
            raise StreamingError(f'the engine has no result of {len(missing)} parts, such as part {missing[0]}')
        return [found[part.number] for part in parts]

    def _results(self, parts: Sequence[Part], tracker: Tracker) -> Iterable[PartResult]:
        if self.engine is not None and parts:
            if self.job.source.in_process:
                raise ArgumentError(
                    f'{self.job.source.url} can only be read by the process that has it, so an engine cannot: give a function '
                    'that makes the records, or files'
                )
            return self.engine(partial(convert_part, self.job), parts)
        if self.workers == 1 or len(parts) < 2 or self.job.source.in_process:
            return run_here(self.job, parts, tracker.report)
        return run_in_processes(self.job, parts, self.workers, tracker.report)


def finish(job: Job, results: Sequence[PartResult], *, seconds: float = 0.0, resumed: int = 0) -> ConvertSummary:
    """Put the index, when all parts are done: from then on there is a dataset.

    Args:
        job: The job.
        results: Of all its parts, both halves of a shuffle among them, in order.
        seconds: That this run took, for the summary. Default: 0.
        resumed: Parts that an earlier run has done, for the summary. Default: 0.

    Raises:
        StoreError: a shard is not there any more, and its part has to be done again, or the index cannot be put.
    """
    written = [result for result in results if result.stage != 'scatter']
    shards = {split: [shard for result in written for shard in result.shards.get(split, ())] for split in job.outputs}
    with closing(Journal(job)) as journal:
        _check_stored(job, journal, written)
        for split, of_split in shards.items():
            index = dump_index(of_split)
            key = f'{split}/{INDEX}' if split else INDEX
            if journal.store.put(key, index).size != len(index):
                raise StoreError(f'{journal.store.url_of(key)} has not the {len(index)} bytes that were put')
        summary = _summary(job, journal.store.url, shards, results, written)
        journal.finish(summary.to_json())
    return replace(summary, seconds=seconds, resumed_parts=resumed)


def _summary(
    job: Job, url: str, shards: Mapping[str, Sequence[ShardInfo]], results: Sequence[PartResult], written: Sequence[PartResult]
) -> ConvertSummary:
    every = [shard for of_split in shards.values() for shard in of_split]
    return ConvertSummary(
        url=url,
        columns=dict(job.columns),
        samples=sum(shard.samples for shard in every),
        samples_by_split={split: sum(shard.samples for shard in of_split) for split, of_split in shards.items()},
        shards=len(every),
        raw_bytes=sum(file.bytes for shard in every for file in shard.raw_files),
        stored_bytes=sum(file.bytes for shard in every for file in shard.stored),
        records=sum(result.records for result in results),
        rejected=sum(result.rejected for result in results),
        dropped_tokens=sum(result.dropped_tokens for result in results),
        parts=len(written),
    )


def _check_stored(job: Job, journal: Journal, results: Sequence[PartResult]) -> None:
    """See that every shard is in the store with its size: one listing a split.

    Raises:
        StoreError: one is not. Its part will be done again by the next run.
    """
    with ThreadPoolExecutor(max(1, min(16, len(job.outputs))), thread_name_prefix='streaming-list') as pool:
        listed = list(pool.map(lambda split: _sizes(journal, split), job.outputs))
    bad: dict[str, str] = {}
    for split, sizes in zip(job.outputs, listed, strict=True):
        for result in results:
            for shard in result.shards.get(split, ()):
                for file in shard.stored:
                    if sizes.get(file.basename) != file.bytes:
                        bad[f'part-{result.number:05}'] = f'{split}/{file.basename}' if split else file.basename
    if bad:
        journal.forget(bad)
        raise StoreError(
            f'{len(bad)} parts are not in {journal.store.url} as they were written (such as {next(iter(bad.values()))}): '
            'somebody else wrote or deleted there; run the same again to do those parts again'
        )


def _sizes(journal: Journal, split: str) -> dict[str, int]:
    folder = f'{split}/' if split else ''
    return {info.key[len(folder) :]: info.size for info in journal.store.list(f'{folder}part-')}


class _Bar:
    """A progress bar of tqdm, in bytes of input."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ''

    def __enter__(self) -> '_Bar':
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, progress: Progress) -> None:
        """Show how far it is."""
        from tqdm import tqdm

        if progress.stage != self._stage:
            if self._bar is not None:
                self._bar.close()
            self._stage = progress.stage
            self._bar = tqdm(total=progress.total_input_bytes, desc=progress.stage, unit='B', unit_scale=True)
        rate = progress.records / progress.seconds if progress.seconds else 0.0
        self._bar.set_postfix_str(f'{rate:,.0f} records/s', refresh=False)
        self._bar.update(progress.input_bytes - self._bar.n)

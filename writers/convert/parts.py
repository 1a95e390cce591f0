"""Doing one part: read its ranges, encode, store, and note in the journal that it is done."""

from collections.abc import Callable, Iterator
from contextlib import closing

from streaming.store import open_store
from streaming.writers.convert.job import Job, Part, PartResult
from streaming.writers.convert.journal import JOURNAL, REJECTED
from streaming.writers.convert.pipeline import Pipeline, wanted_of
from streaming.writers.convert.shuffle import HeapSink, read_heap
from streaming.writers.convert.sinks import ShardSink
from streaming.writers.convert.sources import Batch

__all__ = ['Report', 'convert_part', 'write_records']

# Called with what was read and written since the last call: bytes of input, records, bytes of samples.
Report = Callable[[int, int, int], None]


def _ignore(input_bytes: int, records: int, sample_bytes: int) -> None:
    return None


def convert_part(job: Job, part: Part, report: Report = _ignore) -> PartResult:
    """Do a part of a job, in any process of any machine that reaches the source and the destination.

    Done again, it writes the same once more: what an interrupted try has left is overwritten.

    Args:
        job: The job.
        part: One of its parts.
        report: Called now and then with what was done since.

    Raises:
        FormatError: a record or a file is not what it should be; the message says where it stands.
        StoreError: something cannot be read or stored.
    """
    if part.stage == 'gather':
        return _gather(job, part, report)
    with closing(job.source):
        return write_records(job, part, _batches(job, part), report)


def write_records(job: Job, part: Part, batches: Iterator[Batch], report: Report = _ignore) -> PartResult:
    """Do a part whose records somebody else reads.

    Args:
        job: The job.
        part: The part; its ranges are not looked at.
        batches: Its records, in order.
        report: Called after each batch with what was done since.

    Raises:
        FormatError: a record is not what it should be.
        StoreError: something cannot be stored.
    """
    pipeline = Pipeline(job)
    sink = HeapSink(job, part) if part.stage == 'scatter' else ShardSink(job, part)
    records = samples = 0
    with sink:
        for batch in batches:
            size = 0
            for data, sizes in pipeline.run(batch):
                sink.add(data, sizes)
                samples += len(sizes)
                size += len(data)
            records += batch.count
            report(batch.input_bytes, batch.count, size)
    result = PartResult(
        number=part.number,
        stage=part.stage,
        records=records,
        samples=samples,
        rejected=len(pipeline.rejects),
        dropped_tokens=pipeline.dropped_tokens,
        shards=sink.shards,
        spills=sink.spills,
    )
    _note(job, part, result, pipeline.rejects.dump())
    return result


def _gather(job: Job, part: Part, report: Report) -> PartResult:
    samples = 0
    with ShardSink(job, part) as sink:
        for data, sizes in read_heap(job, part):
            sink.add(data, sizes)
            samples += len(sizes)
            report(len(data), 0, len(data))
    result = PartResult(number=part.number, stage=part.stage, samples=samples, shards=sink.shards)
    _note(job, part, result, b'')
    return result


def _batches(job: Job, part: Part) -> Iterator[Batch]:
    """The records of a part, up to its limit."""
    wanted = wanted_of(job)
    left = part.limit
    for piece in part.ranges:
        for batch in job.source.read(piece, wanted):
            if left is not None and left < batch.count:
                yield batch.first(left)
                return
            yield batch
            left = None if left is None else left - batch.count
        if left == 0:
            return


def _note(job: Job, part: Part, result: PartResult, rejects: bytes) -> None:
    """Say in the journal that the part is done: after all that it has written is stored."""
    if rejects:
        with closing(open_store(job.folder(REJECTED))) as store:
            store.put(f'{part.name}.jsonl', rejects)
    with closing(open_store(job.folder(JOURNAL))) as store:
        store.put(f'{part.name}.json', result.to_json())

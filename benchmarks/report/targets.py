"""What the library must reach, as checks of results; each names the line that it looks at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from report.results import Results

__all__ = ['TARGETS', 'Target', 'Verdict']


@dataclass(frozen=True)
class Verdict:
    """How one workload stands: what was measured, as text, and whether that is enough; None where it was not measured."""

    measured: str
    reached: bool | None


@dataclass(frozen=True)
class Target:
    """A row of the table.

    Args:
        work: What is done.
        aim: What is to be reached, as text.
        judge: Results -> a verdict for each workload.
        why: What keeps us from it, where it is not reached.
    """

    work: str
    aim: str
    judge: Callable[[Results], list[Verdict]]
    why: str = ''


def over(name: str, peer: str, least: float, workloads: Sequence[str]) -> Callable[[Results], list[Verdict]]:
    """Ours at least so many times as good as a peer."""

    def judge(results: Results) -> list[Verdict]:
        verdicts = []
        for workload in workloads:
            result = results.get(name, workload, peer)
            ratio = result.get('ours_over')
            if ratio is None:
                failed = f'{workload}: {peer} failed' if 'error' in result else f'{workload}: not measured'
                verdicts.append(Verdict(failed, None))
            else:
                verdicts.append(Verdict(f'{workload} {ratio:.3g}x', ratio >= least))
        return verdicts

    return judge


def near(name: str, most: float, workloads: Sequence[str]) -> Callable[[Results], list[Verdict]]:
    """The limit at most so many times as good as ours."""

    def judge(results: Results) -> list[Verdict]:
        verdicts = []
        for workload in workloads:
            ratio = results.get(name, workload, 'ours').get('limit_over')
            if ratio is None:
                verdicts.append(Verdict(f'{workload}: not measured', None))
            else:
                verdicts.append(Verdict(f'{workload} {ratio:.3g}x', ratio <= most))
        return verdicts

    return judge


def field_at_most(name: str, prefix: str, key: str, unit: str, most: float) -> Callable[[Results], list[Verdict]]:
    """A number that ours noted, in every workload that begins like this."""

    def judge(results: Results) -> list[Verdict]:
        found = [(workload, line[key]) for workload, line in results.matching(name, prefix, 'ours') if key in line]
        return [Verdict(f'{workload}: {value:.3g} {unit}', value <= most) for workload, value in found] or [
            Verdict('not measured', None)
        ]

    return judge


def starts(least: float) -> Callable[[Results], list[Verdict]]:
    """Ours so many times as quick to the first batch as mosaicml-streaming."""

    def judge(results: Results) -> list[Verdict]:
        return [
            Verdict(f'{workload}: {line["ours_over"]:.3g}x', line['ours_over'] >= least)
            for workload, line in results.matching('start/first_batch', '', 'mosaicml')
            if 'ours_over' in line
        ] or [Verdict('not measured', None)]

    return judge


def shuffled_over_ordered(most: float) -> Callable[[Results], list[Verdict]]:
    """Our shuffled epoch at most so many times as long as ours in order."""

    def judge(results: Results) -> list[Verdict]:
        ordered = results.get('stream/epoch', 'tokens plain, in order', 'ours').get('value')
        shuffled = results.get('stream/epoch', 'tokens plain, shuffled', 'ours').get('value')
        if not ordered or not shuffled:
            return [Verdict('not measured', None)]
        return [Verdict(f'{shuffled / ordered:.3g}x', shuffled / ordered <= most)]

    return judge


SMALL = ('ints', 'text', 'tokens', 'mixed')
ORDERED = ('tokens plain, in order',)

TARGETS = (
    Target('random access, local, one process', '10x mosaicml-streaming', over('read/random', 'mosaicml', 10, SMALL)),
    Target('', '4x litData', over('read/random', 'litdata', 4, SMALL)),
    Target('', '2.5x mosaicml-streaming for 100 KB blobs', over('read/random', 'mosaicml', 2.5, ['blobs'])),
    Target(
        '',
        'within 1.5x of map, slice, decode',
        near('read/random', 1.5, (*SMALL, 'blobs')),
        'a sample takes a quarter of a microsecond more than by hand, for a number that may be negative, a slice or of a shard '
        'that is not mapped yet; it shows where a sample is two ints',
    ),
    Target(
        'iterating, local, no workers', '40x mosaicml-streaming', over('read/iterate', 'mosaicml', 40, ('ints', 'text', 'tokens'))
    ),
    Target('', '2x litData', over('read/iterate', 'litdata', 2, ('ints', 'text', 'tokens'))),
    Target('', 'within 1.7x of the bare loop', near('read/iterate', 1.7, (*SMALL, 'blobs'))),
    Target(
        'collated batches, no workers',
        '30x mosaicml-streaming',
        over('batch/0_workers', 'mosaicml', 30, ('ints', 'text', 'tokens')),
    ),
    Target(
        '',
        '4x litData',
        over('batch/0_workers', 'litdata', 4, ('ints', 'text', 'tokens')),
        'text has to become a str for each sample, which both make; that is half of our time, and the limit, a bare loop over '
        'the same bytes, takes no less',
    ),
    Target(
        '',
        'within 2x of a NumPy gather',
        near('batch/0_workers', 2, ('tokens', 'tokens shuffled')),
        'the gather has its order as an array, made before; ours is computed batch by batch, and the samples of a batch looked '
        'up by formula',
    ),
    Target('constructor to first batch, 10^8 samples', '100x mosaicml-streaming', starts(100)),
    Target(
        "memory of an epoch's order, per worker",
        'under 50 MB at 10^9 samples in 10^5 shards',
        field_at_most('order/first_batch', '1e+09 samples', 'memory_mb', 'MB', 50),
    ),
    Target(
        'first batch, cold, 30 ms latency',
        '10x mosaicml-streaming',
        over('stream/first_batch', 'mosaicml', 10, ORDERED),
        'shards are small here, 16 MiB, so that nobody waits long for a whole one: mosaicml-streaming takes but a few times as '
        'long as bare GETs; workers have to be started too, by everybody',
    ),
    Target(
        'cold epoch, 30 ms, 80 MB/s a connection',
        '8x mosaicml-streaming',
        over('stream/epoch', 'mosaicml', 8, ORDERED),
        'the server runs on the cores that the workers and the training process have, and a small epoch is over before it has '
        'made up for starting them',
    ),
    Target(
        '',
        '3x litData',
        over('stream/epoch', 'litdata', 3, (*ORDERED, 'tokens plain, shuffled', 'tokens zstd, in order')),
        'as above; bare GETs of the same bytes are the limit of the ratio',
    ),
    Target('', 'shuffled within 1.5x of in order', shuffled_over_ordered(1.5)),
    Target(
        '',
        '80 % of what parallel GETs reach',
        near('stream/epoch', 1.25, ORDERED),
        'bare GETs start no workers, verify nothing, and hand no batches over to a training process',
    ),
    Target(
        'bytes fetched per epoch, a cache of half the dataset',
        '0.65x LRU',
        over('evict/fetched', 'lru', 1 / 0.65, ['cache of 50%']),
    ),
    Target('', 'the offline optimum, within 5 %', near('evict/replayed', 1.05, ['cache of 50%'])),
    Target('writing, no compression', '4x mosaicml-streaming (two ints)', over('write/none', 'mosaicml', 4, ['ints'])),
    Target('', '1.7x mosaicml-streaming (text, tokens)', over('write/none', 'mosaicml', 1.7, ('text', 'tokens'))),
    Target('writing, zstd and xxh64', '1.6x mosaicml-streaming', over('write/zstd+xxh64', 'mosaicml', 1.6, ('text', 'tokens'))),
    Target(
        '',
        '0.9 of the codec alone on as many cores',
        near('write/zstd+xxh64', 1 / 0.9, ('text', 'tokens')),
        'the codec alone takes no samples and writes no files: the way of a sample from the caller into its shard, 1 to 2 us, is '
        "a fifth of the codec's own time for both; `limit with files` shows what files cost; and two cores are busy for 85 % of "
        'the time',
    ),
)

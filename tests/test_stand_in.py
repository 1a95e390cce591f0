"""What stands in for the samples of bad shards: always another good sample of the stream, whoever asks and whenever."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming.format.index import FileInfo, ShardInfo, ShardTable
from streaming.stand_in import StandIns


def table_of(samples: list[int]) -> ShardTable:
    files = [FileInfo(f'shard.{number}', 1) for number in range(len(samples))]
    return ShardTable([ShardInfo(format='mds', samples=n, raw_data=file) for n, file in zip(samples, files, strict=True)])


STREAMS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=3)


@given(STREAMS, st.data())
def test_stand_ins_are_good_and_of_the_stream(streams: list[list[int]], data: st.DataObject) -> None:
    table = table_of([count for stream in streams for count in stream])
    ends = np.cumsum([0, *map(len, streams)]).tolist()
    stream_of = {shard: (a, b) for a, b in pairwise(ends) for shard in range(a, b)}
    bad = data.draw(st.lists(st.sampled_from(range(len(table))), unique=True))
    stand_ins = StandIns(table, stream_of.__getitem__)
    left = {shard: stand_ins.add(shard) for shard in bad}
    ids = np.arange(table.num_samples)
    replaced = stand_ins.replace(ids)
    before, after = table.find(ids)[0].tolist(), table.find(replaced)[0].tolist()
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        first, end = stream_of[old]
        hopeless = set(range(first, end)) <= set(bad)
        if old not in bad or hopeless:
            assert replaced[number] == number
        else:
            assert new not in bad
            assert first <= new < end
    for shard, found in left.items():
        if found is False:
            assert set(range(*stream_of[shard])) <= set(bad)
    # The order in which they were found to be bad does not matter.
    again = StandIns(table, stream_of.__getitem__)
    for shard in reversed(bad):
        again.add(shard)
    assert again.replace(ids).tolist() == replaced.tolist()


def test_the_next_shard_stands_in_number_by_number() -> None:
    stand_ins = StandIns(table_of([3, 5, 2]), lambda shard: (0, 3))
    assert stand_ins.add(1)
    assert stand_ins.replace(np.arange(10)).tolist() == [0, 1, 2, 8, 9, 8, 9, 8, 8, 9]
    assert stand_ins.add(2)
    assert stand_ins.replace(np.arange(10)).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0, 1]
    assert not stand_ins.add(0)

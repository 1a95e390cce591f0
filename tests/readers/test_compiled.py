"""Readers made for a schema give what the general decoder gives, and do next to nothing else."""

import gc
import os
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streaming import LocalDataset, MDSWriter, StreamingDataset, World
from streaming.errors import FormatError
from streaming.format.columns import get_encoding
from streaming.format.index import ShardTable
from streaming.format.mds import MDSSchema
from streaming.readers.mds import MDSReader
from streaming.readers.rows import FEW
from streaming.testing.effort import audited, calls_of
from streaming.testing.values import VALUES, assert_same

NAMES = st.text(min_size=1, max_size=8) | st.sampled_from(["'", '"', '\\', '{x}', 'names', 'def', "']}); raise SystemExit  #"])


@st.composite
def datasets(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, Any]]]:
    columns = draw(st.dictionaries(NAMES, st.sampled_from(sorted(VALUES)), min_size=1, max_size=6))
    rows = [{name: draw(VALUES[encoding]) for name, encoding in columns.items()} for _ in range(draw(st.integers(1, 5)))]
    return columns, rows


@settings(max_examples=150, deadline=None)
@given(datasets(), st.data())
def test_as_the_general_decoder(tmp_path_factory: pytest.TempPathFactory, dataset: Any, data: st.DataObject) -> None:
    columns, rows = dataset
    folder = tmp_path_factory.mktemp('set')
    with MDSWriter(out=str(folder), columns=columns, exist_ok=True) as writer:
        for row in rows:
            writer.write(row)
    shard = ShardTable.from_json((folder / 'index.json').read_bytes(), 'index')[0]
    wanted = data.draw(st.none() | st.lists(st.sampled_from(sorted(columns)), unique=True))
    reader = MDSReader(folder, shard, columns=wanted)
    schema = MDSSchema.from_columns(columns)
    decode, encode = schema.decoder(wanted), schema.encoder()
    rows_of = reader._make_rows()  # what reads many samples, however few they are
    for number, row in enumerate(rows):
        expected = decode(memoryview(encode(row)))
        for _ in range(3):  # arrays take another way once they have been seen
            assert_same(reader[number], expected)
            assert_same(list(reader.read_each(np.array([number, number]))), [expected, expected])
            assert_same(list(rows_of.read_each(np.array([number, number])) or ()), [expected, expected])
        assert list(reader[number]) == list(expected)


def test_values_are_copies(tmp_path: Path) -> None:
    columns = {'a': 'ndarray:int16:2,3', 'b': 'ndarray', 'c': 'bytes', 'd': 'ndarray:uint8'}
    row = {'a': np.ones((2, 3), np.int16), 'b': np.ones((2, 1)), 'c': b'x', 'd': np.array(7, np.uint8)}
    with MDSWriter(out=str(tmp_path / 'set'), columns=columns) as writer:
        for _ in range(3):
            writer.write(row)
    dataset = LocalDataset(tmp_path / 'set')
    for sample in [*dataset, dataset[0]]:
        for name in 'abd':
            assert sample[name].flags.writeable
            assert sample[name].flags.aligned
            assert sample[name].flags.c_contiguous
            assert sample[name].dtype.isnative
            sample[name][...] = 0
    assert_same(dataset[0], row)


def test_a_schema_is_compiled_once(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path / 'set'), columns={'a': 'int', 'b': 'str'}, size_limit=400) as writer:
        for number in range(100):
            writer.write({'a': number, 'b': 'x'})
    dataset = LocalDataset(tmp_path / 'set')
    assert calls_of(lambda: list(dataset))['compile'] <= 1


def test_a_closed_reader_lets_its_map_go_at_once(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path / 'set'), columns={'a': 'ndarray', 'b': 'str', 'c': 'float32'}) as writer:
        for _ in range(3):
            writer.write({'a': np.zeros(3), 'b': 'x', 'c': 1.0})
    shard = ShardTable.from_json((tmp_path / 'set/index.json').read_bytes(), 'index')[0]
    gc.disable()
    try:
        before = len(os.listdir('/proc/self/fd')) if os.path.exists('/proc/self/fd') else 0
        reader = MDSReader(tmp_path / 'set', shard)
        samples = [reader[number] for number in range(3)]
        gone = weakref.ref(reader)
        del reader
        assert gone() is None
        assert len(samples) == 3
        if before:
            assert len(os.listdir('/proc/self/fd')) == before
    finally:
        gc.enable()


def test_a_sample_costs_few_calls(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path / 'set'), columns={'x': 'int', 'y': 'int'}) as writer:
        for number in range(1000):
            writer.write({'x': number, 'y': -number})
    local = LocalDataset(tmp_path / 'set')
    streamed = StreamingDataset(local=str(tmp_path / 'set'), batch_size=100, world=World(rank=0, num_ranks=1, ranks_per_node=1))

    def ask() -> None:
        for number in range(1000):
            local[number]

    # A function of ours a sample to iterate, beside opening the shard and making the plan; to ask for one, what finds its shard.
    assert calls_of(lambda: list(local)).total() < 2 * 1000
    assert calls_of(lambda: list(streamed)).total() < 4 * 1000
    assert calls_of(ask).total() < 8 * 1000


def test_reading_asks_the_system_for_nothing(tmp_path: Path) -> None:
    with MDSWriter(
        out=str(tmp_path / 'set'), columns={'a': 'ndarray:uint16', 'b': 'str', 'c': 'json'}, size_limit=4000
    ) as writer:
        for number in range(300):
            writer.write({'a': np.arange(20, dtype=np.uint16), 'b': 'x', 'c': [number]})
    dataset = LocalDataset(tmp_path / 'set')
    list(dataset)
    with audited() as events:
        calls = calls_of(lambda: [list(dataset), dataset[7], dataset[[5, 250]]])
    assert not {event for event in events if event.startswith(('open', 'os.', 'mmap', 'fcntl', 'socket'))}
    assert not calls.keys() & {'acquire', 'monotonic', 'perf_counter', 'time', 'fstat', 'stat', 'seek'}


def test_a_lie_about_sizes_is_found_in_every_column(tmp_path: Path) -> None:
    columns = {'a': 'str', 'b': 'ndarray:int16', 'c': 'bool', 'd': 'bytes'}
    with MDSWriter(out=str(tmp_path / 'set'), columns=columns) as writer:
        for _ in range(3):
            writer.write({'a': 'abc', 'b': np.arange(3, dtype=np.int16), 'c': True, 'd': b'xyz'})
    path = tmp_path / 'set/shard.00000.mds'
    data = path.read_bytes()
    start = int.from_bytes(data[8:12], 'little')
    for where in range(start, start + 12, 4):
        for value in (0, 2, 1 << 31, (1 << 32) - 1):
            path.write_bytes(data[:where] + value.to_bytes(4, 'little') + data[where + 4 :])
            with pytest.raises(FormatError, match=r'shard\.00000\.mds, sample 1'):
                LocalDataset(tmp_path / 'set')[1]
            with pytest.raises(FormatError, match=r'shard\.00000\.mds, sample 1'):
                list(LocalDataset(tmp_path / 'set'))


def test_samples_before_a_broken_one_are_given(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path / 'set'), columns={'a': 'int', 'b': 'str'}) as writer:
        for number in range(3 * FEW):
            writer.write({'a': number, 'b': 'x' * (number % 7)})
    path = tmp_path / 'set/shard.00000.mds'
    data = bytearray(path.read_bytes())
    start = int(np.frombuffer(data, '<u4', 1, 4 + 4 * 2 * FEW)[0])
    data[start : start + 4] = (1 << 31).to_bytes(4, 'little')
    path.write_bytes(data)
    one = World(rank=0, num_ranks=1, ranks_per_node=1)
    for dataset in (LocalDataset(tmp_path / 'set'), StreamingDataset(local=str(tmp_path / 'set'), batch_size=8, world=one)):
        given = []
        with pytest.raises(FormatError, match=f'sample {2 * FEW}'):
            given += (sample['a'] for sample in dataset)
        samples = iter(dataset)
        assert [next(samples)['a'] for _ in range(2 * FEW)] == list(range(2 * FEW))
        with pytest.raises(FormatError):
            next(samples)
    assert dataset.state_dict()['walk']['samples'] == 2 * FEW
    assert next(samples, None) is None, 'it ends where it could not go on'


def test_many_samples_at_once_are_what_they_are_one_by_one_in_a_corrupt_shard(tmp_path: Path) -> None:
    columns = {'a': 'int', 's': 'str', 'b': 'bytes', 'x': 'ndarray:float32:3', 'v': 'ndarray', 't': 'bool', 'j': 'json'}
    with MDSWriter(out=str(tmp_path / 'set'), columns=columns) as writer:
        for number in range(FEW + 20):
            x, v = np.full(3, number, np.float32), np.arange(number % 4)
            writer.write(
                {'a': number, 's': 'é' * (number % 7), 'b': b'x' * (number % 5), 'x': x, 'v': v, 't': True, 'j': [number]}
            )
    shard = ShardTable.from_json((tmp_path / 'set/index.json').read_bytes(), 'index.json')[0]
    data = (tmp_path / 'set/shard.00000.mds').read_bytes()
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        corrupt = bytearray(data)
        for at in rng.integers(4 * (shard.samples + 2), len(data), 3).tolist():
            corrupt[at] ^= 1 << int(rng.integers(8))
        reader = MDSReader.of_bytes(memoryview(bytes(corrupt)), 'shard', shard)
        at_once = reader.read_each(np.arange(shard.samples))
        for number in range(shard.samples):
            try:
                expected = repr(reader.read(number))
            except FormatError as error:
                wrong += 1
                with pytest.raises(FormatError, match=re.escape(str(error))):
                    next(at_once)
                break
            assert repr(next(at_once)) == expected
    assert 10 < wrong < 100


@pytest.mark.parametrize('size_limit', [400, 4_000, 20_000])
def test_many_samples_in_any_order(tmp_path: Path, size_limit: int) -> None:
    with MDSWriter(out=str(tmp_path / 'set'), columns={'a': 'int', 'b': 'str'}, size_limit=size_limit) as writer:
        for number in range(2000):
            writer.write({'a': number, 'b': 'x' * (number % 7)})
    dataset = LocalDataset(tmp_path / 'set')
    ids = np.arange(2000)
    blocks = np.concatenate([np.random.default_rng(0).permutation(block) for block in np.split(ids, 4)])
    for order in (ids, ids[::-1], blocks, np.random.default_rng(0).permutation(ids), np.repeat(ids[::40], 9), ids[:0]):
        assert [sample['a'] for sample in dataset[order]] == order.tolist()


def test_unusual_scalars_keep_their_bits(tmp_path: Path) -> None:
    bits = np.array([0x7FC12345, 0x80000000, 1], np.uint32)
    with MDSWriter(out=str(tmp_path / 'set'), columns={'a': 'float32'}) as writer:
        for value in bits.view(np.float32):
            writer.write({'a': value.tobytes()})
    assert [int(sample['a'].view(np.uint32)) for sample in LocalDataset(tmp_path / 'set')] == bits.tolist()


@given(hnp.arrays(np.int16, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)))
def test_heads_of_arrays_are_read_once(value: np.ndarray[Any, Any]) -> None:
    for name in ('ndarray', 'ndarray:int16'):
        encoding = get_encoding(name)
        back = encoding.decode(memoryview(encoding.encode(value)))
        assert back.shape == value.shape
        assert back.flags.writeable

"""Whatever is wrong with a dataset, its store or an argument: one clear error in the training process, within seconds."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset, World
from streaming.errors import (
    CorruptError,
    CredentialsError,
    DeniedError,
    FormatError,
    NotFoundError,
    StaleCacheError,
    StoreError,
    StreamingError,
)
from streaming.testing.oci import OCIServer

BATCH = 4
LIMIT_S = 45  # what is silent is given up after a minute; machines that test are busy


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    folder = tmp_path / 'remote'
    with MDSWriter(
        out=str(folder), columns={'id': 'int', 'text': 'str'}, compression='zstd', hashes=['sha1'], size_limit=400
    ) as writer:
        for number in range(50):
            writer.write({'id': number, 'text': f'sample {number}'})
    return folder


@pytest.fixture(autouse=True)
def within_seconds() -> Iterator[None]:
    since = time.monotonic()
    yield
    assert time.monotonic() - since < LIMIT_S


def read_all(remote: str | Path, local: Path, workers: int) -> list[int]:
    dataset = StreamingDataset(remote=str(remote), local=str(local), batch_size=BATCH, world=World())
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)
    return [number for batch in loader for number in batch['id'].tolist()]


def change_index(remote: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = remote / 'index.json'
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def first_shard(remote: Path) -> Path:
    return min(remote.glob('shard.*'))


def test_no_index(remote: Path, tmp_path: Path) -> None:
    (remote / 'index.json').unlink()
    with pytest.raises(NotFoundError, match=r'index\.json does not exist'):
        read_all(remote, tmp_path / 'cache', 0)
    with pytest.raises(NotFoundError, match=r'index\.json does not exist'):
        StreamingDataset(local=str(remote), batch_size=BATCH)


@pytest.mark.parametrize('keep', [0, 1, 100, -1])
def test_truncated_index(remote: Path, tmp_path: Path, keep: int) -> None:
    path = remote / 'index.json'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r'remote/index\.json'):
        read_all(remote, tmp_path / 'cache', 0)


def test_index_of_another_version(remote: Path, tmp_path: Path) -> None:
    change_index(remote, lambda index: index.update(version=3))
    with pytest.raises(FormatError, match=r'index\.json.*version'):
        read_all(remote, tmp_path / 'cache', 0)


@pytest.mark.parametrize('name', ['../outside.mds', '/etc/passwd', 'a/../../b', '..', 'a\\..\\b', 'nul\0'])
@pytest.mark.parametrize('which', ['raw_data', 'zip_data'])
def test_index_that_names_a_file_outside(remote: Path, tmp_path: Path, name: str, which: str) -> None:
    def change(index: dict[str, Any]) -> None:
        index['shards'][0][which]['basename'] = name

    change_index(remote, change)
    with pytest.raises(FormatError, match=r'index\.json'):
        read_all(remote, tmp_path / 'cache', 0)
    assert not (tmp_path / 'outside.mds').exists()


@pytest.mark.parametrize('workers', [0, 2])
def test_shard_that_is_not_there(remote: Path, tmp_path: Path, workers: int) -> None:
    first_shard(remote).unlink()
    with pytest.raises(NotFoundError, match=r'shard\.00000\.mds\.zstd'):
        read_all(remote, tmp_path / 'cache', workers)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('change', ['short', 'long', 'flipped'])
def test_shard_with_wrong_bytes(remote: Path, tmp_path: Path, workers: int, change: str) -> None:
    path = first_shard(remote)
    data = bytearray(path.read_bytes())
    if change == 'short':
        del data[-1]
    elif change == 'long':
        data += b'x'
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match=r'shard\.00000\.mds\.zstd'):
        read_all(remote, tmp_path / 'cache', workers)
    assert not (tmp_path / 'cache' / 'shard.00000.mds').exists(), 'wrong bytes never get their final name'


def test_once_the_cause_is_gone_it_works_in_the_same_process(remote: Path, tmp_path: Path) -> None:
    path = first_shard(remote)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b'?')
    dataset = StreamingDataset(remote=str(remote), local=str(tmp_path / 'cache'), batch_size=BATCH)
    with pytest.raises(CorruptError):
        list(dataset)
    path.write_bytes(data)
    assert [sample['id'] for sample in dataset] == list(range(50))


def test_overwritten_remote_is_noticed(remote: Path, tmp_path: Path) -> None:
    assert read_all(remote, tmp_path / 'cache', 0) == list(range(50))
    change_index(remote, lambda index: index['shards'].pop())
    with pytest.raises(StaleCacheError, match='cache'):
        read_all(remote, tmp_path / 'cache', 0)


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OCIServer]:
    with OCIServer(buckets=['data']) as server:
        with MDSWriter(
            out=server.url('data/set'), columns={'id': 'int'}, compression='zstd', hashes=['xxh64'], size_limit=200
        ) as writer:
            for number in range(50):
                writer.write({'id': number})
        yield server


def test_right_key_and_bucket(server: OCIServer, tmp_path: Path) -> None:
    assert read_all(server.url('data/set'), tmp_path / 'cache', 2) == list(range(50))


def test_wrong_bucket_and_prefix(server: OCIServer, tmp_path: Path) -> None:
    for place in ('nothing/set', 'data/elsewhere'):
        with pytest.raises((NotFoundError, DeniedError), match=place.split('/')[0]):
            read_all(server.url(place), tmp_path / 'cache', 0)


def test_wrong_key(server: OCIServer, tmp_path: Path) -> None:
    with OCIServer(buckets=['data']) as other:
        foreign = server.url('data/set').replace(str(server.config_file), str(other.config_file))
        assert foreign != server.url('data/set')
        with pytest.raises((CredentialsError, DeniedError), match='data'):
            read_all(foreign, tmp_path / 'cache', 0)


def test_no_config_file(server: OCIServer, tmp_path: Path) -> None:
    lost = server.url('data/set').replace(str(server.config_file), str(tmp_path / 'no-such-config'))
    with pytest.raises(CredentialsError, match='no-such-config'):
        read_all(lost, tmp_path / 'cache', 0)


def test_no_server(tmp_path: Path) -> None:
    with OCIServer(buckets=['data']) as server:
        url = server.url('data/set')
        config = Path(server.config_file).read_text()
    del config
    with pytest.raises(StreamingError):
        read_all(url, tmp_path / 'cache', 0)


def test_an_unknown_scheme_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(StreamingError, match='oci'):
        read_all('gopher://bucket/set', tmp_path / 'cache', 0)


def test_no_batch_size(remote: Path, tmp_path: Path) -> None:
    dataset = StreamingDataset(remote=str(remote), local=str(tmp_path / 'cache'))
    with pytest.raises(StreamingError, match='batch_size'):
        iter(dataset)
    with pytest.raises(StreamingError, match='batch_size'):
        next(iter(DataLoader(dataset, num_workers=1)))


def test_errors_of_a_store_are_os_errors() -> None:
    assert issubclass(StoreError, OSError)

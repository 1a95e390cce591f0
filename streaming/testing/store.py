"""The suite that every store has to pass. A backend's tests subclass `StoreTests` and say how to make an empty store.

    class TestMyStore(StoreTests):
        @pytest.fixture
        def store(self):
            yield open_store('my://...')

Needs pytest and hypothesis.
"""

import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from streaming.errors import (
    AlreadyExistsError,
    ArgumentError,
    CorruptError,
    NotFoundError,
    PreconditionError,
    StoreError,
)
from streaming.store.memory import MemoryStore
from streaming.store.protocol import Store

__all__ = ['StoreTests', 'read']

ODD_KEYS = (
    'plain',
    'a/b/c.mds.zst',
    'with space',
    'per%cent%20.x',
    'plus+and&equals=.x',
    'what?.x',
    'hash#.x',
    'colon:semi;comma,.x',
    'quote\'and"double',
    '(round)[square]{curly}',
    'tilde~star*bang!at@',
    'ünïcödé/日本語.mds',
    'dots..inside/..leading/trailing..',
    '.hidden',
    'shard.00000.mds',
)


def read(store: Store, key: str, start: int, size: int, if_match: str | None = None) -> bytes:
    """A range as bytes."""
    buffer = bytearray(size)
    store.read_into(key, start, memoryview(buffer), if_match=if_match)
    return bytes(buffer)


def pattern(size: int, seed: int = 0) -> bytes:
    """So many bytes of which no two parts of a few hundred are equal."""
    block = b''.join((seed + i).to_bytes(8, 'little') for i in range(min(size, 1 << 16) // 8 + 1))
    return (block * (size // len(block) + 1))[:size]


class StoreTests:
    """Tests of a store. Override the fixture ``store``, and the attributes where the store cannot do a thing.

    Attributes:
        odd_keys: Keys to be told apart.
        large_bytes: Size that the store puts in several parts. Default: 0, it has none.
        page: More objects than a page of a listing holds. Default: 0, it has no pages.
        conditional_put: Whether ``overwrite=False`` is atomic, or at all. Default: True.
        has_etag: Whether objects have versions. Default: True.
        folders: Whether a key cannot be the start of another's path, as on a file system. Default: False.
        forks: Whether a forked child may use the store, and its objects are there. Default: True.
        examples: Runs of the state machine. Default: 15.
    """

    odd_keys: ClassVar[tuple[str, ...]] = ODD_KEYS
    large_bytes: ClassVar[int] = 0
    page: ClassVar[int] = 0
    conditional_put: ClassVar[bool] = True
    has_etag: ClassVar[bool] = True
    folders: ClassVar[bool] = False
    forks: ClassVar[bool] = True
    examples: ClassVar[int] = 15

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """An empty store."""
        pytest.fail(f'{type(self).__name__} has no fixture `store` of its own')

    # Whole objects

    @pytest.mark.parametrize('size', [0, 1, 1000, (1 << 20) + 1])
    def test_put_then_get(self, store: Store, size: int) -> None:
        data = pattern(size)
        info = store.put('a/key', data)
        assert (info.key, info.size) == ('a/key', size)
        assert store.get('a/key') == data
        assert store.head('a/key') == info

    @pytest.mark.parametrize('size', [0, 100_000])
    def test_put_from_a_file(self, store: Store, tmp_path: Path, size: int) -> None:
        path = tmp_path / 'source'
        path.write_bytes(pattern(size))
        assert store.put('key', path).size == size
        assert store.get('key') == path.read_bytes()
        assert path.exists()

    def test_put_from_a_missing_file_leaves_nothing(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match='no-such-file'):
            store.put('key', tmp_path / 'no-such-file')
        assert list(store.list()) == []

    def test_put_replaces(self, store: Store) -> None:
        first = store.put('key', b'first')
        second = store.put('key', b'second one')
        assert store.get('key') == b'second one'
        assert store.head('key') == second
        if self.has_etag:
            assert first.etag is not None
            assert first.etag != second.etag

    def test_put_without_overwriting(self, store: Store, tmp_path: Path) -> None:
        if not self.conditional_put:
            pytest.skip('no conditional put')
        (tmp_path / 'source').write_bytes(b'third')
        store.put('key', b'first', overwrite=False)
        for source in (b'second', tmp_path / 'source'):
            with pytest.raises(AlreadyExistsError, match='key'):
                store.put('key', source, overwrite=False)
        assert store.get('key') == b'first'
        assert [info.key for info in store.list()] == ['key']

    def test_one_of_many_puts_without_overwriting_wins(self, store: Store) -> None:
        if not self.conditional_put:
            pytest.skip('no conditional put')

        def put(number: int) -> int | None:
            try:
                store.put('key', str(number).encode(), overwrite=False)
            except AlreadyExistsError:
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(put, range(8)) if number is not None]
        assert [str(number).encode() for number in winners] == [store.get('key')]

    def test_get_with_a_limit(self, store: Store) -> None:
        store.put('key', b'12345')
        assert store.get('key', limit_bytes=5) == b'12345'
        with pytest.raises(CorruptError, match='key'):
            store.get('key', limit_bytes=4)

    def test_a_large_object(self, store: Store, tmp_path: Path) -> None:
        if not self.large_bytes:
            pytest.skip('no parts')
        data = pattern(self.large_bytes, seed=7)
        path = tmp_path / 'large'
        path.write_bytes(data)
        for source in (path, data):
            info = store.put('large', source)
            assert info.size == len(data)
            assert store.head('large') == info
            assert store.get('large') == data
            store.delete('large')
        assert list(store.list()) == []

    def test_a_large_object_without_overwriting(self, store: Store) -> None:
        if not self.large_bytes or not self.conditional_put:
            pytest.skip('no parts, or no conditional put')
        store.put('large', b'small', overwrite=False)
        with pytest.raises(AlreadyExistsError):
            store.put('large', bytes(self.large_bytes), overwrite=False)
        assert store.get('large') == b'small'

    # What is not there

    def test_missing_objects(self, store: Store) -> None:
        store.put('folder/key', b'x')
        for key in ('missing', 'folder', 'folder/key2', 'folder/key/below'):
            with pytest.raises(NotFoundError) as error:
                store.head(key)
            assert key in str(error.value)
            with pytest.raises(NotFoundError):
                store.get(key)
            with pytest.raises(FileNotFoundError):
                read(store, key, 0, 1)
            store.delete(key)
        assert store.get('folder/key') == b'x'

    def test_delete(self, store: Store) -> None:
        store.put('a', b'1')
        store.put('b', b'2')
        store.delete('a')
        store.delete('a')
        assert [info.key for info in store.list()] == ['b']
        with pytest.raises(NotFoundError):
            store.get('a')

    @pytest.mark.parametrize('key', ['', '/', '/abs', '../up', 'a/../b', 'a//b', './a', 'a/', 'nul\0', 'back\\slash'])
    def test_keys_outside(self, store: Store, key: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.head(key),
            lambda: store.get(key),
            lambda: read(store, key, 0, 1),
            lambda: store.put(key, b''),
            lambda: store.delete(key),
        ]
        for call in calls:
            with pytest.raises(ArgumentError):
                call()

    # Ranges

    def test_ranges(self, store: Store) -> None:
        data = pattern(300_000)
        store.put('key', data)
        for start, size in ((0, 1), (0, 300_000), (299_999, 1), (100_000, 70_001), (1, 299_999)):
            assert read(store, 'key', start, size) == data[start : start + size]

    def test_a_range_into_a_part_of_a_buffer(self, store: Store) -> None:
        store.put('key', b'0123456789')
        buffer = bytearray(b'..........')
        store.read_into('key', 3, memoryview(buffer)[2:6])
        assert buffer == b'..3456....'

    def test_a_range_tells_of_its_object(self, store: Store) -> None:
        store.put('key', b'0123456789')
        found = store.read_into('key', 3, memoryview(bytearray(4)))
        assert found in (None, store.head('key'))

    @pytest.mark.parametrize(('start', 'size'), [(0, 11), (5, 6), (10, 1), (11, 1), (1 << 40, 1)])
    def test_ranges_beyond_the_end(self, store: Store, start: int, size: int) -> None:
        store.put('key', b'0123456789')
        with pytest.raises(CorruptError, match='key'):
            read(store, 'key', start, size)

    def test_a_range_of_an_empty_object(self, store: Store) -> None:
        store.put('key', b'')
        with pytest.raises(CorruptError):
            read(store, 'key', 0, 1)

    def test_ranges_that_are_none(self, store: Store) -> None:
        store.put('key', b'0123456789')
        for start, buffer in ((0, memoryview(bytearray())), (-1, memoryview(bytearray(1))), (0, memoryview(b'x'))):
            with pytest.raises(ArgumentError):
                store.read_into('key', start, buffer)
        with pytest.raises(ArgumentError):
            store.read_into('key', 0, memoryview(bytearray(8))[::2])

    def test_bytes_are_reported_as_they_come(self, store: Store) -> None:
        data = pattern(3 << 20)
        store.put('key', data)
        buffer = bytearray(len(data) - 10)
        done = 0

        def note(count: int) -> None:
            nonlocal done
            assert count > 0
            # Everything reported is really there.
            assert buffer[done : done + count] == data[10 + done : 10 + done + count]
            done += count

        store.read_into('key', 10, memoryview(buffer), on_bytes=note)
        assert done == len(buffer)

    def test_a_read_is_cancelled(self, store: Store) -> None:
        class Enough(Exception):
            pass

        def stop(count: int) -> None:
            raise Enough

        store.put('key', pattern(1 << 20))
        for _ in range(3):
            with pytest.raises(Enough):
                store.read_into('key', 0, memoryview(bytearray(1 << 20)), on_bytes=stop)
        assert read(store, 'key', 0, 1 << 20) == pattern(1 << 20)

    def test_a_range_of_one_version(self, store: Store) -> None:
        if not self.has_etag:
            pytest.skip('no versions')
        etag = store.put('key', b'first').etag
        assert read(store, 'key', 1, 2, if_match=etag) == b'ir'
        store.put('key', b'second')
        with pytest.raises(PreconditionError, match='key'):
            read(store, 'key', 1, 2, if_match=etag)

    # Listing

    def test_list(self, store: Store) -> None:
        assert list(store.list()) == []
        keys = ['a', 'a-b', 'a.b/c', 'a/b', 'a/c/d', 'a/c0', 'a0', 'b/a', 'B']
        if self.folders:
            keys.remove('a')
        infos = {key: store.put(key, key.encode()) for key in keys}
        assert list(store.list()) == [infos[key] for key in sorted(keys)]
        for prefix in ('a', 'a/', 'a/c', 'a/c/', 'b/a', 'none', 'a/none/'):
            wanted = [key for key in sorted(keys) if key.startswith(prefix)]
            assert [info.key for info in store.list(prefix)] == wanted
        for after in ('', 'A', 'a-b', 'a/c', 'a/c/d', 'a/c/e', 'b/a', 'z'):
            wanted = [key for key in sorted(keys) if key > after]
            assert [info.key for info in store.list(after=after)] == wanted
        assert [info.key for info in store.list('a/', after='a/b')] == ['a/c/d', 'a/c0']

    @pytest.mark.parametrize('prefix', ['/', '../', 'a/../', 'a//b', '\0'])
    def test_list_outside(self, store: Store, prefix: str) -> None:
        with pytest.raises(ArgumentError):
            store.list(prefix)

    def test_list_many(self, store: Store) -> None:
        if not self.page:
            pytest.skip('no pages')
        keys = [f'{i:06d}' for i in range(self.page)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b''), keys))
        assert [info.key for info in store.list()] == keys
        assert [info.key for info in store.list(after=keys[-3])] == keys[-2:]

    def test_odd_keys(self, store: Store) -> None:
        infos = {key: store.put(key, key.encode()) for key in self.odd_keys}
        for key, info in infos.items():
            assert store.get(key) == key.encode()
            assert store.head(key) == info
            assert read(store, key, 1, 2) == key.encode()[1:3]
        assert list(store.list()) == [infos[key] for key in sorted(infos)]
        for key in infos:
            assert key in [info.key for info in store.list(key)]
            store.delete(key)
        assert list(store.list()) == []

    # Threads, processes, life

    def test_readers_see_one_version_or_the_other(self, store: Store) -> None:
        versions = [bytes([i]) * 50_000 for i in range(4)]
        store.put('key', versions[0])
        done = threading.Event()

        def write() -> None:
            for _ in range(3):
                for version in versions:
                    store.put('key', version)
            done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                while not done.is_set():
                    assert store.get('key') in versions
            finally:
                writing.result()

    def test_many_threads(self, store: Store) -> None:
        data = pattern(1 << 20)
        store.put('key', data)
        with ThreadPoolExecutor(16) as pool:
            starts = range(0, 1 << 20, 1 << 14)
            found = list(pool.map(lambda start: read(store, 'key', start, 1 << 14), starts))
        assert b''.join(found) == data

    def test_pickle(self, store: Store) -> None:
        store.put('key', b'value')
        copy = pickle.loads(pickle.dumps(store))
        try:
            assert copy.url == store.url
            assert copy.get('key') == b'value'
            copy.put('other', b'from the copy')
            assert store.get('other') == b'from the copy'
        finally:
            copy.close()

    def test_fork(self, store: Store) -> None:
        if not self.forks:
            pytest.skip('does not fork')
        store.put('key', b'value')
        context = multiprocessing.get_context('fork')
        queue = context.SimpleQueue()

        def child() -> None:
            try:
                queue.put([store.get('key') for _ in range(3)])
            except Exception as error:  # whatever it is, the parent shall show it
                queue.put(repr(error))

        processes = [context.Process(target=child) for _ in range(2)]
        for process in processes:
            process.start()
        for _ in processes:
            assert queue.get() == [b'value'] * 3
            assert store.get('key') == b'value'
        for process in processes:
            process.join(60)
            assert process.exitcode == 0

    def test_close_and_use_again(self, store: Store) -> None:
        store.put('key', b'value')
        store.close()
        store.close()
        assert store.get('key') == b'value'

    def test_urls(self, store: Store) -> None:
        assert store.url_of('a/b') == f'{store.url.rstrip("/")}/a/b'
        assert '?' not in store.url

    def test_every_error_is_one_of_ours(self, store: Store) -> None:
        for call in (lambda: store.head('x'), lambda: store.get('x'), lambda: read(store, 'x', 0, 1)):
            with pytest.raises(StoreError) as error:
                call()
            # Rebuilt in another process from its message alone.
            assert str(type(error.value)(str(error.value))) == str(error.value)
            assert store.url_of('x') in str(error.value)

    # Against something simpler

    def test_like_a_dictionary(self, store: Store) -> None:
        """Any sequence of calls does what it does to the memory store."""
        conditional = self.conditional_put
        keys = st.sampled_from(['a', 'b', 'f/a', 'f/b', 'f/g/a', 'ä', 'f-1'])

        class Machine(RuleBasedStateMachine):
            @initialize()
            def begin(self) -> None:
                for info in list(store.list()):
                    store.delete(info.key)
                self.model = MemoryStore()

            @rule(key=keys, data=st.binary(max_size=40), overwrite=st.booleans())
            def put(self, key: str, data: bytes, overwrite: bool) -> None:
                overwrite = overwrite or not conditional
                try:
                    self.model.put(key, data, overwrite=overwrite)
                except AlreadyExistsError:
                    with pytest.raises(AlreadyExistsError):
                        store.put(key, data, overwrite=overwrite)
                else:
                    assert store.put(key, data, overwrite=overwrite).size == len(data)

            @rule(key=keys)
            def delete(self, key: str) -> None:
                self.model.delete(key)
                store.delete(key)

            @rule(key=keys, start=st.integers(0, 45), size=st.integers(1, 45))
            def read(self, key: str, start: int, size: int) -> None:
                try:
                    wanted = read(self.model, key, start, size)
                except (NotFoundError, CorruptError) as error:
                    with pytest.raises(type(error)):
                        read(store, key, start, size)
                else:
                    assert read(store, key, start, size) == wanted

            @rule(prefix=st.sampled_from(['', 'f', 'f/', 'f/g', 'a']), after=keys)
            def list(self, prefix: str, after: str) -> None:
                wanted = [(info.key, info.size) for info in self.model.list(prefix, after=after)]
                assert [(info.key, info.size) for info in store.list(prefix, after=after)] == wanted

            @invariant()
            def holds_the_same(self) -> None:
                if hasattr(self, 'model'):
                    for info in self.model.list():
                        assert store.get(info.key) == self.model.get(info.key)

        quick = settings(
            max_examples=self.examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            database=None,
        )
        run_state_machine_as_test(Machine, settings=quick)

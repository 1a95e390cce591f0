import pickle

import pytest

from streaming.errors import ArgumentError
from streaming.store import get_schemes, open_store, register_store
from streaming.store.memory import MemoryStore
from streaming.store.protocol import Store
from streaming.testing.store import StoreTests


class TestMemoryStore(StoreTests):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


def test_stores_of_one_name_are_one() -> None:
    open_store('mem://shared/one').put('key', b'x')
    assert open_store('mem://shared/one/').get('key') == b'x'
    assert list(open_store('mem://shared/two').list()) == []


def test_another_process_begins_with_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore('travels')
    store.put('key', b'x')
    data = pickle.dumps(store)
    monkeypatch.setattr('streaming.store.memory._spaces', {})
    assert pickle.loads(data).get('key') == b'x'


def test_unknown_schemes_list_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r'gopher.*file://.*oci://.*s3://'):
        open_store('gopher://x/y?secret=1')
    with pytest.raises(ArgumentError, match='empty'):
        open_store('')


def test_a_scheme_of_ones_own() -> None:
    register_store('my-store', MemoryStore)
    try:
        assert open_store('my-store://x').url == 'mem://x'
        assert 'my-store' in get_schemes()
    finally:
        from streaming.store import registry

        del registry._backends['my-store']

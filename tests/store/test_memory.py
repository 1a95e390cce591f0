import pickle

import pytest

from streaming.store import open_store
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

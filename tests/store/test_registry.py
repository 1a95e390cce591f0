from pathlib import Path

import pytest

from streaming.errors import ArgumentError
from streaming.store import get_schemes, open_store, register_store, registry
from streaming.store.memory import MemoryStore


def test_unknown_schemes_list_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r'gopher.*file://.*oci://.*s3://') as error:
        open_store('gopher://x/y?secret=1')
    assert 'secret' not in str(error.value)
    with pytest.raises(ArgumentError, match='empty'):
        open_store('')


def test_a_scheme_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, '_backends', dict(registry._backends))
    register_store('my-store', MemoryStore)
    assert open_store('my-store://x').url == 'mem://x'
    register_store('my-store', 'streaming.store.local:LocalStore')
    assert open_store('MY-STORE://x', retry=None).url.endswith('/x')
    assert 'my-store' in get_schemes()


def test_a_scheme_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed packages add schemes by an entry point, and are loaded on use."""
    info = tmp_path / 'my_store-1.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: my-store\nVersion: 1\n')
    (info / 'entry_points.txt').write_text('[streaming.stores]\npackaged = my_packaged_store:Store\n')
    (tmp_path / 'my_packaged_store.py').write_text('from streaming.store.memory import MemoryStore as Store\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert 'packaged' in get_schemes()
    assert open_store('packaged://y').url == 'mem://y'

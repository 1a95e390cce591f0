"""Stores that tests hold in their hands while a writer opens them by URL."""

import itertools
from collections.abc import Callable, Mapping

import pytest

from streaming.store import register_store
from streaming.store.protocol import Store

_numbers = itertools.count()


@pytest.fixture(scope='session')
def serve() -> Callable[[Store], str]:
    """Give a store a URL, under which every ``open_store`` finds it."""
    served: dict[str, Store] = {}

    class Served:
        @staticmethod
        def open(url: str, options: Mapping[str, object]) -> Store:
            return served[url.removeprefix('served://')]

    register_store('served', Served)

    def add(store: Store) -> str:
        name = str(next(_numbers))
        served[name] = store
        return f'served://{name}'

    return add

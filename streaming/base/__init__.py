"""The names of mosaicml-streaming's ``streaming.base``, where client code looks for them. Nothing lives here."""

from typing import TYPE_CHECKING

import streaming

if TYPE_CHECKING:
    from streaming import (
        CSVWriter,
        JSONWriter,
        LocalDataset,
        MDSWriter,
        Stream,
        StreamingDataLoader,
        StreamingDataset,
        TSVWriter,
        XSVWriter,
    )

__all__ = [
    'CSVWriter',
    'JSONWriter',
    'LocalDataset',
    'MDSWriter',
    'Stream',
    'StreamingDataLoader',
    'StreamingDataset',
    'TSVWriter',
    'XSVWriter',
]


def __getattr__(name: str) -> object:
    # Loaded on first use, as in the package itself.
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(streaming, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

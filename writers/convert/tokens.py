"""Text -> tokens -> windows of a fixed number of them, one after the other, with nothing wasted between two texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.errors import ArgumentError, MissingExtraError
from streaming.writers.convert.named import load_named, name_of

__all__ = ['Packer', 'Tokenizing', 'load_tokenizer']

Tokens = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizing:
    """How text becomes tokens.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``, a tokenizer of transformers, a function from a text to its tokens, the name of one
            as ``'module:attribute'``, or the path of a ``tokenizer.json``.
        text_column: The column of the text. Default: ``'text'``.
        column: The column that is written. Default: ``'tokens'``.
        window: Tokens of a sample; texts follow each other and are cut where a window is full, and what is left at the end of a
            part is dropped. Default: None, a sample has the tokens of one text, and keeps its other columns.
        end_token: Put after each text. Default: None, nothing is.
        dtype: Of the tokens. Default: ``'uint32'``.
    """

    tokenizer: Any
    text_column: str = 'text'
    column: str = 'tokens'
    window: int | None = None
    end_token: int | None = None
    dtype: str = 'uint32'

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ArgumentError(f'a window has at least one token, got {self.window}')
        if self.dtype not in ('uint16', 'uint32', 'int32', 'int64', 'uint8'):
            raise ArgumentError(f'tokens are uint8, uint16, uint32, int32 or int64, not {self.dtype!r}')

    @property
    def encoding(self) -> str:
        """Of the column that is written."""
        return f'ndarray:{self.dtype}' if self.window is None else f'ndarray:{self.dtype}:{self.window}'

    def describe(self) -> dict[str, Any]:
        """All that decides which tokens come out, as JSON, but for the tokenizer itself."""
        return {
            'tokenizer': name_of(self.tokenizer),
            'text_column': self.text_column,
            'column': self.column,
            'window': self.window,
            'end_token': self.end_token,
            'dtype': self.dtype,
        }


def load_tokenizer(tokenizing: Tokenizing) -> Callable[[Sequence[str]], Sequence[Sequence[int]]]:
    """A function from texts to the tokens of each.

    Raises:
        ArgumentError: the tokenizer is none.
        MissingExtraError: it is a file, and the package that reads it is not installed.
    """
    found = tokenizing.tokenizer
    found = _from_file(found) if isinstance(found, str) and found.endswith('.json') else load_named(found, 'the tokenizer')
    if hasattr(found, 'encode_batch'):
        return lambda texts: [encoding.ids for encoding in found.encode_batch(list(texts))]
    if hasattr(found, 'batch_encode_plus') or hasattr(found, 'convert_ids_to_tokens'):
        return lambda texts: found(list(texts))['input_ids']
    if callable(found):
        return lambda texts: [_ids(found(text)) for text in texts]
    raise ArgumentError(f'a tokenizer is a function, or has encode_batch; got {type(found).__name__}')


def _from_file(path: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError(f"{path} needs tokenizers: pip install 'streaming-dataset[tokenizers]'") from error
    try:
        return Tokenizer.from_file(path)
    except Exception as error:  # whatever its Rust part says of a file
        raise ArgumentError(f'{path} is no tokenizer: {error}') from error


def _ids(answer: Any) -> Any:
    """The tokens in what a function answers."""
    if isinstance(answer, Mapping):
        return answer['input_ids']
    return getattr(answer, 'ids', answer)


class Packer:
    """Cuts a row of tokens into windows.

    Args:
        tokenizing: How many a window has, and what stands between texts.

    Attributes:
        rest: How many tokens wait for a window to be full.
    """

    def __init__(self, tokenizing: Tokenizing) -> None:
        self._dtype = np.dtype(tokenizing.dtype)
        self._window = tokenizing.window
        self._end = [] if tokenizing.end_token is None else [tokenizing.end_token]
        self._waiting: list[NDArray[Any]] = []
        self.rest = 0

    def array(self, tokens: Sequence[int]) -> NDArray[Any]:
        """The tokens of a text, with what ends it.

        Raises:
            ValueError: one is no number, or does not fit.
        """
        wide = np.asarray([*tokens, *self._end], np.int64)
        if wide.ndim != 1:
            raise ValueError(f'tokens are a row of numbers, these have the shape {wide.shape}')
        narrow = wide.astype(self._dtype)
        if wide.size and not np.array_equal(narrow, wide):
            raise ValueError(f'the token {int(wide[narrow != wide][0])} does not fit {self._dtype.name}')
        return narrow

    def add(self, tokens: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Take in a text; gives the windows that are full now."""
        assert self._window is not None
        self._waiting.append(tokens)
        self.rest += len(tokens)
        if self.rest < self._window:
            return
        row = np.concatenate(self._waiting)
        full = len(row) // self._window * self._window
        yield from row[:full].reshape(-1, self._window)
        self._waiting = [row[full:]]
        self.rest = len(row) - full

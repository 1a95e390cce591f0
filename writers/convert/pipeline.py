"""From records to encoded samples: a function of the user's, tokens, encodings, and what becomes of bad records."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.errors import ArgumentError, FormatError, StreamingError
from streaming.format.mds import MDSSchema
from streaming.writers.convert.blocks import BlockEncoder
from streaming.writers.convert.job import Job
from streaming.writers.convert.named import load_named
from streaming.writers.convert.sources import BadRecord, Batch, Wanted
from streaming.writers.convert.tokens import Packer, Tokenizing, load_tokenizer
from streaming.writers.convert.values import Fitter

__all__ = ['Block', 'Pipeline', 'Rejects', 'Transform', 'wanted_of']

# Of a bad record that goes to the reject file.
_MOST_TEXT = 10_000
Sample = Mapping[str, Any]
# Samples back to back, and the bytes of each (samples,).
Block = tuple[bytes, NDArray[np.uint32]]


class Rejects:
    """Bad records: the first one is an error, or each is a line of a file.

    Args:
        on_error: ``'raise'`` or ``'reject'``.
    """

    def __init__(self, on_error: str) -> None:
        self._raises = on_error == 'raise'
        self._lines: list[bytes] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, batch: Batch, number: int, error: str | Exception) -> None:
        """Take in a record.

        Raises:
            FormatError: bad records are errors.
        """
        where = batch.locate(number)
        if self._raises:
            cause = error if isinstance(error, Exception) else None
            raise FormatError(
                f"{where}: {_message(error)} (on_error='reject', --on-error reject, puts bad records into a file and goes on)"
            ) from cause
        record = batch.records[number]
        text = record.text if isinstance(record, BadRecord) else _text_of(record)
        line = {'where': where, 'error': _message(error), 'record': text[:_MOST_TEXT]}
        self._lines.append(json.dumps(line, ensure_ascii=False).encode('utf-8', 'replace') + b'\n')

    def dump(self) -> bytes:
        """The lines of the reject file."""
        return b''.join(self._lines)


def _message(error: str | Exception) -> str:
    known = isinstance(error, (str, StreamingError))
    return str(error) if known else f'{type(error).__name__}: {error}'


def _text_of(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, default=_brief)
    except (TypeError, ValueError, RecursionError):  # keys that are no names, values that hold themselves
        return repr(record)


def _brief(value: Any) -> str:
    return f'{len(value)} bytes' if isinstance(value, (bytes, bytearray, memoryview)) else repr(value)[:_MOST_TEXT]


class Transform:
    """From a source's records to samples: a function, then tokens. One goes through one part, batch after batch.

    Args:
        function: Called with a record, or its name: gives a record in its place, several, or None for none.
        tokenizing: How text becomes tokens; None: it does not.

    Attributes:
        is_plain: Whether records stay what they are.
    """

    def __init__(self, function: Callable[[Any], Any] | str | None, tokenizing: Tokenizing | None) -> None:
        self._function = None if function is None else load_named(function, 'the function')
        if self._function is not None and not callable(self._function):
            raise ArgumentError(f'the function of a conversion must be one, got {type(self._function).__name__}')
        self.is_plain = function is None and tokenizing is None
        self._tokenizing = tokenizing
        self._packer = None if tokenizing is None else Packer(tokenizing)
        self._tokenize = None if tokenizing is None else load_tokenizer(tokenizing)

    @property
    def dropped_tokens(self) -> int:
        """Tokens at the end that do not fill a window."""
        return 0 if self._packer is None else self._packer.rest

    def apply(self, batch: Batch, rejects: Rejects) -> Iterator[tuple[int, Sequence[Sample]]]:
        """The samples of a batch, as pairs of a record's number and what became of it."""
        if self._tokenizing is None:
            yield from self._called(batch, rejects)
            return
        rows = [(number, sample) for number, samples in self._called(batch, rejects) for sample in samples]
        column = self._tokenizing.text_column
        for number, sample in [row for row in rows if not isinstance(row[1].get(column), str)]:
            found = sample.get(column)
            rejects.add(batch, number, f'column {column!r} is to be tokenized, it is {_kind(found)}: {found!r:.80}')
        rows = [row for row in rows if isinstance(row[1].get(column), str)]
        yield from self._tokenized(batch, rows, rejects)

    def _called(self, batch: Batch, rejects: Rejects) -> Iterator[tuple[int, Sequence[Sample]]]:
        for number, record in enumerate(batch.records):
            if isinstance(record, BadRecord):
                rejects.add(batch, number, record.error)
                continue
            try:
                samples = [record] if self._function is None else _samples(self._function(record))
            except Exception as error:  # whatever a user's function raises
                rejects.add(batch, number, error)
                continue
            if samples:
                yield number, samples

    def _tokenized(
        self, batch: Batch, rows: Sequence[tuple[int, Sample]], rejects: Rejects
    ) -> Iterator[tuple[int, Sequence[Sample]]]:
        assert self._tokenizing is not None and self._packer is not None and self._tokenize is not None
        text, column, window = self._tokenizing.text_column, self._tokenizing.column, self._tokenizing.window
        try:
            answers: Sequence[Any] = self._tokenize([sample[text] for _, sample in rows])
        except Exception:  # of one of them: each alone shows which
            answers = [None] * len(rows)
        for (number, sample), found in zip(rows, answers, strict=True):
            try:
                tokens = self._packer.array(self._tokenize([sample[text]])[0] if found is None else found)
            except Exception as error:
                rejects.add(batch, number, error)
                continue
            if window is None:
                yield number, [{**{name: value for name, value in sample.items() if name != text}, column: tokens}]
            elif windows := [{column: row} for row in self._packer.add(tokens)]:
                yield number, windows


def _samples(answer: Any) -> Sequence[Sample]:
    """What a user's function gave, as a list of samples.

    Raises:
        TypeError: it is none.
    """
    if answer is None or answer is False:
        return ()
    if isinstance(answer, Mapping):
        return (answer,)
    if isinstance(answer, Iterable) and not isinstance(answer, (str, bytes)):
        samples = list(answer)
        odd = next((sample for sample in samples if not isinstance(sample, Mapping)), None)
        if odd is None:
            return samples
        answer = odd
    raise TypeError(f'the function must give a dict, several, or None; it gave a {_kind(answer)}')


def _kind(value: Any) -> str:
    return type(value).__name__


def wanted_of(job: Job) -> Wanted:
    """What is to be done with records, for their source."""
    if job.function is not None:
        return Wanted()
    if job.tokenizing is None:
        return Wanted(encodings=job.columns, columns=tuple(job.columns), as_bytes=True)
    names = {job.tokenizing.text_column, *job.columns} - {job.tokenizing.column}
    return Wanted(columns=tuple(sorted(names)))


class Pipeline:
    """From batches of records to the bytes of samples, in one part.

    Args:
        job: What is done with a record.

    Attributes:
        rejects: The bad records so far.
    """

    def __init__(self, job: Job) -> None:
        self.rejects = Rejects(job.on_error)
        self._transform = Transform(job.function, job.tokenizing)
        is_plain = self._transform.is_plain
        encoded = (job.source.encodings() or {}) if is_plain and job.source.gives_encoded else {}
        # What a function or a tokenizer made is of its type; texts that stand for numbers are the source's.
        self._fit = Fitter(
            {name: encoding for name, encoding in job.columns.items() if encoded.get(name) != encoding},
            is_text=job.source.is_text and is_plain,
            is_ragged=job.source.is_ragged or job.function is not None,
        )
        self._encode = MDSSchema.from_columns(job.columns).encoder()
        self._blocks = BlockEncoder(job.columns, self._fit.fits, self._fit.may_lack)

    @property
    def dropped_tokens(self) -> int:
        """Tokens at the end of the part that do not fill a window."""
        return self._transform.dropped_tokens

    def run(self, batch: Batch) -> Iterator[Block]:
        """The samples of a batch, some at a time. A record is encoded whole or not at all."""
        if self._transform.is_plain:
            block = self._at_once(batch)
            yield self._one_by_one(batch, self._transform.apply(batch, self.rejects)) if block is None else block
            return
        rows = list(self._transform.apply(batch, self.rejects))
        samples = [sample for _, samples in rows for sample in samples]
        if samples:
            block = self._at_once(Batch(samples, batch.locate, 0))
            yield self._one_by_one(batch, rows) if block is None else block

    def _at_once(self, batch: Batch) -> Block | None:
        """A batch, if all of it is as it should be."""
        try:
            return self._blocks.encode(batch)
        except Exception:  # whatever a value makes of being what it should not be; one by one it is found out
            return None

    def _one_by_one(self, batch: Batch, rows: Iterable[tuple[int, Sequence[Sample]]]) -> Block:
        """The same sample by sample, without the records in which something is wrong."""
        encoded: list[bytes] = []
        for number, samples in rows:
            try:
                encoded += [self._encode(self._fit(sample)) for sample in samples]
            except Exception as error:  # of an encoding that another package brings, too
                self.rejects.add(batch, number, error)
        return b''.join(encoded), np.fromiter(map(len, encoded), np.uint32, len(encoded))

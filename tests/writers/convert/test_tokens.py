"""Text becomes tokens: by tokenizers of several kinds, in windows without gaps, and what cannot be is said."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from streaming import LocalDataset
from streaming.errors import ArgumentError, FormatError
from streaming.writers.convert import Tokenizing, convert

COUNT = 300
TEXTS = [' '.join(f'w{(number * word) % 50}' for word in range(number % 13)) for number in range(COUNT)]
IDS = [[int(word[1:]) for word in text.split()] for text in TEXTS]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / 'in.jsonl'
    path.write_text(''.join(json.dumps({'id': number, 'text': text}) + '\n' for number, text in enumerate(TEXTS)))
    return path


@pytest.fixture(scope='module')
def tokenizer() -> Any:
    made = Tokenizer(WordLevel({f'w{number}': number for number in range(50)} | {'?': 50}, unk_token='?'))
    made.pre_tokenizer = Whitespace()
    return made


class LikeTransformers:
    """Called with texts, as tokenizers of transformers are, which need not be installed."""

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        raise AssertionError

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        assert isinstance(texts, list)
        return {'input_ids': [[int(word[1:]) for word in text.split()] for text in texts]}


def by_word(text: str) -> Sequence[int]:
    return [int(word[1:]) for word in text.split()]


def as_mapping(text: str) -> dict[str, Any]:
    return {'input_ids': np.array(by_word(text), np.int32)}


def tokens_of(folder: Path) -> list[list[int]]:
    return [sample['tokens'].tolist() for sample in LocalDataset(folder)]


@pytest.mark.parametrize('kind', ['tokenizers', 'file', 'transformers', 'function', 'mapping'])
def test_any_tokenizer(lines: Path, tmp_path: Path, tokenizer: Any, kind: str) -> None:
    tokenizer.save(str(tmp_path / 'tokenizer.json'))
    given = {
        'tokenizers': tokenizer,
        'file': str(tmp_path / 'tokenizer.json'),
        'transformers': LikeTransformers(),
        'function': by_word,
        'mapping': as_mapping,
    }[kind]
    summary = convert(lines, tmp_path / 'out', workers=1, tokenizing=Tokenizing(tokenizer=given, dtype='uint16'))
    assert tokens_of(tmp_path / 'out') == IDS
    assert summary.columns == {'id': 'int', 'tokens': 'ndarray:uint16'}
    assert [sample['id'] for sample in LocalDataset(tmp_path / 'out')] == list(range(COUNT))


@pytest.mark.parametrize('end_token', [None, 63])
def test_windows_follow_each_other(lines: Path, tmp_path: Path, tokenizer: Any, end_token: int | None) -> None:
    tokenizing = Tokenizing(tokenizer=tokenizer, window=32, end_token=end_token, column='input', dtype='int32')
    summary = convert(lines, tmp_path / 'out', workers=1, tokenizing=tokenizing)
    row = [token for ids in IDS for token in (ids if end_token is None else [*ids, end_token])]
    found = [sample['input'] for sample in LocalDataset(tmp_path / 'out')]
    assert [window.shape for window in found] == [(32,)] * (len(row) // 32)
    assert np.concatenate(found).tolist() == row[: len(row) // 32 * 32]
    assert summary.dropped_tokens == len(row) % 32
    assert summary.columns == {'input': 'ndarray:int32:32'}


def test_the_same_for_any_number_of_workers(lines: Path, tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.save(str(tmp_path / 'tokenizer.json'))
    tokenizing = Tokenizing(tokenizer=str(tmp_path / 'tokenizer.json'), window=16)
    for workers in (1, 2):
        convert(lines, tmp_path / f'{workers}', workers=workers, tokenizing=tokenizing, part_bytes='4kb')
    assert tokens_of(tmp_path / '1') == tokens_of(tmp_path / '2')


def test_a_text_that_is_none_is_a_bad_record(lines: Path, tmp_path: Path) -> None:
    with lines.open('a') as file:
        file.write('{"id": 1, "text": "not a word"}\n{"id": 2, "text": null}\n{"id": 3, "text": "w70000"}\n')
    tokenizing = Tokenizing(tokenizer=by_word, dtype='uint16')
    with pytest.raises(FormatError, match=r'line 302: column .text. is to be tokenized, it is NoneType'):
        convert(lines, tmp_path / 'out', workers=1, tokenizing=tokenizing)
    summary = convert(lines, tmp_path / 'some', workers=1, tokenizing=tokenizing, on_error='reject')
    assert (summary.samples, summary.rejected) == (COUNT, 3)
    rejected = (tmp_path / 'some/rejected/part-00000.jsonl').read_text()
    assert 'line 303' in rejected and 'the token 70000 does not fit uint16' in rejected


def test_what_cannot_work(lines: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='at least one token'):
        Tokenizing(tokenizer=by_word, window=0)
    with pytest.raises(ArgumentError, match='float32'):
        Tokenizing(tokenizer=by_word, dtype='float32')
    (tmp_path / 'bad.json').write_text('{}')
    for tokenizer, message in (
        (5, 'a tokenizer is a function'),
        (str(tmp_path / 'bad.json'), 'is no tokenizer'),
        ('x', 'module:'),
    ):
        with pytest.raises(ArgumentError, match=message):
            convert(lines, tmp_path / 'out', workers=1, tokenizing=Tokenizing(tokenizer=tokenizer))

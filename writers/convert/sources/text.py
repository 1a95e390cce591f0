"""A folder of texts: each file is a record with its text and its name."""

from collections.abc import Mapping
from typing import Any

from streaming.writers.convert.sources.base import BadRecord
from streaming.writers.convert.sources.whole import WholeFileSource

__all__ = ['TextSource']


class TextSource(WholeFileSource):
    """Files of text in UTF-8. Records have ``text`` and ``file``, the path below the folder."""

    name = 'text'

    def encodings(self) -> dict[str, str]:
        return {'text': 'str', 'file': 'str'}

    def record(self, key: str, data: bytes, about: Any) -> Mapping[str, Any] | BadRecord:
        try:
            return {'text': data.decode('utf-8-sig'), 'file': key}
        except UnicodeDecodeError as error:
            return BadRecord(f'it is no text in UTF-8: {error}')

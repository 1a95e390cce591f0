"""JSONWriter: samples -> lines of JSON."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streaming.format.columns import check_names
from streaming.format.jsonl import JSONLSchema
from streaming.format.meta import pack_meta, text_config
from streaming.writers.base import Sizes, Writer, WriterOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ['JSONWriter']


class JSONWriter(Writer):
    """Writes a dataset of lines of JSON.

    Args:
        columns: The encoding of each column: ``int``, ``float`` or ``str``.
        newline: What ends a line. Default: ``'\\n'``.
        **options: Of every `Writer`: ``out``, ``keep_local``, ``compression``, ``hashes``, ``size_limit``, ``progress_bar``,
            ``max_workers``, ``retry``, ``exist_ok``.

    Raises:
        ArgumentError: values that cannot work, or other columns than those of the dataset that is appended to.
        AlreadyExistsError: there is a dataset, or a part of one, and ``exist_ok`` is False.
    """

    format = 'json'

    def __init__(self, *, columns: Mapping[str, str], newline: str = '\n', **options: 'Unpack[WriterOptions]') -> None:
        # Before anything that is there is removed.
        check_names(columns if isinstance(columns, Mapping) else ())
        schema = JSONLSchema(columns if not isinstance(columns, Mapping) else dict(sorted(columns.items())), newline)
        super().__init__(**options)
        self.columns, self.newline = dict(schema.columns), newline
        self._check_like_existing()
        self._config = text_config(self.format, self._describe(), self.compression, self.hashes, self.size_limit)
        self._begin(schema.encoder())

    def _head(self, sizes: Sizes) -> bytes:
        return b''

    def _meta(self, sizes: Sizes) -> bytes:
        return pack_meta(sizes, 0, self._config)

    def _describe(self) -> dict[str, Any]:
        return {'columns': self.columns, 'newline': self.newline}

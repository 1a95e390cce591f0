"""CSVWriter, TSVWriter, XSVWriter: samples -> lines of separated values, which are not quoted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streaming.format.meta import pack_meta, text_config
from streaming.format.xsv import XSVSchema
from streaming.writers.base import Sizes, Writer, WriterOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ['CSVWriter', 'TSVWriter', 'XSVWriter']


class XSVWriter(Writer):
    """Writes a dataset of lines of separated values. A value that holds the separator or the newline is refused.

    Args:
        columns: The encoding of each column: ``int``, ``float`` or ``str``.
        separator: What stands between values.
        newline: What ends a line. Default: ``'\\n'``.
        **options: Of every `Writer`: ``out``, ``keep_local``, ``compression``, ``hashes``, ``size_limit``, ``progress_bar``,
            ``max_workers``, ``retry``, ``exist_ok``.

    Raises:
        ArgumentError: values that cannot work, or other columns than those of the dataset that is appended to.
        AlreadyExistsError: there is a dataset, or a part of one, and ``exist_ok`` is False.
    """

    format = 'xsv'

    def __init__(
        self, *, columns: Mapping[str, str], separator: str, newline: str = '\n', **options: 'Unpack[WriterOptions]'
    ) -> None:
        # Before anything that is there is removed.
        self._schema = XSVSchema.from_columns(columns, newline, separator)
        super().__init__(**options)
        self.columns, self.newline, self.separator = dict(columns), newline, separator
        self._check_like_existing()
        # A shard's size does not count the header, nor the meta file.
        self._header = self._schema.header
        self._config = text_config(self.format, self._describe(), self.compression, self.hashes, self.size_limit)
        self._begin(self._schema.encoder())

    def _head(self, sizes: Sizes) -> bytes:
        return self._header

    def _meta(self, sizes: Sizes) -> bytes:
        return pack_meta(sizes, len(self._header), self._config)

    def _describe(self) -> dict[str, Any]:
        schema = self._schema
        fields = {'column_names': schema.names, 'column_encodings': schema.encodings, 'newline': schema.newline}
        # What csv and tsv mean by their name is not written down.
        return {**fields, 'separator': schema.separator} if self.format == 'xsv' else fields


class CSVWriter(XSVWriter):
    """Writes a dataset of comma-separated values, which are not quoted: `XSVWriter` with that separator."""

    format = 'csv'

    def __init__(self, *, columns: Mapping[str, str], newline: str = '\n', **options: 'Unpack[WriterOptions]') -> None:
        super().__init__(columns=columns, separator=',', newline=newline, **options)


class TSVWriter(XSVWriter):
    """Writes a dataset of tab-separated values, which are not quoted: `XSVWriter` with that separator."""

    format = 'tsv'

    def __init__(self, *, columns: Mapping[str, str], newline: str = '\n', **options: 'Unpack[WriterOptions]') -> None:
        super().__init__(columns=columns, separator='\t', newline=newline, **options)

"""MDSWriter: samples of named, typed columns -> MDS shards."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streaming.format.infer import infer_columns
from streaming.format.mds import MDSSchema, head_bytes, shard_config, shard_head
from streaming.writers.base import Sizes, Writer, WriterOptions

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ['MDSWriter']


class MDSWriter(Writer):
    """Writes an MDS dataset.

    Args:
        columns: The encoding of each column, such as ``{'tokens': 'ndarray:uint16', 'text': 'str'}``. Default: None; those of the
            dataset that is appended to, else what the first sample's values suggest.
        **options: Of every `Writer`: ``out``, ``keep_local``, ``compression``, ``hashes``, ``size_limit``, ``progress_bar``,
            ``max_workers``, ``retry``, ``exist_ok``.

    Attributes:
        columns: The encoding of each column; empty until the first sample where they are taken from it.

    Raises:
        ArgumentError: values that cannot work, or other columns than those of the dataset that is appended to.
        AlreadyExistsError: there is a dataset, or a part of one, and ``exist_ok`` is False.
    """

    format = 'mds'

    def __init__(self, *, columns: Mapping[str, str] | None = None, **options: 'Unpack[WriterOptions]') -> None:
        # Before anything that is there is removed.
        schema = None if columns is None else MDSSchema.from_columns(columns)
        super().__init__(**options)
        self.columns: dict[str, str] = {}
        self._config = b''
        last = self._existing
        if schema is None and last is not None:
            schema = MDSSchema.of_shard(last, self._destination.url)
        if schema is None:
            self._begin(self._encode_first)
        else:
            self._use(schema)

    @classmethod
    def for_sample(cls, sample: Mapping[str, Any], **options: 'Unpack[WriterOptions]') -> 'Self':
        """A writer whose columns are those of a sample, which is not written.

        Raises:
            ColumnTypeError: no encoding suggests itself for a value.
        """
        return cls(columns=infer_columns(sample), **options)

    def _use(self, schema: MDSSchema) -> None:
        self._schema = schema
        self._check_like_existing()
        self.columns = dict(zip(schema.names, schema.encodings, strict=True))
        self._config = shard_config(schema, self.compression, self.hashes, self.size_limit)
        self._begin(schema.encoder(), head_bytes=head_bytes(0, self._config), bytes_a_sample=4)

    def _encode_first(self, sample: Mapping[str, Any]) -> bytes:
        schema = MDSSchema.from_columns(infer_columns(sample))
        data = schema.encoder()(sample)
        self._use(schema)
        return data

    def _head(self, sizes: Sizes) -> bytes:
        return shard_head(sizes, self._config)

    def _describe(self) -> dict[str, Any]:
        schema = self._schema
        return {'column_names': schema.names, 'column_encodings': schema.encodings, 'column_sizes': schema.sizes}

"""MDSWriter: samples of named, typed columns -> MDS shards."""

from collections.abc import Mapping
from typing import Any

from streaming.errors import ArgumentError
from streaming.format.index import ShardInfo
from streaming.format.mds import MOST_BYTES, MDSSchema, head_bytes, pack_shard, shard_config
from streaming.writers.base import Writer
from streaming.writers.publish import Packer, pack_file

__all__ = ['MDSWriter']


class MDSWriter(Writer):
    """Writes an MDS dataset.

    Args:
        columns: The encoding of each column, such as ``{'tokens': 'ndarray:uint16', 'text': 'str'}``.
        **options: Of every `Writer`: ``out``, ``keep_local``, ``compression``, ``hashes``, ``size_limit``, ``progress_bar``,
            ``max_workers``, ``retry``, ``exist_ok``.

    Raises:
        ArgumentError: values that cannot work.
        AlreadyExistsError: there is a dataset and ``exist_ok`` is False.
    """

    format = 'mds'

    def __init__(self, *, columns: Mapping[str, str], **options: Any) -> None:
        # Before anything that is there is removed.
        self._schema = MDSSchema.from_columns(columns)
        super().__init__(**options)
        self.columns = dict(columns)
        self._encode_sample = self._schema.encoder()
        self._config = shard_config(self._schema, self.compression, self.hashes, self.size_limit)
        self._account(head_bytes(0, self._config), 4)

    def _encode(self, sample: Mapping[str, Any]) -> bytes:
        return self._encode_sample(sample)

    def _check_size(self, size: int) -> None:
        if size > MOST_BYTES:
            raise ArgumentError(
                f'a shard would have {size} bytes: MDS shards are under 4 GiB; split the sample or lower size_limit'
            )

    def _packer(self, number: int, samples: list[bytes]) -> Packer:
        name = f'shard.{number:05}.mds'

        def pack() -> tuple[ShardInfo, list[tuple[str, bytes]]]:
            raw, packed, stored_name, data = pack_file(name, pack_shard(samples, self._config), self.compression, self.hashes)
            shard = ShardInfo(
                format='mds',
                samples=len(samples),
                raw_data=raw,
                zip_data=packed,
                compression=self.compression,
                hashes=self.hashes,
                size_limit=self.size_limit,
                column_names=self._schema.names,
                column_encodings=self._schema.encodings,
                column_sizes=self._schema.sizes,
            )
            return shard, [(stored_name, data)]

        return pack

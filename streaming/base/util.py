"""The helpers of mosaicml-streaming's ``streaming.base.util`` that client code calls. All but one live elsewhere."""

import logging

from streaming.format.columns import get_mds_encodings
from streaming.format.compression import get_compressions
from streaming.format.hashing import get_hashes
from streaming.units import bytes_to_int, number_abbrev_to_int
from streaming.writers.merge import merge_index

__all__ = [
    'bytes_to_int',
    'clean_stale_shared_memory',
    'get_compressions',
    'get_hashes',
    'get_mds_encodings',
    'merge_index',
    'number_abbrev_to_int',
]

logger = logging.getLogger(__name__)


def clean_stale_shared_memory() -> None:
    """Do nothing: there is no named shared memory here, so a process that was killed leaves none behind."""
    logger.info(
        'clean_stale_shared_memory() has nothing to do: this library has no named shared memory that could be left behind'
    )

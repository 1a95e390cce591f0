"""The import paths that client code of mosaicml-streaming uses."""

import logging
import subprocess
import sys

import pytest

import streaming
import streaming.base
from streaming.base import util
from streaming.writers.merge import merge_index


def test_same_names() -> None:
    from streaming.base import LocalDataset, MDSWriter, Stream, StreamingDataLoader, StreamingDataset  # noqa: F401

    for name in streaming.base.__all__:
        assert getattr(streaming.base, name) is getattr(streaming, name)
    assert set(streaming.base.__all__) <= set(dir(streaming.base))
    with pytest.raises(AttributeError, match='nothing_of_the_kind'):
        streaming.base.nothing_of_the_kind  # noqa: B018


def test_util(caplog: pytest.LogCaptureFixture) -> None:
    assert util.bytes_to_int('1.5gb') == 3 << 29
    assert util.number_abbrev_to_int('1.5M') == 1_500_000
    assert {'zstd', 'zstd:22', 'br:11', 'gz:0', 'bz2:9', 'snappy'} <= util.get_compressions()
    assert {'sha1', 'xxh64', 'xxh3_128', 'md5'} <= util.get_hashes()
    assert {'int', 'str', 'ndarray', 'pil', 'jpeg', 'list[png]', 'jpegarray'} <= util.get_mds_encodings()
    assert util.merge_index is merge_index
    with caplog.at_level(logging.INFO):
        util.clean_stale_shared_memory()
    assert 'nothing to do' in caplog.text


def test_loads_neither_torch_nor_a_cloud() -> None:
    code = (
        'import sys, streaming.base, streaming.base.util; from streaming.base import MDSWriter, JSONWriter, XSVWriter;'
        'assert not {"torch", "oci", "boto3"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)

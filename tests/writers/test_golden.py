"""Our files against those that mosaicml-streaming 0.13 wrote of the same samples."""

from pathlib import Path
from typing import Any

import pytest

from streaming import MDSWriter
from streaming.format.compression import get_codec
from streaming.format.index import ShardInfo, ShardTable
from streaming.format.mds import MDSSchema, read_offsets

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'


def raw_file(folder: Path, shard: ShardInfo) -> bytes:
    data = (folder / shard.stored[0].basename).read_bytes()
    return data if shard.compression is None else get_codec(shard.compression).decompress(data, shard.raw_data.bytes)


def encoded_samples(folder: Path, table: ShardTable) -> list[dict[str, bytes]]:
    """The samples with their values as they are encoded; a writer takes those as they are."""
    samples = []
    for shard in table:
        data = memoryview(raw_file(folder, shard))
        offsets = read_offsets(data, shard.samples, shard.raw_data.basename)
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            samples.append(split_columns(bytes(data[start:end]), shard))
    return samples


def split_columns(data: bytes, shard: ShardInfo) -> dict[str, bytes]:
    variable = sum(size is None for size in shard.column_sizes)
    sizes = iter(int.from_bytes(data[4 * i : 4 * i + 4], 'little') for i in range(variable))
    at, sample = 4 * variable, {}
    for name, size in zip(shard.column_names, shard.column_sizes, strict=True):
        size = next(sizes) if size is None else size
        sample[name] = data[at : at + size]
        at += size
    assert at == len(data)
    return sample


@pytest.mark.parametrize('name', ['mds', 'mds-zstd', 'mds-gz', 'mds-bz2', 'mds-br', 'mds-snappy'])
def test_same_mds_files(tmp_path: Path, name: str) -> None:
    theirs = GOLDEN / name
    table = ShardTable.from_json((theirs / 'index.json').read_bytes(), str(theirs))
    shard = table[0]
    schema = MDSSchema.of_shard(shard, str(theirs))
    options: dict[str, Any] = {'compression': shard.compression, 'hashes': shard.hashes, 'size_limit': shard.size_limit}
    with MDSWriter(out=tmp_path / 'ours', columns=dict(zip(schema.names, schema.encodings, strict=True)), **options) as writer:
        for sample in encoded_samples(theirs, table):
            writer.write(sample)
    ours = ShardTable.from_json((tmp_path / 'ours' / 'index.json').read_bytes(), 'ours')
    assert [raw_file(tmp_path / 'ours', shard) for shard in ours] == [raw_file(theirs, shard) for shard in table]
    # Compressed bytes may differ by the codec's version, all that is said of raw ones may not.
    assert [shard.raw_data for shard in ours] == [shard.raw_data for shard in table]
    assert [shard.stored[0].basename for shard in ours] == [shard.stored[0].basename for shard in table]
    if shard.compression is None:
        assert (tmp_path / 'ours' / 'index.json').read_bytes() == (theirs / 'index.json').read_bytes()

"""Every codec: there and back, in pieces, and against streams that lie."""

import os
import sys
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import ArgumentError, CorruptError, MissingExtraError
from streaming.format.compression import Codec, feed_to, get_codec, get_compressions

CODECS = ['zstd', 'zstd:1', 'zstd:22', 'gz', 'gz:0', 'gz:1', 'bz2', 'bz2:1', 'br:1', 'br:11', 'snappy']
TEXT = b'the quick brown fox jumps over the lazy dog, and over the dog again. ' * 2000 + os.urandom(5000)


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return get_codec(request.param)


@pytest.mark.parametrize('name', CODECS)
@settings(max_examples=20)
@given(data=st.binary(max_size=3000), step=st.integers(1, 700))
def test_there_and_back_in_pieces(name: str, data: bytes, step: int) -> None:
    codec = get_codec(name)
    packed = codec.compress(data)
    decompressor = codec.decompressor(len(data))
    parts = [decompressor.feed(packed[i : i + step]) for i in range(0, len(packed), step)]
    assert b''.join(parts) + decompressor.finish() == data


def test_larger(codec: Codec) -> None:
    packed = codec.compress(memoryview(TEXT))
    assert codec.decompress(packed, len(TEXT)) == TEXT


def test_every_truncation_is_noticed(codec: Codec) -> None:
    data = b'some text, some text, and some more text' * 3
    packed = codec.compress(data)
    for length in range(len(packed)):
        try:
            found = codec.decompress(packed[:length], len(data))
        except CorruptError:
            continue
        # A brotli stream may end with a block that holds nothing.
        assert codec.name == 'br'
        assert found == data


@pytest.mark.parametrize('declared', [0, 1, len(TEXT) - 1, len(TEXT) + 1, 1 << 40, 1 << 60])
def test_another_size_than_declared_is_noticed(codec: Codec, declared: int) -> None:
    with pytest.raises(CorruptError):
        codec.decompress(codec.compress(TEXT), declared)


def test_what_follows_a_stream_is_noticed(codec: Codec) -> None:
    packed = codec.compress(TEXT)
    if codec.name == 'br':
        pytest.skip('cramjam ignores what follows a brotli stream; length and hash of the file hold it')
    for rest in (b'x', packed):
        with pytest.raises(CorruptError):
            codec.decompress(packed + rest, len(TEXT))


def test_garbage_is_refused(codec: Codec) -> None:
    with pytest.raises(CorruptError):
        codec.decompress(b'this is no stream of any codec' * 10, 100)


@pytest.mark.parametrize('name', ['zstd', 'gz', 'bz2', 'br', 'snappy'])
def test_a_bomb_stops_at_the_declared_size(name: str) -> None:
    codec = get_codec(name)
    bomb = codec.compress(bytes(200 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError):
            codec.decompress(bomb, 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 160 << 20
    assert len(bomb) < 11 << 20


def zstd_blocks(*blocks: tuple[int, int]) -> bytes:
    """A frame of blocks that give so many bytes each: raw ones (0), or one byte that is repeated (1)."""
    frame = b'\x28\xb5\x2f\xfd' + b'\x00\x58'  # no size, a window of 2 MiB
    for number, (kind, size) in enumerate(blocks):
        last = number == len(blocks) - 1
        frame += (last | kind << 1 | size << 3).to_bytes(3, 'little') + bytes([number % 251]) * (1 if kind else size)
    return frame


BLOCKS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0, 1, 5, 1000, 100_000, 128 << 10])), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(BLOCKS, st.integers(1, 1 << 18))
def test_no_step_of_zstd_gives_much(blocks: list[tuple[int, int]], step: int) -> None:
    packed, size = zstd_blocks(*blocks), sum(size for _, size in blocks)
    expected = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    decompressor = get_codec('zstd').decompressor(size)
    parts: list[bytes] = []
    for start in range(0, len(packed), step):
        feed_to(decompressor, packed[start : start + step], parts.append)
    assert decompressor.finish() == b''
    assert b''.join(parts) == expected
    assert max(map(len, parts), default=0) <= 1 << 20


def test_data_that_hardly_shrinks_takes_few_steps() -> None:
    data = os.urandom(8 << 20)
    packed, calls = get_codec('zstd').compress(data), []
    decompressor = get_codec('zstd').decompressor(len(data))
    feed_to(decompressor, packed, lambda part: calls.append(len(part)))
    decompressor.finish()
    assert sum(calls) == len(data)
    assert len(calls) <= 10


def test_zstd_says_its_size() -> None:
    assert zstandard.frame_content_size(get_codec('zstd').compress(TEXT)) == len(TEXT)


@pytest.mark.parametrize('name', ['no', 'zstd:0', 'zstd:23', 'zstd:x', 'zstd:-1', 'gz:10', 'bz2:0', 'br:12', 'snappy:1', ''])
def test_what_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match='compression'):
        get_codec(name)


@pytest.mark.parametrize('name', ['br', 'snappy'])
def test_without_its_package_a_codec_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'cramjam', None)
    for use in (lambda codec: codec.compress(b''), lambda codec: codec.decompressor(0)):
        with pytest.raises(MissingExtraError, match=r"pip install 'streaming-dataset\[codecs\]'"):
            use(get_codec(name))


def test_names() -> None:
    assert {'zstd', 'zstd:22', 'gz', 'gz:0', 'bz2:9', 'br:11', 'snappy'} <= get_compressions()

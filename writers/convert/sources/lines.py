"""Files of lines, cut into ranges of bytes. A line belongs to the range that its first byte lies in.

Ranges of a compressed file are of its content; whoever reads one goes through what stands before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from streaming.writers.convert.sources.base import Range, cut
from streaming.writers.convert.sources.files import Files, InputFile
from streaming.writers.convert.sources.packed import (
    content_bytes,
    is_packed,
    open_packed,
    readers_of_packed,
    unpacked,
)

__all__ = ['Chunk', 'content_sizes', 'line_number', 'line_ranges', 'read_lines', 'readers_of']

_CHUNK_BYTES = 2 << 20
_HEAD_BYTES = 64
_BOM = b'\xef\xbb\xbf'


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines, as they stand in the file.

    Args:
        text: The lines; only the file's last one may lack its newline.
        start: Where they begin in the file's content.
    """

    text: bytes
    start: int


def content_sizes(files: Files) -> list[int]:
    """How long each file is about, uncompressed."""
    sizes = []
    for file in files.find():
        head = b''
        if is_packed(file.key) and file.size:
            with files.open(file.place, file.key) as opened:
                head = opened.read(_HEAD_BYTES)
        sizes.append(content_bytes(file.key, file.size, head) if is_packed(file.key) else file.size)
    return sizes


def readers_of(file: InputFile, size: int, part_bytes: int, files: int) -> int:
    """How many parts read a file of lines.

    Args:
        file: The file.
        size: How long it is about, uncompressed.
        part_bytes: What a part should have.
        files: How many files there are.
    """
    return readers_of_packed(size, part_bytes, files) if is_packed(file.key) else max(1, round(size / max(1, part_bytes)))


def line_ranges(files: Files, part_bytes: int) -> list[Range]:
    """The ranges of all files."""
    found = []
    sizes = content_sizes(files)
    for file, size in zip(files.find(), sizes, strict=True):
        for start, end in cut(size, readers_of(file, size, part_bytes, len(sizes))):
            # The last one goes to the end wherever that is: the length of what is compressed is a guess.
            last = end == size
            found.append(Range(place=file.place, key=file.key, start=start, end=None if last else end, bytes=max(0, end - start)))
    return found


def read_lines(files: Files, piece: Range) -> Iterator[Chunk]:
    """The lines of a range, some at a time, without the mark that may stand at the start of a file.

    Raises:
        FormatError: the file cannot be decompressed.
    """
    name = files.name(piece.place, piece.key)
    with unpacked(name), files.open(piece.place, piece.key) as file, open_packed(file, piece.key) as content:
        at = _go_to(content, piece.start, can_seek=not is_packed(piece.key))
        while piece.end is None or at < piece.end:
            text = content.read(_CHUNK_BYTES if piece.end is None else min(_CHUNK_BYTES, piece.end - at))
            if not text:
                return
            if not text.endswith(b'\n'):
                text += content.readline()
            start, at = at, at + len(text)
            yield Chunk(text.removeprefix(_BOM) if start == 0 else text, start)


def _go_to(content: BinaryIO, start: int, *, can_seek: bool) -> int:
    """Go to the first line that begins at a byte or later; say where that is."""
    if not start:
        return 0
    if can_seek:
        content.seek(start - 1)
    else:
        at = 0
        while at < start - 1:
            passed = len(content.read(min(_CHUNK_BYTES, start - 1 - at)))
            if not passed:
                return at
            at += passed
    return start - 1 + len(content.readline())


def line_number(files: Files, piece: Range, chunk: Chunk, before: int) -> int:
    """The number of a line, from 1, that has so many others of its chunk before it. Reads what stands before the chunk."""
    count = 0
    left = chunk.start
    with files.open(piece.place, piece.key) as file, open_packed(file, piece.key) as content:
        while left > 0 and (text := content.read(min(_CHUNK_BYTES, left))):
            count += text.count(b'\n')
            left -= len(text)
    return count + 1 + before

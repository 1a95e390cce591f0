"""Memory in which shards are put together, used again and again.

New memory costs more than what is done with it: the kernel clears each page, which takes several times as long as copying
a sample there. So the samples of a shard are laid back to back in a map that earlier shards have used, and its head goes in
front of them when it is known. Compressing, hashing and storing read it where it lies.
"""

import mmap
from collections import deque

__all__ = ['BufferPool', 'ShardBuffer']

_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, 'MAP_NORESERVE', 0)


class ShardBuffer:
    """Room for one shard. Pages that were never touched take no memory.

    Args:
        capacity: Bytes of samples that there is room for, and as much again for what stands before them.

    Attributes:
        append: Adds a sample's bytes, for which there is room.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._map = mmap.mmap(-1, 2 * capacity, flags=_FLAGS)
        if hasattr(mmap, 'MADV_HUGEPAGE') and capacity >= 1 << 22:
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self.append = self._map.write
        self.clear()

    def clear(self) -> None:
        """Forget the samples."""
        self._map.seek(self.capacity)

    @property
    def used_bytes(self) -> int:
        """Bytes of the samples."""
        return self._map.tell() - self.capacity

    def grown(self, capacity: int) -> 'ShardBuffer':
        """A larger one that has the same samples."""
        larger = ShardBuffer(capacity)
        with memoryview(self._map) as view:
            larger.append(view[self.capacity : self._map.tell()])
        return larger

    def whole(self, head: bytes) -> memoryview:
        """The shard: ``head``, then the samples. Release it before the buffer is used again."""
        start = self.capacity - len(head)
        if start < 0:
            with memoryview(self._map) as view:
                return memoryview(head + view[self.capacity : self._map.tell()])
        self._map[start : self.capacity] = head
        return memoryview(self._map)[start : self._map.tell()]


class BufferPool:
    """Buffers of one size that are free. Any thread may give one back.

    Args:
        capacity: Of each, in bytes.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free: deque[ShardBuffer] = deque()

    def take(self) -> ShardBuffer:
        """An empty buffer: one that was used before, if there is any, the last one first."""
        try:
            buffer = self._free.pop()
        except IndexError:
            return ShardBuffer(self.capacity)
        buffer.clear()
        return buffer

    def give_back(self, buffer: ShardBuffer) -> None:
        """Let a buffer be used again. One that had to grow is let go."""
        if buffer.capacity == self.capacity:
            self._free.append(buffer)

    def close(self) -> None:
        """Let all memory go."""
        self._free.clear()

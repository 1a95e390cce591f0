"""Opening files in whose place there may be anything (a pipe would keep a reader forever, a device may have no end), and making
files that are there whole or not at all.
"""

import errno
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from streaming.errors import CorruptError

__all__ = ['new_file', 'open_file']


def open_file(path: Path) -> io.FileIO:
    """Open a file to read, without a buffer.

    Raises:
        CorruptError: there is a pipe, a device or a socket in its place.
        OSError: whatever the system says, for a folder too.
    """
    # Without O_NONBLOCK a pipe is not open before somebody writes to it; of files it changes nothing.
    try:
        file = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise _no_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _no_file(path)
    return file


def _no_file(path: Path) -> CorruptError:
    return CorruptError(f'{path} is a pipe, a device or a socket, not a file')


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is at ``path``, in the place of an older one, when the block has ended well; else it is removed.

    So a reader sees the old or the new content, and a crash leaves no half of it. Only this user may read it.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.part')
    try:
        with os.fdopen(descriptor, 'wb') as file:
            yield file
        os.replace(name, path)
    except BaseException:  # Ctrl-C too leaves nothing
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise

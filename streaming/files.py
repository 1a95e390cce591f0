"""Opening files in whose place there may be anything: a pipe would keep a reader forever, a device may have no end."""

import errno
import io
import os
import stat
from pathlib import Path

from streaming.errors import CorruptError

__all__ = ['open_file']


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

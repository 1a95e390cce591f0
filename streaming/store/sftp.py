"""fsspec's file system for ``sftp://``, made fit for threads and for networks that fail.

paramiko's SFTP client is not for several threads: one that waits for its answer takes another's off the wire and drops it, and
that one waits for ever. So each call has a channel of its own, of the few that a server allows on a connection.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fsspec.implementations.sftp import SFTPFileSystem  # type: ignore[import-untyped]

__all__ = ['SFTP']

# OpenSSH allows ten sessions on a connection (MaxSessions), and others may share it.
_CHANNELS = 8
_CONNECT_S = 4.0
_BANNER_S = 15.0


class SFTP(SFTPFileSystem):  # type: ignore[misc]
    """One connection, and a channel for each call that is made within `channel`.

    Args:
        timeout_s: Seconds without a byte after which a call has failed.
        options: The host and what paramiko's ``SSHClient.connect`` takes.
    """

    def __init__(self, *, timeout_s: float, **options: Any) -> None:
        self._timeout_s = timeout_s
        self._free = threading.BoundedSemaphore(_CHANNELS)
        self._spare: list[Any] = []
        self._own = threading.local()
        limits = {'timeout': min(_CONNECT_S, timeout_s), 'banner_timeout': min(_BANNER_S, timeout_s), 'auth_timeout': timeout_s}
        super().__init__(**{**limits, **options})

    def _connect(self) -> None:
        try:
            super()._connect()
        except BaseException:
            self.client.close()  # it has a thread, which would go on as long as the error's traceback is kept
            raise

    @property
    def ftp(self) -> Any:
        """The channel of the call that this thread makes."""
        return self._own.channel

    @ftp.setter
    def ftp(self, first: Any) -> None:
        self._spare.append(first)

    @contextmanager
    def channel(self) -> Iterator[None]:
        """Have a channel for the calls that this thread makes in the block; wait for one if all are in use."""
        with self._free:
            try:
                own: Any = self._spare.pop()
            except IndexError:
                own = self.client.open_sftp()
            own.get_channel().settimeout(self._timeout_s)
            self._own.channel = own
            is_fit = False
            try:
                yield
                is_fit = True
            except OSError as error:  # an answer too, if it came in time: else it may come to whoever asks next
                is_fit = not isinstance(error, TimeoutError)
                if type(error) is OSError and error.errno is None and own.get_channel().closed:
                    # paramiko's "Socket is closed": the connection ended after it was last looked at.
                    raise ConnectionAbortedError(f'the connection ended: {error}') from error
                raise
            finally:
                if is_fit and not own.get_channel().closed:
                    self._spare.append(own)
                else:
                    with suppress(Exception):
                        own.close()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A range, all of it asked for at once and not one piece of 32 KiB after the other."""
        with self.ftp.open(path, 'rb') as file:
            first = start or 0
            last = file.stat().st_size if end is None else end
            return b''.join(file.readv([(first, last - first)])) if last > first else b''

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that more calls can go over."""
        transport = self.client.get_transport()
        return transport is not None and bool(transport.is_active())

    def close(self) -> None:
        """End the connection; calls under way in other threads fail."""
        self.client.close()

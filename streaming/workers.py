"""What a DataLoader worker does differently, so that a killed one leaves nothing behind."""

import os
import secrets
import sys
from multiprocessing import connection

__all__ = ['leave_no_sockets']


def leave_no_sockets() -> None:
    """Let this process's multiprocessing listeners have addresses that are no files (Linux; elsewhere nothing is done).

    torch hands a worker's tensors to the training process through a listener of the standard library, which lies in a new folder
    ``/tmp/pymp-*``. A worker that is killed cannot remove it. An address in Linux's abstract namespace goes with its process; who
    connects is still asked for the process's authentication key.
    """
    if sys.platform != 'linux' or connection.arbitrary_address is _arbitrary_address:  # type: ignore[attr-defined]
        return
    connection.arbitrary_address = _arbitrary_address  # type: ignore[attr-defined]


_file_address = connection.arbitrary_address  # type: ignore[attr-defined]


def _arbitrary_address(family: str) -> object:
    if family == 'AF_UNIX':
        return f'\0streaming-{os.getpid()}-{secrets.token_hex(16)}'
    return _file_address(family)

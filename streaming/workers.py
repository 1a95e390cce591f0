"""What a DataLoader worker does differently, so that neither it nor its rank leaves anything behind when killed."""

import gc
import os
import secrets
import sys
import threading
from multiprocessing import connection, parent_process
from multiprocessing.process import BaseProcess

__all__ = ['end_with_parent', 'leave_no_sockets']

# The garbage of a process is its own to finalize. A forked worker would do it once more, and wait for threads that a fork does
# not copy: a second for each file system that s3fs has left. And what the collector looks at, a worker has a copy of.
os.register_at_fork(after_in_child=gc.freeze)


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it is gone, by whatever cause.

    torch's workers look every five seconds whether their parent is still the process that it was when they began. One whose
    parent was killed before it looked for the first time stays for ever.
    """
    parent = parent_process()
    if parent is not None and not any(thread.name == _WATCH for thread in threading.enumerate()):
        threading.Thread(target=_outlive, args=(parent,), name=_WATCH, daemon=True).start()


_WATCH = 'streaming-watch-parent'


def _outlive(parent: BaseProcess) -> None:
    parent.join()  # by a pipe whose other end goes with the parent
    os._exit(1)


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

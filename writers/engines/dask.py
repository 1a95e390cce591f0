"""Parts as tasks of Dask."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from streaming.writers.convert.job import Part, PartResult
from streaming.writers.engines.load import load_extra

__all__ = ['DaskEngine']


class DaskEngine:
    """Does parts on a Dask cluster.

    A part whose worker dies is done again by Dask, as often as ``distributed.scheduler.allowed-failures`` says.

    Args:
        client: A client of the cluster, or its address. Default: None; the current client, else a cluster of processes on this
            machine alone, which ends with the work.

    Raises:
        MissingExtraError: Dask is not installed.
    """

    def __init__(self, client: Any = None) -> None:
        self._distributed = load_extra('distributed', 'dask')
        self._client = client

    def __call__(self, function: Callable[[Part], PartResult], parts: Sequence[Part], /) -> Iterator[PartResult]:
        """The results, as they come."""
        client, ours = self._connect()
        futures: list[Any] = []
        try:
            # What is the same for all parts goes to each worker once.
            shared = client.scatter(function, broadcast=True, hash=False)
            # Not pure: a part is work to be done, not a value that an earlier run may have left.
            futures += client.map(_call, [shared] * len(parts), parts, pure=False)
            for future in self._distributed.as_completed(futures):
                yield future.result()
        finally:
            client.cancel(futures)
            if ours:
                client.close()

    def _connect(self) -> tuple[Any, bool]:
        """A client, and whether it is ours to close."""
        if isinstance(self._client, str):
            return self._distributed.Client(self._client), True
        if self._client is not None:
            return self._client, False
        try:
            return self._distributed.get_client(), False
        except ValueError:
            return self._distributed.Client(threads_per_worker=1, dashboard_address=':0'), True


def _call(function: Callable[[Part], PartResult], part: Part) -> PartResult:
    return function(part)

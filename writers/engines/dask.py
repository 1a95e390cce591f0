"""Parts as tasks of Dask."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from streaming.writers.convert.job import Part, PartResult
from streaming.writers.engines.load import load_extra

__all__ = ['DaskEngine']

logger = logging.getLogger(__name__)

_REPORT_S = 60.0


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
            # What is the same for all parts goes to each worker once. As a task, because what is scattered needs workers that are
            # there already, and is lost with the one that has it.
            shared = client.submit(_same, function, pure=False)
            # Not pure: a part is work to be done, not a value that an earlier run may have left.
            futures += client.map(_call, [shared] * len(parts), parts, pure=False)
            for future in self._as_they_end(client, futures):
                yield future.result()
        finally:
            client.cancel(futures)
            if ours:
                client.close()

    def _as_they_end(self, client: Any, futures: Sequence[Any]) -> Iterator[Any]:
        pending = set(futures)
        ending = self._distributed.as_completed(pending, timeout=_REPORT_S)
        while pending:
            try:
                future = next(ending)
            except self._distributed.TimeoutError:
                workers = len(client.scheduler_info()['workers'])
                logger.warning('waiting for %d parts; the cluster has %d workers', len(pending), workers)
                ending = self._distributed.as_completed(pending, timeout=_REPORT_S)
                continue
            pending.discard(future)
            yield future

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


def _same(function: Callable[[Part], PartResult]) -> Callable[[Part], PartResult]:
    return function


def _call(function: Callable[[Part], PartResult], part: Part) -> PartResult:
    return function(part)

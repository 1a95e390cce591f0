"""Parts as tasks of Ray."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from streaming.writers.convert.job import Part, PartResult
from streaming.writers.engines.load import load_extra

__all__ = ['RayEngine']

logger = logging.getLogger(__name__)

_REPORT_S = 60.0


class RayEngine:
    """Does parts on a Ray cluster: the one that this process is connected to, or else the one at ``address``.

    A part whose worker dies is done again by Ray, three times at most.

    Args:
        address: Of the cluster, as for ``ray.init``. Default: None; that of ``RAY_ADDRESS``, else a cluster of this machine
            alone, which ends with the work.
        num_cpus: Cores that one part takes. Default: 1.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, *, num_cpus: float = 1) -> None:
        self._ray = load_extra('ray', 'ray')
        self._address = address
        self._num_cpus = num_cpus

    def __call__(self, function: Callable[[Part], PartResult], parts: Sequence[Part], /) -> Iterator[PartResult]:
        """The results, as they come."""
        ray = self._ray
        ours = not ray.is_initialized()
        if ours:
            ray.init(address=self._address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        pending: list[Any] = []
        try:
            # What is the same for all parts goes to each node once.
            shared = ray.put(function)
            task = ray.remote(num_cpus=self._num_cpus)(_call)
            pending += [task.remote(shared, part) for part in parts]
            while pending:
                done, pending = ray.wait(pending, timeout=_REPORT_S)
                if not done:
                    logger.warning('waiting for %d parts; the cluster has %s', len(pending), ray.available_resources())
                for reference in done:
                    yield self._get(reference)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()

    def _get(self, reference: Any) -> PartResult:
        try:
            result: PartResult = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, Exception) else error from error
        return result


def _call(function: Callable[[Part], PartResult], part: Part) -> PartResult:
    return function(part)

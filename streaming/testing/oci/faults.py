"""What the server can be told to do wrong, as rules: which requests, how often, how."""

import random
import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ['KINDS', 'Fault', 'Faults']

KINDS = ('status', 'reset', 'lose', 'truncate', 'short', 'corrupt', 'drip', 'stall', 'skew')


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule.

    Args:
        kind: ``status`` (an error answer), ``reset`` (the connection is torn: before the headers, or in the body at ``offset``),
            ``lose`` (what is asked for is done, then the connection is torn instead of an answer), ``truncate`` (the body ends at
            ``offset``, the headers say more), ``short`` (the body ends at ``offset`` and the headers say so), ``corrupt`` (the
            byte at ``offset`` is another), ``drip`` (``bytes_per_s``), ``stall`` (nothing for ``seconds``, before the headers or
            in the body at ``offset``), ``skew`` (the clock here is off by ``seconds``).
        method: The requests' method. Default: any.
        path: A regular expression that the decoded path must hold. Default: any.
        times: How many requests are hit. Default: 1; None: all.
        chance: With what probability a request is hit; the same ones in every run. Default: 1.
        after: How many of them pass first. Default: 0.
        offset: See ``kind``. Default: None.
        status: Default: 503.
        code: Error code of the answer. Default: one that fits the status.
        retry_after: Seconds that the answer asks to wait. Default: None.
        bytes_per_s: Default: 1000.
        seconds: Default: 30.
    """

    kind: str
    method: str | None = None
    path: str = ''
    times: int | None = 1
    chance: float = 1.0
    after: int = 0
    offset: int | None = None
    status: int = 503
    code: str | None = None
    retry_after: float | None = None
    bytes_per_s: int = 1000
    seconds: float = 30.0
    _draws: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f'kind must be one of {", ".join(KINDS)}, got {self.kind!r}')
        re.compile(self.path)
        self._draws = random.Random(0)

    def hits(self, method: str, path: str) -> bool:
        """Whether a request is hit. Counts it."""
        if self.times == 0 or self.method not in (None, method) or not re.search(self.path, path):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.chance < 1 and self._draws.random() >= self.chance:
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """The rules in force. The first that hits a request counts."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(self, **options: Any) -> None:
        """Add a rule."""
        self._rules.append(Fault(**options))

    def clear(self) -> None:
        """Forget all rules, spent or not."""
        self._rules.clear()

    def unspent(self) -> int:
        """Rules that still wait for a request."""
        return sum(rule.times not in (None, 0) for rule in self._rules)

    def find(self, method: str, path: str) -> Fault | None:
        """The rule that hits a request."""
        return next((rule for rule in self._rules if rule.hits(method, path)), None)

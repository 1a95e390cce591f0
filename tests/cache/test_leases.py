"""Leases of one process; those of several are in test_ledger.py."""

import tempfile

import pytest

from streaming.cache.leases import Leases


@pytest.mark.timeout(20)
def test_a_lease_that_ends_in_the_middle_of_taking_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the garbage collector may have it, in the same thread."""
    with tempfile.TemporaryFile() as file:
        leases = Leases(file.fileno(), 0)
        assert leases.try_share(1)
        assert leases.try_share(2)
        lock = leases._lock

        def collect_garbage(number: int, kind: int) -> bool:
            leases.release(1)
            return lock(number, kind)

        monkeypatch.setattr(leases, '_lock', collect_garbage)
        assert leases.try_share(3)
        monkeypatch.undo()
        assert [leases.try_claim(number) for number in (1, 2, 3)] == [True, False, False]

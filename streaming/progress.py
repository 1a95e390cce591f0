"""Which epoch an iteration is, and where it starts: agreed between a rank and its DataLoader workers without a barrier.

An iteration has a key that all its workers know. The first to come with a new key begins the epoch, the others learn what it
found. What was loaded from a checkpoint is taken by the next iteration to begin.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streaming.errors import ArgumentError
from streaming.record import SharedRecord

__all__ = ['Begun', 'Progress']

# Iterations remembered by key. Workers of one iteration come within moments of each other; a few are enough.
_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class Begun:
    """An iteration that has begun.

    Args:
        epoch: Its epoch, 0-based.
        sample_in_epoch: Samples of the epoch that were delivered, to all ranks, before it.
        order: What a loaded state fixed of the order (canonical nodes, seed, ...), by name.
    """

    epoch: int
    sample_in_epoch: int
    order: Mapping[str, Any] = field(default_factory=dict)


class Progress:
    """The epochs of one rank, shared with its workers."""

    def __init__(self) -> None:
        self._record = SharedRecord({'next_epoch': 0, 'resume': 0, 'order': {}, 'begun': {}, 'pools': 0})

    @property
    def next_epoch(self) -> int:
        """The epoch that the next iteration will be."""
        return int(self._record.read()['next_epoch'])

    def set_next_epoch(self, epoch: int) -> None:
        """Let the next iteration begin ``epoch`` from its start."""
        with self._record.locked() as record:
            record.update(next_epoch=epoch, resume=0)

    def new_pool(self) -> int:
        """A number that no other pool of workers of this rank has had."""
        with self._record.locked() as record:
            record['pools'] += 1
            return int(record['pools'])

    def begin(self, key: str | None, worker: int | None = None) -> Begun:
        """Begin the next epoch, or learn of the one that another worker began under the same key.

        Args:
            key: What the workers of one iteration have in common; None where there is only one. A worker that comes a second time
                with a key begins another iteration: keys made from seeds come again where a program seeds torch each epoch.
            worker: The worker that asks; None for the rank itself, on behalf of all its workers.
        """
        with self._record.locked() as record:
            begun: dict[str, Any] = record['begun']
            known = begun.get(key) if key is not None else None
            came = [] if worker is None else [worker]
            if known is not None and (worker is None or worker not in known['workers']):
                known['workers'] += came
                return Begun(**known['values'])
            values = {'epoch': record['next_epoch'], 'sample_in_epoch': record['resume'], 'order': record['order']}
            if key is not None:
                begun.pop(key, None)
                begun[key] = {'values': values, 'workers': came}
                for old in list(begun)[:-_REMEMBERED]:
                    del begun[old]
            record.update(next_epoch=values['epoch'] + 1, resume=0, last=values)
            return Begun(**values)

    def go_on(self, key: str | None, worker: int, begun: Begun) -> None:
        """Begin an iteration that another program began, where each worker knows for itself how far it had come.

        Args:
            key: What the workers of this iteration have in common; None where there is only one.
            worker: The worker that goes on.
            begun: What had begun; the same for all workers of an iteration.
        """
        values = {'epoch': begun.epoch, 'sample_in_epoch': begun.sample_in_epoch, 'order': dict(begun.order)}
        with self._record.locked() as record:
            if key is not None:
                record['begun'].setdefault(key, {'values': values, 'workers': []})['workers'].append(worker)
            record.update(next_epoch=begun.epoch + 1, resume=0, order=values['order'], last=values)

    def current(self) -> Begun:
        """The iteration that began last, or what the first one will be."""
        record = self._record.read()
        return Begun(**record['last']) if 'last' in record else self.upcoming()

    def upcoming(self) -> Begun:
        """What the next iteration will be."""
        record = self._record.read()
        return Begun(record['next_epoch'], record['resume'], record['order'])

    def load(self, epoch: int, sample_in_epoch: int, order: Mapping[str, Any]) -> None:
        """Let the next iteration begin ``epoch`` after ``sample_in_epoch`` samples, in the order that was saved."""
        with self._record.locked() as record:
            record.pop('last', None)
            record.update(next_epoch=epoch, resume=sample_in_epoch, order=dict(order))

    def change_order(self, changes: Mapping[str, Any]) -> None:
        """Let the order of the epochs to come differ. An iteration that has begun stays as it is.

        Raises:
            ArgumentError: the next iteration goes on in the middle of an epoch.
        """
        with self._record.locked() as record:
            if record['resume']:
                raise ArgumentError(
                    f'the order cannot change in mid-epoch: the next iteration goes on at sample {record["resume"]} of epoch '
                    f'{record["next_epoch"]}'
                )
            record['order'] = {**record['order'], **changes}

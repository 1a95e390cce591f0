"""What DEST says of a conversion: which job it is of, which parts are done, and whether all are.

.convert/job.json             the job and its fingerprint; after the end, how it ended
.convert/part-00000.json      a part that is done: its shards, as its index has them
.convert/scatter-00000.json   the same of the first half of a shuffle, whose samples are in .convert/spill-*
rejected/part-00000.jsonl     bad records of a part
"""

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from streaming.errors import AlreadyExistsError, FormatError, NotFoundError
from streaming.format.index import ShardTable
from streaming.store import open_store
from streaming.store.local import LocalStore
from streaming.store.protocol import Store
from streaming.writers.convert.job import Job, PartResult
from streaming.writers.destination import INDEX

__all__ = ['JOURNAL', 'REJECTED', 'Journal']

JOURNAL = '.convert'
REJECTED = 'rejected'
_JOB = f'{JOURNAL}/job.json'
_PARALLEL = 32
# What a conversion or a writer puts into a folder, and nothing else: only that is ever deleted.
_OURS = re.compile(r'shard\.\d{5,}\.[a-z.0-9]+|part-\d{5,}/(?:shard\.\d{5,}\.[a-z.0-9]+|index\.json)')
_MARK = re.compile(rf'{re.escape(JOURNAL)}/((?:part|scatter)-\d{{5,}})\.json')


class Journal:
    """The journal of a job.

    Args:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._store = open_store(job.dest)

    def begin(self, *, exist_ok: bool) -> dict[str, Any] | None:
        """Begin the job, or go on with it.

        Args:
            exist_ok: Whether what is there of another job, or a dataset, may go.

        Returns:
            How the job ended, if it has; else None.

        Raises:
            AlreadyExistsError: there is a dataset, or an unfinished one of another job.
        """
        found = self._read_job()
        same = found is not None and found.get('fingerprint') == self._job.fingerprint
        if found is not None and same:
            finished = found.get('finished')
            if not isinstance(finished, dict):
                return None
            if not exist_ok:
                if self._is_there():
                    return finished
                self._put_job(None)  # somebody has removed the index since
                return None
        if not exist_ok:
            self._refuse(found)
        self._clear(found)
        self._put_job(None)
        return None

    def done(self) -> dict[str, PartResult]:
        """The parts that are done, by name."""
        keys = [info.key for info in self._store.list(f'{JOURNAL}/')]
        names = {match[1]: key for key in keys if (match := _MARK.fullmatch(key))}
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix='streaming-journal') as pool:
            results = list(pool.map(self._read_mark, names.values()))
        return {name: result for name, result in zip(names, results, strict=True) if result is not None}

    def forget(self, names: Iterable[str]) -> None:
        """Let parts be done again."""
        for name in names:
            self._store.delete(f'{JOURNAL}/{name}.json')

    def finish(self, how: dict[str, Any]) -> None:
        """Note that all is done, and delete what was only needed until then."""
        self._put_job(how)
        self._delete(info.key for info in self._store.list(f'{JOURNAL}/') if info.key != _JOB)
        self.sweep()

    def sweep(self) -> None:
        """Remove what killed processes have left of files that they were putting, where that is a folder of this machine."""
        for folder in ('', JOURNAL, REJECTED):
            store = open_store(self._job.folder(folder), retry=None)
            if isinstance(store, LocalStore):
                store.sweep()
            store.close()

    def close(self) -> None:
        """Give back connections."""
        self._store.close()

    def _read_job(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._store.get(_JOB))
        except NotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _put_job(self, how: dict[str, Any] | None) -> None:
        entry = {'fingerprint': self._job.fingerprint, 'job': self._job.describe(), 'outputs': self._job.outputs, 'finished': how}
        self._store.put(_JOB, json.dumps(entry, sort_keys=True, indent=1).encode())

    def _read_mark(self, key: str) -> PartResult | None:
        """What a part's entry says; None if it is none, so that the part is done again."""
        try:
            return PartResult.from_json(self._store.get(key), self._store.url_of(key))
        except (FormatError, ValueError, LookupError, TypeError):
            return None

    def _refuse(self, found: dict[str, Any] | None) -> None:
        """Raise unless nothing is there.

        Raises:
            AlreadyExistsError: something is.
        """
        url, way_out = self._store.url, 'pass exist_ok=True (--overwrite) to discard it, or choose another destination'
        if found is not None and found.get('finished') is None:
            raise AlreadyExistsError(
                f'{url} holds an unfinished conversion of {_what_differs(found, self._job)}; '
                f'give the same arguments again to go on with it, {way_out}'
            )
        for folder in self._folders(None):
            for prefix in (INDEX, 'shard.', 'part-'):
                for info in self._store.list(folder + prefix):
                    if info.key == folder + INDEX or _OURS.fullmatch(info.key[len(folder) :]):
                        made = '' if found is None else f', of {_what_differs(found, self._job)}'
                        raise AlreadyExistsError(
                            f'{url} holds a dataset, or a part of one, already ({info.key}{made}); {way_out}'
                        )

    def _is_there(self) -> bool:
        """Whether all indices of the job are."""
        try:
            for split in self._job.outputs:
                self._store.head(f'{split}/{INDEX}' if split else INDEX)
        except NotFoundError:
            return False
        return True

    def _clear(self, found: dict[str, Any] | None) -> None:
        """Delete what is there: the indices first, so that nobody reads a mixture."""
        stale: set[str] = set()
        for folder in self._folders(found):
            key = folder + INDEX
            with suppress(FormatError, NotFoundError):
                table = ShardTable.from_json(self._store.get(key), self._store.url_of(key))
                stale.update(folder + file.basename for shard in table for file in shard.stored)
            self._store.delete(key)
            for prefix in ('shard.', 'part-'):
                keys = [info.key for info in self._store.list(folder + prefix)]
                stale.update(key for key in keys if _OURS.fullmatch(key[len(folder) :]))
        rejected = re.compile(rf'{REJECTED}/(?:part|scatter)-\d{{5,}}\.jsonl')
        stale.update(info.key for info in self._store.list(f'{REJECTED}/') if rejected.fullmatch(info.key))
        stale.update(info.key for info in self._store.list(f'{JOURNAL}/'))
        self._delete(stale)

    def _folders(self, found: dict[str, Any] | None) -> list[str]:
        """Where indices of this job go, and of the one that was found: ``''`` and the splits, with a slash at the end."""
        theirs = (found or {}).get('outputs', [])
        splits = {'', *self._job.outputs, *(split for split in theirs if isinstance(split, str) and _is_split(split))}
        return sorted(f'{split}/' if split else '' for split in splits)

    def _delete(self, keys: Iterable[str]) -> None:
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix='streaming-delete') as pool:
            list(pool.map(self._store.delete, keys))

    @property
    def store(self) -> Store:
        """Of the destination."""
        return self._store


def _is_split(split: str) -> bool:
    return split == '' or not any(part in ('', '.', '..') for part in split.split('/'))


def _what_differs(found: dict[str, Any], job: Job) -> str:
    """In what another job differs from this one, for people."""
    theirs, ours = found.get('job'), json.loads(json.dumps(job.describe()))
    if not isinstance(theirs, dict):
        return 'another job'
    names = [name for name in ours if theirs.get(name) != ours[name]]
    shown = [f'{name}: {theirs.get(name)!r:.200} there, {ours[name]!r:.200} here' for name in names]
    return f'another job ({"; ".join(shown)})'

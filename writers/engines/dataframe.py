"""dataframe_to_mds: a DataFrame of Spark -> a dataset, a part for each partition, written where the partition is."""

import logging
import posixpath
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain
from typing import Any

from streaming.errors import AlreadyExistsError, ArgumentError, NotFoundError, StoreError
from streaming.format.compression import get_codec
from streaming.format.index import ShardTable
from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.writers import merge
from streaming.writers.convert.sources import Wanted
from streaming.writers.convert.sources.arrow_values import records_of
from streaming.writers.convert.sources.files import join_url
from streaming.writers.convert.values import Fitter
from streaming.writers.destination import INDEX, split_out
from streaming.writers.engines.load import load_extra
from streaming.writers.engines.spark import our_errors
from streaming.writers.engines.spark_types import check_dataframe_columns, infer_dataframe_columns
from streaming.writers.mds import MDSWriter

__all__ = ['dataframe_to_mds']

logger = logging.getLogger(__name__)

# Threads of a partition that compress and put: an executor has as many partitions at a time as it has cores.
_PUBLISHERS = 2
_PARALLEL = 16

Udf = Callable[..., Iterable[Mapping[str, Any]]]


def dataframe_to_mds(
    dataframe: Any,
    merge_index: bool = True,
    mds_kwargs: dict[str, Any] | None = None,
    udf_iterable: Udf | None = None,
    udf_kwargs: dict[str, Any] | None = None,
) -> tuple[str, str]:
    """Write a DataFrame of Spark as a dataset. Signature and result are those of mosaicml-streaming.

    Each partition writes its shards to a folder of its own, straight to ``out``; only the names of the folders come back. The
    order of the samples is that of the DataFrame's partitions. Where a partition is done twice, because an executor died or was
    slow, one of the two is taken and the other deleted. Where the work fails, all that it wrote is deleted.

    Args:
        dataframe: What to write.
        merge_index: Whether to merge the indices of the partitions into one. Default: True.
        mds_kwargs: Of `MDSWriter`. ``out`` is needed: a URL, ``(local, remote)``, or a path that all executors share. Without
            ``columns`` they are inferred; without ``compression`` it is ``zstd``. Default: None.
        udf_iterable: Called with each batch as a DataFrame of pandas, and ``udf_kwargs``; gives the samples to write instead of
            the rows. Then ``columns`` is needed. Default: None.
        udf_kwargs: For ``udf_iterable``. Default: None.

    Returns:
        The local path and the remote URL that were written to; an empty string for the one that was not.

    Raises:
        ArgumentError: values that cannot work, an empty DataFrame, or columns that have no encoding.
        AlreadyExistsError: ``out`` holds a dataset, and ``exist_ok`` is not set.
        ColumnTypeError: a value is not what its column takes.
        StoreError: something cannot be stored.
        MissingExtraError: PySpark, pandas or pyarrow is not installed.
    """
    for module in ('pyspark.sql', 'pandas', 'pyarrow'):
        load_extra(module, 'spark')
    if dataframe is None or dataframe.isEmpty():
        raise ArgumentError('the DataFrame is None or empty: there is nothing to write')
    options = dict(mds_kwargs or {})
    if 'out' not in options:
        raise ArgumentError("mds_kwargs needs 'out': where the dataset goes")
    local, remote = split_out(options.pop('out'))
    keep_local = bool(options.pop('keep_local', False))
    exist_ok = bool(options.pop('exist_ok', False))
    columns = _columns(dataframe, options, with_function=udf_iterable is not None)
    options = {'compression': 'zstd', 'max_workers': _PUBLISHERS, **options, 'columns': columns}
    if options['compression']:
        get_codec(options['compression'])
    run = _Run(local if remote is None or keep_local else None, remote)
    with closing(_Cleaner(run)) as cleaner:
        if merge_index:
            cleaner.begin(exist_ok=exist_ok)
        try:
            with our_errors(dataframe.sparkSession):
                folders = _write(dataframe, run, options, udf_iterable, udf_kwargs or {})
            cleaner.keep(folders)
        except BaseException:
            cleaner.withdraw()
            raise
        # From here on nothing of the run is deleted: an index that may have arrived names it.
        if merge_index:
            merge.merge_index([run.place(f'{folder}/{INDEX}') for folder in folders], run.place(''))
            cleaner.end()
    return local or '', remote or ''


def _columns(dataframe: Any, options: Mapping[str, Any], *, with_function: bool) -> dict[str, str]:
    """The columns to write: what was given, held against the DataFrame unless a function makes the samples, or inferred."""
    given = options.get('columns')
    if with_function:
        if not given:
            raise ArgumentError("mds_kwargs needs 'columns' where udf_iterable makes the samples")
        return dict(given)
    if given:
        check_dataframe_columns(dataframe, given)
        return dict(given)
    found = infer_dataframe_columns(dataframe)
    logger.info('columns, by the types of the DataFrame: %s', found)
    return found


@dataclass(frozen=True, slots=True)
class _Run:
    """Where one call writes. It pickles; executors have it too.

    Args:
        local: A path, None where nothing is written to one.
        remote: A URL, or None.
        name: Of the folder that all partitions' folders are in. They sort by time.
    """

    local: str | None
    remote: str | None
    name: str = field(default_factory=lambda: f'run-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}')

    def folder(self, partition: int, attempt: int) -> str:
        """A partition's. Two attempts of one partition may be made at a time, of rows in another order."""
        return f'{self.name}/part-{partition:05}-{attempt}'

    def place(self, key: str) -> Any:
        """Something below both places, or below the one that there is."""
        found = [join_url(place, key) for place in (self.local, self.remote) if place is not None]
        return found[0] if len(found) == 1 else tuple(found)


def _write(dataframe: Any, run: _Run, options: Mapping[str, Any], function: Udf | None, keywords: Mapping[str, Any]) -> list[str]:
    """Write all partitions; their folders, in order."""
    columns: Mapping[str, str] = options['columns']
    wanted, fit = Wanted(columns, tuple(columns), as_bytes=True), Fitter(columns, is_text=False, is_ragged=False)

    def rows(batches: Iterator[Any]) -> Iterator[Any]:
        pyarrow = load_extra('pyarrow', 'spark')
        samples = (fit(sample) for batch in batches for sample in records_of(batch, wanted))
        for number, folder in _write_partition(run, options, samples):
            yield pyarrow.RecordBatch.from_pydict({'number': [number], 'folder': [folder]})

    def made(frames: Iterator[Any]) -> Iterator[Any]:
        pandas = load_extra('pandas', 'spark')
        assert function is not None
        samples = (sample for frame in frames for sample in function(frame, **keywords))
        for number, folder in _write_partition(run, options, samples):
            yield pandas.DataFrame({'number': [number], 'folder': [folder]})

    schema = 'number long, folder string'
    if function is None:
        selected = dataframe.select(*(dataframe['`{}`'.format(name.replace('`', '``'))] for name in columns))
        done = selected.mapInArrow(rows, schema).collect()
    else:
        done = dataframe.mapInPandas(made, schema).collect()
    return [row['folder'] for row in sorted(done, key=lambda row: row['number'])]


def _write_partition(run: _Run, options: Mapping[str, Any], samples: Iterator[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Write a partition, in its executor; its number and folder, or nothing where it has no samples."""
    first = next(samples, None)
    if first is None:
        return
    context = load_extra('pyspark', 'spark').TaskContext.get()
    number = context.partitionId()
    folder = run.folder(number, context.taskAttemptId())
    with MDSWriter(out=run.place(folder), keep_local=run.local is not None, **options) as writer:
        for sample in chain([first], samples):
            writer.write(sample)
    yield number, folder


class _Cleaner:
    """What was where a run writes, and what the run leaves there.

    Args:
        run: The run.
    """

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._stores = [open_store(place) for place in (run.local, run.remote) if place is not None]
        self._stale: dict[Store, set[str]] = {}

    def begin(self, *, exist_ok: bool) -> None:
        """See that no dataset is overwritten, or remove the index of the one that is to be.

        Raises:
            AlreadyExistsError: there is a dataset, and ``exist_ok`` is False.
        """
        for store in self._stores:
            try:
                index = store.get(INDEX)
            except NotFoundError:
                continue
            if not exist_ok:
                raise AlreadyExistsError(
                    f"{store.url} holds a dataset already; put 'exist_ok': True into mds_kwargs to overwrite it"
                )
            names = [file.basename for shard in ShardTable.from_json(index, store.url) for file in shard.stored]
            indices = {posixpath.join(posixpath.dirname(name), INDEX) for name in names if '/' in name}
            self._stale[store] = {*names, *indices}
            store.delete(INDEX)

    def keep(self, folders: Iterable[str]) -> None:
        """Delete all that the run has written but some of its folders."""
        kept = tuple(f'{folder}/' for folder in folders)
        for store in self._stores:
            _delete(store, (info.key for info in store.list(f'{self._run.name}/') if not info.key.startswith(kept)))

    def withdraw(self) -> None:
        """Delete all that the run has written, as far as that goes: there is an error already that should be seen."""
        try:
            self.keep(())
        except StoreError as error:
            logger.warning('files that belong to no dataset are left: %s', error)

    def end(self) -> None:
        """Delete what the old dataset had, now that there is a new one."""
        for store, names in self._stale.items():
            _delete(store, names)

    def close(self) -> None:
        """Give back connections."""
        for store in self._stores:
            store.close()


def _delete(store: Store, keys: Iterable[str]) -> None:
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix='streaming-delete') as pool:
        list(pool.map(store.delete, keys))

"""Parts as tasks of Spark."""

import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from streaming import errors
from streaming.errors import StreamingError
from streaming.writers.convert.job import Part, PartResult
from streaming.writers.engines.load import load_extra

__all__ = ['SparkEngine', 'error_of', 'our_errors', 'spark_session']

# The last line of a Python worker's traceback, which is all that Spark hands on of an error.
_ERROR = re.compile(r'^(?:.*: )?streaming\.errors\.(\w+): (.*?)(?=\n\s*\n|\n\tat |\Z)', re.MULTILINE | re.DOTALL)


class SparkEngine:
    """Does parts on a Spark cluster. Their results come when all are done.

    A part whose executor dies, or that fails, is done again by Spark, as often as ``spark.task.maxFailures`` says.

    Args:
        session: The session. Default: None; the active one, else one that is made, and stopped after the work.

    Raises:
        MissingExtraError: PySpark is not installed.
    """

    def __init__(self, session: Any = None) -> None:
        load_extra('pyspark.sql', 'spark')
        load_extra('pyarrow', 'spark')
        self._session = session

    def __call__(self, function: Callable[[Part], PartResult], parts: Sequence[Part], /) -> Iterator[PartResult]:
        """The results."""
        todo = list(parts)

        def work(batches: Iterator[Any]) -> Iterator[Any]:
            pyarrow = load_extra('pyarrow', 'spark')
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    done = function(todo[number]).to_json()
                    yield pyarrow.RecordBatch.from_arrays([pyarrow.array([done], pyarrow.binary())], names=['result'])

        with spark_session(self._session) as session, our_errors(session):
            # A row a task. DataFrames, and not RDDs, which Spark Connect does not have.
            rows = session.range(0, len(todo), 1, len(todo)).mapInArrow(work, 'result binary').collect()
        for row in rows:
            yield PartResult.from_json(bytes(row['result']), 'a result of Spark')


@contextmanager
def spark_session(given: Any = None) -> Iterator[Any]:
    """The session that was given, the active one, or one that is stopped after the block."""
    sql = load_extra('pyspark.sql', 'spark')
    session = given if given is not None else sql.SparkSession.getActiveSession()
    ours = session is None
    if ours:
        session = sql.SparkSession.builder.appName('streaming').getOrCreate()
        context = getattr(session, '_sc', None)
        if context is not None and context.master.startswith('local') and 'PYSPARK_PYTHON' not in os.environ:
            context.pythonExec = sys.executable  # and not the first python3 of the path, which has other packages
    try:
        yield session
    finally:
        if ours:
            session.stop()


@contextmanager
def our_errors(session: Any) -> Iterator[None]:
    """Raise what a task has raised of this library's errors as what it was; cancel the jobs of a block that is interrupted."""
    group = f'streaming-{uuid.uuid4().hex}'
    context = getattr(session, '_sc', None)  # Spark Connect has none, and says so with an error of its own
    if context is not None:
        context.setJobGroup(group, 'streaming', True)
    try:
        yield
    except Exception as error:
        found = error_of(str(error))
        if found is None:
            raise
        raise found from error
    except BaseException:
        if context is not None:
            context.cancelJobGroup(group)
        raise
    finally:
        if context is not None:
            for name in ('spark.jobGroup.id', 'spark.job.description', 'spark.job.interruptOnCancel'):
                context.setLocalProperty(name, None)


def error_of(text: str) -> StreamingError | None:
    """The error of this library that a worker's traceback ends with; None where it is another one."""
    matches = _ERROR.findall(text)
    if not matches:
        return None
    name, message = matches[-1]
    kind = getattr(errors, name, StreamingError)
    return kind(message.strip()) if issubclass(kind, StreamingError) else None

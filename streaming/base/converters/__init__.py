"""The names of mosaicml-streaming's ``streaming.base.converters``. What they do lives in `streaming.writers.engines`."""

from typing import Any

from streaming.base.converters.dataframe_to_mds import dataframe_to_mds, infer_dataframe_schema, is_json_compatible
from streaming.writers.engines.spark_types import encodings_of_types

__all__ = ['SPARK_TO_MDS', 'dataframe_to_mds', 'infer_dataframe_schema', 'is_json_compatible']

# Encodings by type. Its keys are objects of Spark, which is imported when somebody asks for them.
SPARK_TO_MDS: dict[Any, str | None]


def __getattr__(name: str) -> Any:
    if name == 'SPARK_TO_MDS':
        return encodings_of_types()
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

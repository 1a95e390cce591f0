"""The names of mosaicml-streaming's module for DataFrames of Spark."""

from typing import Any

from streaming.writers.engines.dataframe import dataframe_to_mds
from streaming.writers.engines.spark_types import (
    check_dataframe_columns,
    encodings_of_types,
    infer_dataframe_columns,
    is_json_compatible,
)

__all__ = ['SPARK_TO_MDS', 'dataframe_to_mds', 'infer_dataframe_schema', 'is_json_compatible']

# Encodings by type. Its keys are objects of Spark, which is imported when somebody asks for them.
SPARK_TO_MDS: dict[Any, str | None]


def __getattr__(name: str) -> Any:
    if name == 'SPARK_TO_MDS':
        return encodings_of_types()
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def infer_dataframe_schema(dataframe: Any, user_defined_cols: dict[str, Any] | None = None) -> dict[str, str] | None:
    """The encodings for the columns of a DataFrame; or, of columns that are given, whether they can be.

    Args:
        dataframe: The DataFrame.
        user_defined_cols: Encodings by column, to be checked. Default: None.

    Returns:
        Encodings by column; None where some were given.

    Raises:
        ArgumentError: a column has no encoding, or not the one that was given.
    """
    if user_defined_cols is None:
        return infer_dataframe_columns(dataframe)
    check_dataframe_columns(dataframe, user_defined_cols)
    return None

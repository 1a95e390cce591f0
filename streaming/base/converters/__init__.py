"""The names of mosaicml-streaming's ``streaming.base.converters``. What they do lives in `streaming.writers.engines`."""

from streaming.base.converters.dataframe_to_mds import dataframe_to_mds, infer_dataframe_schema, is_json_compatible

__all__ = ['dataframe_to_mds', 'infer_dataframe_schema', 'is_json_compatible']

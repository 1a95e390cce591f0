"""From a URL to the backend that serves it: a dictionary from scheme to class, loaded on use."""

import importlib
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Protocol

from streaming.errors import ArgumentError
from streaming.store.protocol import Store
from streaming.store.retry import RetryPolicy, RetryStore

__all__ = ['Backend', 'get_schemes', 'open_store', 'register_store']

_DEFAULT_POLICY = RetryPolicy()
_SCHEME = re.compile(r'([A-Za-z][A-Za-z0-9+.-]+):(//)?')

_FSSPEC = 'streaming.store.fsspec:FsspecStore'
# Scheme -> "module:class". A plain path is the scheme "".
_backends: dict[str, 'str | Backend'] = {
    '': 'streaming.store.local:LocalStore',
    'file': 'streaming.store.local:LocalStore',
    'mem': 'streaming.store.memory:MemoryStore',
    'oci': 'streaming.store.oci:OCIStore',
    's3': 'streaming.store.s3:S3Store',
    'http': 'streaming.store.http:HTTPStore',
    'https': 'streaming.store.http:HTTPStore',
    **dict.fromkeys(('gs', 'gcs', 'az', 'abfs', 'abfss', 'azure', 'azure-dl', 'hf', 'sftp'), _FSSPEC),
    'dbfs': 'streaming.store.databricks:DatabricksStore',
}


class Backend(Protocol):
    """What a backend's class has to offer the registry."""

    def open(self, url: str, options: Mapping[str, object]) -> Store:
        """Make the store of a URL; no request is made yet. Every backend takes ``timeout_s``."""
        ...


def register_store(scheme: str, backend: 'Backend | str') -> None:
    """Let URLs of ``scheme`` be served by ``backend``.

    Packages register theirs by an entry point of the group ``streaming.stores`` instead: its name is the scheme.

    Args:
        scheme: What stands before ``://``, in lower case.
        backend: The class, or where it is, as ``'module:class'``.
    """
    _backends[scheme] = backend


def get_schemes() -> list[str]:
    """Every known scheme, sorted; ``''`` stands for a plain path."""
    return sorted({*_backends, *(point.name for point in entry_points(group='streaming.stores'))})


def open_store(url: str, options: Mapping[str, object] | None = None, *, retry: RetryPolicy | None = _DEFAULT_POLICY) -> Store:
    """Make the store of a URL or path; the first request is made when it is first used.

    Args:
        url: ``/data/train``, ``file:///data/train``, ``oci://bucket@namespace/prefix``, ``s3://bucket/prefix``...
        options: The backend's own; the URL's query goes before them. All take ``timeout_s``: seconds without a byte
            after which a request has failed. Default: None.
        retry: How failed requests are tried again. Default: RetryPolicy(); None tries each once.

    Raises:
        ArgumentError: nobody serves the scheme, or the URL or an option is not what the backend takes.
        MissingExtraError: the backend needs a package that is not installed.
    """
    store = _backend_of(url).open(url, {} if options is None else options)
    return store if retry is None else RetryStore(store, retry)


def _backend_of(url: str) -> 'Backend':
    match = _SCHEME.match(url)
    # "dbfs:/Volumes" has no "//"; any other "name:" without it is a path.
    scheme = match.group(1).lower() if match and (match.group(2) or match.group(1).lower() in ('dbfs', 'file')) else ''
    if not url:
        raise ArgumentError('a store needs a path or a URL, got an empty string')
    found = _backends.get(scheme)
    if found is None:
        for point in entry_points(group='streaming.stores', name=scheme):
            found = point.value
    if found is None and _fsspec_knows(scheme):
        found = _FSSPEC
    if found is None:
        known = ', '.join(f'{name}://' for name in get_schemes() if name)
        raise ArgumentError(
            f'no store serves {scheme}:// ({url.partition("?")[0]}); there are {known}, plain paths, and whatever fsspec knows'
        )
    if isinstance(found, str):
        module, _, attribute = found.partition(':')
        loaded: Backend = getattr(importlib.import_module(module), attribute)
        return loaded
    return found


def _fsspec_knows(scheme: str) -> bool:
    try:
        from fsspec.registry import known_implementations, registry  # type: ignore[import-untyped]
    except ImportError:
        return False
    return scheme in known_implementations or scheme in registry

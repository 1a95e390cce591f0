"""The one tree of exceptions.

Every error that this library raises on purpose is a `StreamingError` and also the builtin that people already catch for that kind
of failure. Each takes exactly one message, so that an error raised in a DataLoader worker can be rebuilt in the training process.
A message names the thing, the value, the limit where there is one, and the way out; it never holds a secret.
"""

__all__ = [
    'AlreadyExistsError',
    'ArgumentError',
    'CacheError',
    'CancelledError',
    'ColumnTypeError',
    'CorruptError',
    'CredentialsError',
    'DeadlineError',
    'DeniedError',
    'FormatError',
    'MissingExtraError',
    'NotFoundError',
    'PreconditionError',
    'StaleCacheError',
    'StoreError',
    'StreamingError',
    'ThrottledError',
    'UnavailableError',
    'WorldError',
]


class StreamingError(Exception):
    """Base of every error raised by this library."""


class ArgumentError(StreamingError, ValueError):
    """An argument has a value that cannot work, or contradicts another one."""


class WorldError(StreamingError, RuntimeError):
    """Rank, world size and their sources contradict each other."""


class MissingExtraError(StreamingError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class DeadlineError(StreamingError, TimeoutError):
    """A wait passed its deadline; the message says what it waited for."""


class CancelledError(StreamingError):
    """Work was given up because nobody needs its result any more."""


class FormatError(StreamingError, ValueError):
    """An index, a shard or a sample is not what its format says; the message names the file."""


class CorruptError(FormatError):
    """Bytes arrived or lie on disk that differ in length or hash from what the index recorded."""


class ColumnTypeError(StreamingError, TypeError):
    """A sample to be written has a value that its column's encoding does not take."""


class StaleCacheError(StreamingError, RuntimeError):
    """A cache folder holds another remote, or another version of it, than the one asked for."""


class CacheError(StreamingError, OSError):
    """A cache folder cannot be written: its disk is full, say, or read-only."""


class StoreError(StreamingError, OSError):
    """An object store refused or failed a request; the message names the URL, never a secret.

    Attributes:
        status: HTTP status of the store's answer. Default: None, it gave none, or is not asked by HTTP.
        retry_after_s: Seconds that the store asked to wait before the next try. Default: None.
        etag: Version of the object whose body broke off, so that the rest is asked of the same one. Default: None.
    """

    status: int | None = None
    retry_after_s: float | None = None
    etag: str | None = None


class NotFoundError(StoreError, FileNotFoundError):
    """No such object, bucket or file."""


class AlreadyExistsError(StoreError, FileExistsError):
    """Something exists where nothing was to be overwritten."""


class DeniedError(StoreError, PermissionError):
    """The store knows who asks and refuses."""


class CredentialsError(StoreError):
    """No credentials were found or the store rejects them; the message says what was tried."""


class PreconditionError(StoreError):
    """The object is not the version that was asked for (its ETag changed)."""


class ThrottledError(StoreError):
    """The store asked to slow down (429, 503 SlowDown); worth another try, later."""


class UnavailableError(StoreError, ConnectionError):
    """The store could not be reached, broke off, or failed on its side (5xx); worth another try."""

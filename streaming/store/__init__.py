"""Objects by key: one small protocol, one file a backend, and stores around stores for retries, latency and faults."""

from streaming.store.protocol import ObjectInfo, Store
from streaming.store.registry import get_schemes, open_store, register_store
from streaming.store.retry import RetryPolicy, RetryStore

__all__ = ['ObjectInfo', 'RetryPolicy', 'RetryStore', 'Store', 'get_schemes', 'open_store', 'register_store']

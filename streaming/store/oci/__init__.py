"""OCI Object Storage: `oci://bucket@namespace/prefix`. Every way to log in, one round trip a GET."""

from streaming.store.oci.options import OCIOptions
from streaming.store.oci.store import OCIStore

__all__ = ['OCIOptions', 'OCIStore']

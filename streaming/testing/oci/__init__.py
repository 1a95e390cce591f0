"""A stand-in for OCI Object Storage on this machine's loopback, which the unmodified SDK takes for the service.

    with OCIServer(buckets=['data']) as server:
        StreamingDataset(remote=server.url('data/prefix'), ...)

It runs in a process of its own, checks signatures, keeps objects on disk, and can be told to fail (see `faults`).
"""

from streaming.testing.oci.process import OCIServer

__all__ = ['OCIServer']

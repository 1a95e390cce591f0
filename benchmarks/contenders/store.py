"""Ways to read an object's bytes into memory: ours, the SDKs' own, and a bare socket. Each runs in a process of its own."""

import email.utils
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any
from urllib.parse import quote, urlsplit

Read = Callable[[int, int], Any]  # (first byte, number of bytes) -> the bytes, in one object or another

_STREAM_CHUNK = 4 << 20
# Ranges go through so much of an object.
_SPAN = 64 << 20


class _Room(threading.local):
    """A buffer for each thread, kept: whoever reads into the caller's buffer is spared new memory for each request."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def take(self, size: int) -> memoryview:
        if len(self.buffer) != size:
            self.buffer = bytearray(size)
        return memoryview(self.buffer)


_room = _Room()


def run(reader: str, url: str, options: dict[str, Any], key: str, whole: bool, size: int, threads: int, seconds: float) -> dict:
    """Read with so many threads for so many seconds.

    Args:
        reader: One of ``ours``, ``ours get``, ``content``, ``stream``, ``boto3``, ``obstore``, ``socket``.
        url: Of the store, ``oci://`` or ``s3://``.
        options: To get in.
        key: The object's.
        whole: Whether to ask for the object or for a range of it.
        size: Of the object, or of each range. Ranges go through 64 MiB.
    """
    read = _READERS[reader](url, tuple(sorted(options.items())), key, whole)
    ready = threading.Barrier(threads + 1)

    def keep_reading(number: int) -> int:
        start = number * size
        check(read(0 if whole else start % _SPAN, size), size)  # the connection is made before the clock runs
        ready.wait()
        count, until = 0, time.perf_counter() + seconds
        while not count or time.perf_counter() < until:
            check(read(0 if whole else start % _SPAN, size), size)
            count, start = count + 1, start + threads * size
        return count

    with ThreadPoolExecutor(threads) as pool:
        counting = [pool.submit(keep_reading, number) for number in range(threads)]
        ready.wait()
        cpu, begin = time.process_time(), time.perf_counter()
        requests = sum(count.result() for count in counting)
        elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
    gb = requests * size / 1e9
    return {'value': round(gb * 1000 / elapsed, 2), 'requests/s': round(requests / elapsed, 1), 'cpu s/GB': round(cpu / gb, 3)}


def check(data: Any, size: int) -> None:
    if len(data) != size:
        raise ValueError(f'{len(data)} bytes of {size}')


def put(url: str, options: dict[str, Any], key: str, size: int) -> dict:
    """Put an object that does not compress."""
    import os

    from streaming.store import open_store

    store = open_store(url, options)
    store.put(key, os.urandom(1 << 20) * (size >> 20) if size >> 20 else os.urandom(size))
    store.close()
    return {'value': size}


@cache
def ours(url: str, options: tuple, key: str, whole: bool) -> Read:
    """As shards are read: into a buffer, without a copy. The whole of an object, too: the index says its size."""
    from streaming.store import open_store

    store = open_store(url, dict(options))

    def read(start: int, size: int) -> memoryview:
        buffer = _room.take(size)
        store.read_into(key, start, buffer)
        return buffer

    return read


@cache
def ours_get(url: str, options: tuple, key: str, whole: bool) -> Read:
    """As an index is read: the whole object as bytes, held against its MD5, which one core makes at some 600 MB/s."""
    from streaming.store import open_store

    store = open_store(url, dict(options))
    return lambda start, size: store.get(key)


@cache
def _oci(url: str, whole: bool, key: str) -> Callable[[int, int], Any]:
    """The SDK's answer to a GET."""
    import oci

    from streaming.store.oci import OCIOptions

    options = OCIOptions.parse(url, {})
    config = oci.config.from_file(options.config_file, options.profile)
    # As the SDK is used: one client, its pool as large as it makes it.
    client = oci.object_storage.ObjectStorageClient(config, service_endpoint=options.endpoint)
    where = (options.namespace, options.bucket, options.prefix + key)
    if whole:
        return lambda start, size: client.get_object(*where)
    return lambda start, size: client.get_object(*where, range=f'bytes={start}-{start + size - 1}')


@cache
def content(url: str, options: tuple, key: str, whole: bool) -> Read:
    get = _oci(url, whole, key)
    return lambda start, size: get(start, size).data.content


@cache
def stream(url: str, options: tuple, key: str, whole: bool) -> Read:
    get = _oci(url, whole, key)

    def read(start: int, size: int) -> memoryview:
        buffer, at = _room.take(size), 0
        for chunk in get(start, size).data.raw.stream(_STREAM_CHUNK, decode_content=False):
            buffer[at : at + len(chunk)] = chunk
            at += len(chunk)
        check(buffer[:0] if at != size else buffer, size)
        return buffer

    return read


def _s3_client(url: str, options: tuple) -> tuple[Any, Any]:
    import boto3
    from botocore.config import Config

    from streaming.store.s3 import S3Options

    parsed = S3Options.parse(url, dict(options))
    client = boto3.client(
        's3',
        endpoint_url=parsed.endpoint,
        region_name='us-east-1',
        aws_access_key_id=parsed.access_key_id,
        aws_secret_access_key=parsed.secret_access_key,
        config=Config(s3={'addressing_style': 'path'}, max_pool_connections=64),
    )
    return client, parsed


@cache
def boto3(url: str, options: tuple, key: str, whole: bool) -> Read:
    client, parsed = _s3_client(url, options)
    where = {'Bucket': parsed.bucket, 'Key': parsed.prefix + key}
    if whole:
        return lambda start, size: client.get_object(**where)['Body'].read()
    return lambda start, size: client.get_object(**where, Range=f'bytes={start}-{start + size - 1}')['Body'].read()


@cache
def obstore(url: str, options: tuple, key: str, whole: bool) -> Read:
    from obstore.store import S3Store

    from streaming.store.s3 import S3Options

    parsed = S3Options.parse(url, dict(options))
    store = S3Store(
        parsed.bucket,
        endpoint=parsed.endpoint,
        region='us-east-1',
        access_key_id=parsed.access_key_id,
        secret_access_key=parsed.secret_access_key,
        virtual_hosted_style_request=False,
        client_options={'allow_http': True},
    )
    path = parsed.prefix + key
    if whole:
        return lambda start, size: memoryview(store.get(path).bytes())
    return lambda start, size: memoryview(store.get_range(path, start=start, length=size))


@cache
def bare_socket(url: str, options: tuple, key: str, whole: bool) -> Read:
    """One connection a thread, one signature for all requests, and nothing of the answer looked at but where its body begins."""
    host, target, headers = (_signed_oci if url.startswith('oci:') else _signed_s3)(url, options, key)
    lines = ''.join(f'{name}: {value}\r\n' for name, value in headers.items())
    name, _, port = host.partition(':')
    own = threading.local()

    def read(start: int, size: int) -> memoryview:
        if not hasattr(own, 'connection'):
            own.connection = socket.create_connection((name, int(port)))
            own.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        span = '' if whole else f'range: bytes={start}-{start + size - 1}\r\n'
        own.connection.sendall(f'GET {target} HTTP/1.1\r\nhost: {host}\r\n{lines}{span}\r\n'.encode())
        head = b''
        while b'\r\n\r\n' not in head:
            head += own.connection.recv(1 << 16)
        status, (_, _, body) = head[:12], head.partition(b'\r\n\r\n')
        if status not in (b'HTTP/1.1 200', b'HTTP/1.1 206'):
            raise ValueError(str(head))
        buffer, at = _room.take(size), len(body)
        buffer[:at] = body
        while at < size:
            count = own.connection.recv_into(buffer[at:])
            if not count:
                raise ValueError(f'{at} bytes of {size}')
            at += count
        return buffer

    return read


def _signed_oci(url: str, options: tuple, key: str) -> tuple[str, str, dict[str, str]]:
    from streaming.store.oci import OCIOptions
    from streaming.store.oci.login import find_credential

    parsed = OCIOptions.parse(url, {})
    assert parsed.endpoint is not None
    host = urlsplit(parsed.endpoint).netloc
    target = f'/n/{parsed.namespace}/b/{parsed.bucket}/o/{quote(parsed.prefix + key, safe="")}'
    # Good for five minutes; a call takes seconds.
    return host, target, find_credential(parsed).sign('GET', host, target, email.utils.formatdate(usegmt=True))


def _signed_s3(url: str, options: tuple, key: str) -> tuple[str, str, dict[str, str]]:
    client, parsed = _s3_client(url, options)
    signed = client.generate_presigned_url('get_object', Params={'Bucket': parsed.bucket, 'Key': parsed.prefix + key})
    parts = urlsplit(signed)
    return parts.netloc, f'{parts.path}?{parts.query}', {}


_READERS: dict[str, Callable[[str, tuple, str, bool], Read]] = {
    'ours': ours,
    'ours get': ours_get,
    'content': content,
    'stream': stream,
    'boto3': boto3,
    'obstore': obstore,
    'socket': bare_socket,
}

"""The server as a command: `python -m streaming.testing.oci --bucket data`. Ends with its standard input, or on Ctrl-C."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from streaming.errors import MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

USER = 'ocid1.user.oc1..streamingtestuser'
TENANCY = 'ocid1.tenancy.oc1..streamingtesttenancy'
NAMESPACE = 'standin'
REGION = 'us-ashburn-1'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m streaming.testing.oci', description=__doc__)
    parser.add_argument('--port', type=int, default=0, help='port on 127.0.0.1 (default: a free one)')
    parser.add_argument('--folder', type=Path, help='where objects lie (default: a temporary folder that goes with the server)')
    parser.add_argument('--bucket', action='append', default=[], help='a bucket to make; may be repeated')
    parser.add_argument('--latency-s', type=float, default=0.0, help='how long every request takes at least')
    parser.add_argument('--bytes-per-s', type=float, help='most bytes of a body a second, each connection')
    parser.add_argument('--json', action='store_true', help='say where the server is as a line of JSON')
    return parser.parse_args()


def write_login(folder: Path) -> 'tuple[Path, str, RSAPublicKey]':
    """Make an API key and a config file that names it: the file, the key's id, the public key."""
    import hashlib

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.md5(der, usedforsecurity=False).hexdigest()
    fingerprint = ':'.join(digest[i : i + 2] for i in range(0, 32, 2))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    key_file, config_file = folder / 'key.pem', folder / 'config'
    lines = ['[DEFAULT]', f'user={USER}', f'fingerprint={fingerprint}', f'tenancy={TENANCY}', f'region={REGION}']
    for path, data in ((key_file, pem), (config_file, '\n'.join([*lines, f'key_file={key_file}', '']).encode())):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'wb') as file:
            file.write(data)
    return config_file, f'{TENANCY}/{USER}/{fingerprint}', public


async def serve(arguments: argparse.Namespace, temporary: Path) -> None:
    """Serve until standard input ends."""
    import secrets

    try:
        from aiohttp import web

        from streaming.testing.oci.app import Service
    except ImportError as error:
        raise MissingExtraError(
            f"the stand-in server needs aiohttp: pip install 'streaming-dataset[testing]' ({error})"
        ) from error
    from streaming.testing.oci.objects import Objects

    folder = arguments.folder or temporary / 'objects'
    folder.mkdir(parents=True, exist_ok=True)
    objects = Objects(folder)
    for bucket in arguments.bucket:
        objects.create(bucket)
    config_file, key_id, public_key = write_login(temporary)
    token = secrets.token_hex(16)
    service = Service(
        NAMESPACE, objects, {key_id: public_key}, token, latency_s=arguments.latency_s, bytes_per_s=arguments.bytes_per_s
    )
    # Requests that stall on purpose are not waited for.
    runner = web.AppRunner(service.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', arguments.port, backlog=1024)
    await site.start()
    port = runner.addresses[0][1]
    where = {
        'endpoint': f'http://127.0.0.1:{port}',
        'config_file': str(config_file),
        'namespace': NAMESPACE,
        'control_token': token,
        'temporary': str(temporary),
    }
    if arguments.json:
        print(json.dumps(where), flush=True)
    else:
        buckets = ', '.join(objects.buckets) or 'none; make one with --bucket'
        print(f'OCI stand-in at {where["endpoint"]}, namespace {NAMESPACE}, buckets: {buckets}', flush=True)
        print(f'oci://BUCKET@{NAMESPACE}/PREFIX?endpoint={where["endpoint"]}&config_file={config_file}', flush=True)
    try:
        await _until_told(watch_input=arguments.json)
    finally:
        await runner.cleanup()


async def _until_told(*, watch_input: bool) -> None:
    """Return on SIGTERM or SIGINT or, when started by another program, when that one ends: its end of the pipe closes."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    if watch_input:
        loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 1) else done.set())
    await done.wait()


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix='streaming-oci-', ignore_cleanup_errors=True) as temporary,
        contextlib.suppress(KeyboardInterrupt),
    ):
        try:
            asyncio.run(serve(parse_arguments(), Path(temporary)))
        except (MissingExtraError, OSError) as error:
            sys.exit(str(error))


if __name__ == '__main__':
    main()

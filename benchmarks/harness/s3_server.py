"""A folder as an S3 server at some distance: every request waits, and a connection carries only so many bytes a second.

    python benchmarks/harness/s3_server.py FOLDER --latency-ms 30 --mb-per-s 80

Prints its URL and serves until its standard input ends. ``FOLDER/bucket/key`` is the object ``key``. It answers HEAD and GET,
with ranges, to whoever asks; ``GET /-/stats`` tells how many requests came and how many bytes of objects went out, and counts
from zero again. Bodies go from the page cache to the socket by sendfile, so that the server takes little of what it measures.
"""

import argparse
import json
import os
import re
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Bytes sent at once: 1/160 s of a connection of 80 MB/s.
STEP = 512 << 10


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: Path, latency_s: float, bytes_per_s: float) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.folder = folder
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.lock = threading.Lock()
        self.requests = self.sent = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients leave when they have what they want."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Server

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        if self.path == '/-/stats':
            self.tell()
        else:
            self.answer(with_body=True)

    def tell(self) -> None:
        with self.server.lock:
            body = json.dumps({'requests': self.server.requests, 'bytes': self.server.sent}).encode()
            self.server.requests = self.server.sent = 0
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, with_body: bool) -> None:
        time.sleep(self.server.latency_s)
        path = self.server.folder / unquote(urlsplit(self.path).path).lstrip('/')
        try:
            file = path.open('rb', buffering=0)
        except (FileNotFoundError, IsADirectoryError):
            self.refuse(404, 'NoSuchKey')
            return
        with file:
            status = os.fstat(file.fileno())
            start, stop = 0, status.st_size
            asked = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('range', ''))
            if asked is not None:
                start, stop = int(asked[1]), min(stop, int(asked[2]) + 1 if asked[2] else stop)
                if start >= stop:
                    self.refuse(416, 'InvalidRange')
                    return
            self.send_response(200 if asked is None else 206)
            self.send_header('content-length', str(stop - start))
            self.send_header('etag', f'"{status.st_mtime_ns:x}-{status.st_size:x}"')
            self.send_header('last-modified', formatdate(status.st_mtime, usegmt=True))
            self.send_header('accept-ranges', 'bytes')
            if path.name == 'index.json':
                # Workers of mosaicml-streaming inherit the client that fetched the index. On a connection that both of them went
                # on with they would read each other's answers.
                self.send_header('connection', 'close')
            if asked is not None:
                self.send_header('content-range', f'bytes {start}-{stop - 1}/{status.st_size}')
            self.end_headers()
            sent = self.send_paced(file.fileno(), start, stop) if with_body else 0
        with self.server.lock:
            self.server.requests += 1
            self.server.sent += sent

    def send_paced(self, source: int, start: int, stop: int) -> int:
        began, at = time.monotonic(), start
        while at < stop:
            at += os.sendfile(self.connection.fileno(), source, at, min(STEP, stop - at))
            early = began + (at - start) / self.server.bytes_per_s - time.monotonic()
            if early > 0:
                time.sleep(early)
        return stop - start

    def refuse(self, status: int, code: str) -> None:
        body = f'<Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
        self.send_response(status)
        self.send_header('content-type', 'application/xml')
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--latency-ms', type=float, default=30.0)
    parser.add_argument('--mb-per-s', type=float, default=80.0)
    args = parser.parse_args()
    server = Server(args.folder.absolute(), args.latency_ms / 1000, args.mb_per_s * 1e6)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f'http://127.0.0.1:{server.server_address[1]}', flush=True)
    sys.stdin.read()


if __name__ == '__main__':
    main()

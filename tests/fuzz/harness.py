"""Fuzz a target with atheris: ``python tests/fuzz/harness.py TARGET --seconds 60``. Ends with 1 at a finding, which it prints."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=['streaming']):
    from targets import TARGETS, seeds, try_one


def fuzz(options: argparse.Namespace) -> None:
    """Fuzz in this process, which atheris ends without cleaning up."""
    corpus = options.corpus or Path(tempfile.mkdtemp())
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(options.target)):
        (corpus / f'seed-{number}').write_bytes(data)
    limits = ['-rss_limit_mb=2048', '-timeout=10', '-max_len=20000', f'-max_total_time={options.seconds}']
    atheris.Setup(
        [sys.argv[0], str(corpus), f'-artifact_prefix={options.findings or corpus}/', '-print_final_stats=1', *limits],
        lambda data: try_one(options.target, data),
    )
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('target', choices=TARGETS)
    parser.add_argument('--seconds', type=int, default=60, help='how long (default: 60)')
    parser.add_argument('--corpus', type=Path, help='a folder of inputs to go on from, and to add to. Default: begin anew')
    parser.add_argument('--findings', type=Path, help='a folder for inputs that failed. Default: none, they are only printed')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        fuzz(options)
        return 0
    with tempfile.TemporaryDirectory(prefix='streaming-fuzz-') as folder:
        command = [sys.executable, __file__, *sys.argv[1:], '--child']
        return subprocess.run(command, env={**os.environ, 'TMPDIR': folder}, check=False).returncode


if __name__ == '__main__':
    sys.exit(main())

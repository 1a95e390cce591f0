"""Fuzz a target with atheris: ``python tests/fuzz/harness.py TARGET --seconds 60``. Ends with 1 at a finding, which it prints."""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=['streaming']):
    from targets import TARGETS, seeds, try_one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('target', choices=TARGETS)
    parser.add_argument('--seconds', type=int, default=60, help='how long (default: 60)')
    parser.add_argument('--findings', type=Path, help='a folder for inputs that failed. Default: none, they are only printed')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='streaming-fuzz-corpus-') as corpus:
        for number, data in enumerate(seeds(options.target)):
            (Path(corpus) / f'seed-{number}').write_bytes(data)
        artifacts = f'{options.findings or corpus}/'
        limits = ['-rss_limit_mb=2048', '-timeout=10', '-max_len=20000', f'-max_total_time={options.seconds}']
        atheris.Setup(
            [sys.argv[0], corpus, f'-artifact_prefix={artifacts}', '-print_final_stats=1', *limits],
            lambda data: try_one(options.target, data),
        )
        atheris.Fuzz()


if __name__ == '__main__':
    main()

"""Run every benchmark, keep their lines in a file, and write docs/benchmarks.md from it. `make bench` calls this.

With --results it only writes the page, from the lines of an earlier run.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from harness.bench import SIZES
from harness.process import BENCHMARKS, ROOT
from report.page import page
from report.plots import draw_all
from report.results import Results

# In this order on the page. store.py compares clients of a store and not datasets; run it by itself.
STAGES = ('read', 'batch', 'write', 'index', 'start', 'order', 'stream', 'evict', 'soak')
_DRAWN = ('read/', 'batch/', 'write/', 'start/', 'stream/')


def measure(size: str, out: Path) -> None:
    """Run the stages one after the other; one that fails is named, and the others go on."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    for stage in STAGES:
        script = BENCHMARKS / f'{stage}.py'
        if not script.exists():
            continue
        print(f'{stage}...', file=sys.stderr, flush=True)
        with subprocess.Popen([sys.executable, str(script), '--size', size, '--out', str(out)]) as running:
            try:
                code = running.wait()
            except BaseException:
                running.terminate()
                raise
        if code:
            print(f'{stage} ended with {code}', file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=SIZES, default='small', help='default: small')
    parser.add_argument('--results', type=Path, help='write the page from this file instead of measuring')
    parser.add_argument('--out', type=Path, default=ROOT / '.bench' / 'results.jsonl', help='default: .bench/results.jsonl')
    parser.add_argument('--docs', type=Path, default=ROOT / 'docs', help='default: docs')
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.results is None:
        measure(arguments.size, arguments.out)
    results = Results.load(arguments.results or arguments.out)
    drawn = [name for name in results.found if name.startswith(_DRAWN)]
    draw_all(results, drawn, arguments.docs / 'img')
    text = page(results, f'make bench{"" if arguments.size == "small" else f" SIZE={arguments.size}"}', drawn)
    (arguments.docs / 'benchmarks.md').write_text(text)
    print(f'wrote {arguments.docs / "benchmarks.md"}', file=sys.stderr)


if __name__ == '__main__':
    main()

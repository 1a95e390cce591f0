"""A benchmark's run: its arguments, its contenders, and the rounds in which they take turns."""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.machine import describe_machine
from harness.process import ROOT, Contender

__all__ = ['PEERS', 'SIZES', 'Bench', 'Call', 'call']

# The packages with a virtual environment of their own, which `make bench-setup` makes.
PEERS = ('mosaicml', 'litdata', 'webdataset')

# tiny: does it run at all; small: what `make bench` runs; full: as large as the claims are.
SIZES = ('tiny', 'small', 'full')

Call = tuple[str, dict[str, Any]]


def call(function: str, **arguments: Any) -> Call:
    """A call of ``module:function`` in a contender's process. Arguments and result are what JSON has."""
    return function, arguments


class Bench:
    """One run of a benchmark script. A context manager: at the end all processes and files are gone.

    A contender is named by a string. Its first word says whose Python runs it: that of a peer, or this one (``ours``, ``limit``).

    Args:
        stage: The script's name.
        doc: What it measures; for ``--help``.
        workloads: Those it knows; ``--workloads`` picks among them. Default: none.
        arguments: The command line. Default: None, that of the process.

    Attributes:
        size: One of `SIZES`.
        folder: Where data may be written; emptied at the end.
        workloads: Those to run.
        inputs: Where inputs that take long to make may stay for other runs; None where they may not.
    """

    def __init__(
        self, stage: str, doc: str | None, *, workloads: Sequence[str] = (), arguments: Sequence[str] | None = None
    ) -> None:
        parsed = _parse(stage, doc, workloads, arguments)
        self.stage = stage
        self.size: str = parsed.size
        self.rounds: int = parsed.rounds or (1 if self.size == 'tiny' else 3)
        self.workloads: list[str] = parsed.workloads
        self.inputs: Path | None = parsed.inputs and parsed.inputs.absolute()
        self._only: list[str] | None = parsed.only
        self._out: Path | None = parsed.out
        self._stack = ExitStack()
        # Told to end, it ends as it would by itself: without processes and files left.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self._peers = parsed.bench
        self._contenders: dict[str, Contender] = {}
        self.folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix=f'streaming-bench-{stage}-', dir=parsed.folder))
        )
        for peer in PEERS:
            if self._wanted(peer) and not self._python(peer).exists():
                print(f'{peer} is left out: there is no {self._python(peer)}; `make bench-setup` makes it', file=sys.stderr)
        self._write({'name': 'machine', 'stage': stage, 'size': self.size, 'rounds': self.rounds, **describe_machine()})

    def by_size(self, tiny: Any, small: Any, full: Any) -> Any:
        """The value for this run's size."""
        return {'tiny': tiny, 'small': small, 'full': full}[self.size]

    def has(self, contender: str) -> bool:
        """Whether the contender takes part: it is asked for, and there where it is a peer."""
        owner = contender.split()[0]
        return self._wanted(owner) and (owner not in PEERS or self._python(owner).exists())

    def prepare(self, contender: str, made: Call, limit_s: float = 600) -> dict[str, Any]:
        """Make a call that is not measured.

        Raises:
            RuntimeError: it failed.
        """
        answer = self._process(contender).call(*made, limit_s)
        if 'error' in answer:
            raise RuntimeError(f'{contender} could not prepare {made}: {answer["error"]}')
        return answer

    def remove(self, *folders: Path) -> None:
        """Remove data that is no longer needed; what does not exist is fine."""
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def compare(
        self,
        name: str,
        workload: str,
        unit: str,
        calls: Mapping[str, Call],
        *,
        more_is_better: bool | None = None,
        rounds: int | None = None,
        fresh: bool = False,
        limit_s: float = 120,
        parts: Mapping[str, tuple[str, str]] | None = None,
        same: Sequence[str] = (),
    ) -> dict[str, dict[str, Any]]:
        """Let the contenders take turns, each round another first; print a line of JSON for each and return them.

        Args:
            name: What is measured, ``stage/what``.
            workload: With what.
            unit: Of the values.
            calls: For each contender what it calls. Those that do not take part are left out.
            more_is_better: Default: None, whether the unit is something a second.
            rounds: Default: None, as the command line says.
            fresh: Whether every call gets a process of its own.
            limit_s: How long a call may take.
            parts: What the same calls have measured beside ``value``: its key in their answers -> name and unit of its own lines.
            same: Keys of the answers whose values must be those of ours; a round with others failed.

        Returns:
            For each contender ``value`` (the median), ``rounds`` (all values), ``ours_over`` and ``limit_over`` (how many times
            better ours, and the limit, are than this one), ``peak_rss_mb`` (the most of all rounds) and what the calls noted of
            the last round; ``failures`` where not all rounds went well; ``error`` where none did.
        """
        names = [contender for contender in calls if self.has(contender)]
        answers: dict[str, list[dict[str, Any]]] = {contender: [] for contender in names}
        for turn in range(self.rounds if rounds is None else rounds):
            first = turn % max(1, len(names))
            for contender in (*names[first:], *names[:first]):
                process = self._process(contender)
                answers[contender].append(process.call(*calls[contender], limit_s))
                if fresh:
                    process.close()
        _fail_differing(answers, same)
        for contender, given in answers.items():
            for answer in given:
                if 'error' in answer:
                    print(f'{name} {workload} {contender}: {answer["error"]}', file=sys.stderr)
        more = unit.endswith('/s') if more_is_better is None else more_is_better
        results = _summaries(answers, 'value', more)
        self._write_results(name, workload, unit, results)
        for key, (part, part_unit) in (parts or {}).items():
            self._write_results(part, workload, part_unit, _summaries(answers, key, part_unit.endswith('/s')))
        return results

    def _write_results(self, name: str, workload: str, unit: str, results: dict[str, dict[str, Any]]) -> None:
        for contender, result in results.items():
            self._write({'name': name, 'workload': workload, 'contender': contender, 'unit': unit, 'size': self.size, **result})

    def _wanted(self, contender: str) -> bool:
        return self._only is None or contender in self._only

    def _python(self, peer: str) -> Path:
        return Path(self._peers) / peer / 'bin' / 'python'

    def _process(self, contender: str) -> Contender:
        """A process for each package: one's caches are nobody else's."""
        owner = contender.split()[0]
        found = self._contenders.get(owner)
        if found is None:
            found = self._contenders[owner] = Contender(self._python(owner) if owner in PEERS else None)
            self._stack.callback(found.close)
        return found

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line)
        print(text, flush=True)
        if self._out is not None:
            with self._out.open('a') as file:
                file.write(text + '\n')

    def __enter__(self) -> 'Bench':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.close()


def _fail_differing(answers: dict[str, list[dict[str, Any]]], same: Sequence[str]) -> None:
    ours = next((answer for answer in answers.get('ours', ()) if 'error' not in answer), {})
    for given in answers.values():
        for answer in given:
            differing = [key for key in same if key in answer and answer[key] != ours.get(key, answer[key])]
            if differing:
                answer['error'] = '; '.join(f'{key} is {answer[key]}, ours has {ours[key]}' for key in differing)


def _summaries(answers: dict[str, list[dict[str, Any]]], key: str, more: bool) -> dict[str, dict[str, Any]]:
    """Of one measured key for each contender: the median and how much better the best are."""
    results = {name: _summary(given, key) for name, given in answers.items()}
    for ratio, best in (('ours_over', results.get('ours')), ('limit_over', results.get('limit'))):
        for result in results.values():
            if best is not None and best.get('value') and result.get('value'):
                better = best['value'] / result['value'] if more else result['value'] / best['value']
                result[ratio] = round(better, 3)
    return results


def _summary(given: list[dict[str, Any]], key: str) -> dict[str, Any]:
    answers = [answer for answer in given if 'error' not in answer]
    if not answers:
        return {'error': given[0]['error'] if given else 'no rounds'}
    values = [answer[key] for answer in answers]
    noted = {name: value for name, value in answers[-1].items() if name not in (key, 'value', 'peak_rss_mb', 'rss_before_mb')}
    return {
        'value': statistics.median(values),
        'rounds': values,
        'peak_rss_mb': max(answer['peak_rss_mb'] for answer in answers),
        'rss_before_mb': answers[0]['rss_before_mb'],
        **noted,
        **({'failures': len(given) - len(answers)} if len(given) > len(answers) else {}),
    }


def _parse(stage: str, doc: str | None, workloads: Sequence[str], arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f'{stage}.py', description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=SIZES, default='small', help='default: small')
    parser.add_argument('--rounds', type=int, help='default: 3, of tiny 1')
    parser.add_argument('--only', nargs='+', metavar='CONTENDER', help='default: ours, limit and the peers that are there')
    parser.add_argument('--workloads', nargs='+', choices=workloads or None, default=list(workloads), help='default: all')
    parser.add_argument('--folder', type=Path, help='where to write the data. Default: where temporary files go')
    parser.add_argument(
        '--inputs',
        type=Path,
        help='a folder for inputs that take long to make, where the next run finds them. Default: none stay',
    )
    parser.add_argument('--out', type=Path, help='append the lines to this file too')
    parser.add_argument(
        '--bench',
        type=Path,
        default=Path(os.environ.get('BENCH') or ROOT / '.bench').absolute(),
        help="the peers' virtual environments. Default: $BENCH, else .bench",
    )
    return parser.parse_args(arguments)

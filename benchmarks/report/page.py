"""docs/benchmarks.md: the targets and how far we are, and every measurement."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from report.plots import file_name
from report.results import Results
from report.targets import TARGETS, Verdict

__all__ = ['page']

_TITLES = {
    'read/random': 'Random access',
    'read/iterate': 'Iterating',
    'batch/0_workers': 'Batches, in the training process',
    'batch/2_workers': 'Batches, with two workers',
    'write/none': 'Writing, without compression',
    'write/zstd+xxh64': 'Writing, with zstd and xxh64',
    'index/load': 'Loading an index',
    'start/first_batch': 'Starting',
    'stream/first_batch': 'First batch from a store',
    'stream/epoch': 'Cold epoch from a store',
    'evict/replayed': 'Eviction, replayed',
    'evict/fetched': 'Eviction, fetched',
    'soak/growth': 'Memory over many epochs',
    'order/first_batch': 'The order',
}
_PEERS = {'mosaicml': 'mosaicml-streaming', 'litdata': 'litData', 'webdataset': 'webdataset'}


def page(results: Results, command: str, drawn: list[str]) -> str:
    """The whole page, as Markdown."""
    parts = [_head(results, command), _targets(results)]
    for name, workloads in results.found.items():
        parts.append(_measurement(name, workloads, drawn=name in drawn))
    return '\n\n'.join(parts) + '\n'


def _head(results: Results, command: str) -> str:
    machine = results.machine
    versions = ', '.join(
        [f'{_PEERS[name]} {results.versions[name]}' for name in _PEERS if name in results.versions]
        + [f'{name} {found}' for name, found in machine['versions'].items()]
    )
    return f"""# Benchmarks

Made by `{command}`; do not edit. Every script of `benchmarks/` runs all packages in turn, each in a process of its
own, for {_span(results.rounds)} rounds, and the medians are shown. Compare within a workload: nothing else was measured in turn.
Absolute numbers are those of one machine at one time, and ratios are the claim. The limit is what Python and NumPy, a codec or a
socket must do with the same bytes at the least.

| | |
|---|---|
| machine | {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']} |
| versions | Python {machine['python']}, {versions} |
| size | {machine['size']} |

{_stages(results)}"""


def _stages(results: Results) -> str:
    """When each stage ran, and beside what: a page may be put together from several runs."""
    rows = ['| stage | began | commit | load before it | rounds |', '|---|---|---|---|---|']
    for stage in results.stages:
        what = (stage['stage'], stage['time'], stage['commit'], f'{stage["load"]:g}', stage['rounds'])
        rows.append('| ' + ' | '.join(map(str, what)) + ' |')
    cores = results.machine['cores']
    rows += ['', f'A load of more than {cores} means that other programs ran too: whatever waits looks slow in such a stage.']
    return '\n'.join(rows)


def _span(values: Sequence[float]) -> str:
    least, most = min(values), max(values)
    return f'{least:g}' if least == most else f'{least:g} to {most:g}'


def _targets(results: Results) -> str:
    rows = ['## What it must reach', '', '| work | aim | measured | reached |', '|---|---|---|---|']
    for target in TARGETS:
        verdicts = target.judge(results)
        rows.append(f'| {target.work} | {target.aim} | {"; ".join(found.measured for found in verdicts)} | {_say(verdicts)} |')
    whys = []
    for target, work in zip(TARGETS, _works(), strict=True):
        if target.why and _missed(target.judge(results)):
            whys.append(f'- {work}, {target.aim}: {target.why}')
    return '\n'.join([*rows, *(['', 'What keeps us from the rest:', '', *whys] if whys else [])])


def _works() -> list[str]:
    """Of each target; where it has none, it is that of the one before."""
    return list(accumulate((target.work for target in TARGETS), lambda before, work: work or before))


def _missed(verdicts: list[Verdict]) -> bool:
    return any(found.reached is False for found in verdicts)


def _say(verdicts: list[Verdict]) -> str:
    known = [found.reached for found in verdicts if found.reached is not None]
    if not known:
        return '?'
    if all(known):
        return 'yes'
    return f'{sum(known)} of {len(known)}' if any(known) else 'no'


def _measurement(name: str, workloads: dict[str, dict[str, dict[str, Any]]], drawn: bool) -> str:
    rows = [f'## {_TITLES.get(name, name)}', '', f'`{name}`, `python benchmarks/{name.partition("/")[0]}.py`.', '']
    if drawn:
        rows += [f'![{name}](img/{file_name(name)})', '']
    rows += ['| workload | | median | ours is | the limit is | peak RSS, worker |', '|---|---|---|---|---|---|']
    for workload, lines in workloads.items():
        for contender, line in lines.items():
            rows.append(f'| {workload} | {contender} | {_value(line)} |')
    return '\n'.join(rows)


def _value(line: dict[str, Any]) -> str:
    if 'error' in line:
        return f'failed: {line["error"][:100]} | | | '
    value = line['value']
    shown = f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'
    failures = f', {line["failures"]} of {line["failures"] + len(line["rounds"])} rounds failed' if 'failures' in line else ''
    ratios = [f'{line[key]:.3g}x' if key in line else '' for key in ('ours_over', 'limit_over')]
    memory = f'{line["peak_rss_mb"]:.0f} MB' + (f', {line["peak_rss_worker_mb"]:.0f} MB' if 'peak_rss_worker_mb' in line else '')
    return f'{shown} {line["unit"]}{failures} | {ratios[0]} | {ratios[1]} | {memory}'

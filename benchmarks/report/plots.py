"""A plot for each measurement that compares packages: bars in groups, on a logarithmic axis."""

from pathlib import Path
from typing import Any

from report.results import Results

__all__ = ['draw_all', 'file_name']

_COLOURS = {'limit': '#b8b8b8', 'ours': '#0b6e4f', 'mosaicml': '#d1495b', 'litdata': '#edae49', 'webdataset': '#6c8ebf'}


def file_name(name: str) -> str:
    """Of a measurement's plot."""
    return ''.join(letter if letter.isalnum() else '-' for letter in name) + '.svg'


def draw_all(results: Results, names: list[str], folder: Path) -> None:
    """Draw the measurements of these names into a folder."""
    import matplotlib

    matplotlib.use('svg')
    # The same results give the same file.
    matplotlib.rcParams.update({'svg.hashsalt': 'streaming', 'svg.fonttype': 'none', 'font.size': 9})
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        _draw(name, results.found[name], folder / file_name(name))


def _draw(name: str, workloads: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout='constrained')
    shown = [contender for contender in _COLOURS if any('value' in lines.get(contender, {}) for lines in workloads.values())]
    width = 0.8 / max(1, len(shown))
    unit = next(line['unit'] for lines in workloads.values() for line in lines.values())
    for place, contender in enumerate(shown):
        bars = [
            (group + (place - (len(shown) - 1) / 2) * width, lines[contender]['value'])
            for group, lines in enumerate(workloads.values())
            if 'value' in lines.get(contender, {})
        ]
        axes.bar([at for at, _ in bars], [value for _, value in bars], width, label=contender, color=_COLOURS[contender])
    axes.set_yscale('log')
    axes.set_ylabel(unit)
    axes.set_title(name)
    axes.set_xticks(range(len(workloads)), list(workloads), rotation=12 if len(workloads) > 3 else 0)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, ncols=len(shown), loc='upper center', bbox_to_anchor=(0.5, -0.18))
    figure.savefig(path, metadata={'Date': None})
    pyplot.close(figure)
    # No spaces at the ends of lines, as in all of the repository.
    path.write_text('\n'.join(line.rstrip() for line in path.read_text().splitlines()) + '\n')

"""Does mosaicml-streaming read what we write, do we read what it writes, and do both give samples in one order?

Every encoding, codec and kind of hash, the text formats, all its shuffles, and states saved by one and loaded by the other, with
the real package in its own virtual environment (`make bench-setup`). Prints a line a comparison; ends with 1 where one failed.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.process import ROOT, Contender

COUNT = 60
CODECS = (None, 'zstd', 'zstd:9', 'gz', 'br', 'bz2', 'snappy')
HASHES = ('blake2b', 'md5', 'sha1', 'sha256', 'sha3_512', 'sha512', 'xxh32', 'xxh64', 'xxh128', 'xxh3_64')
# What is read are not the values that were written: JPEG's loss, and its arrays are given as files.
LOSSY = ('jpeg', 'jpeg_array', 'jpegarray', 'list_jpeg')
SHUFFLES = (None, 'naive', 'py1s', 'py2s', 'py1br', 'py1e')


class Comparison:
    """Both packages, and how many comparisons came out equal."""

    def __init__(self, theirs: Path, folder: Path) -> None:
        self.contenders = {'ours': Contender(), 'mosaicml': Contender(theirs)}
        self.folder = folder
        self.equal = self.different = 0

    def call(self, who: str, function: str, **arguments: Any) -> Any:
        """What a function of `contenders.compat` gives under one of the packages; an error as a string."""
        answer = self.contenders[who].call(f'contenders.compat:{function}', arguments, 300)
        return answer.get('error', answer)

    def note(self, what: str, left: Any, right: Any) -> None:
        """Print whether two things are equal, and where they differ."""
        if left == right and not isinstance(left, str):
            self.equal += 1
            print(f'equal      {what}')
            return
        self.different += 1
        print(f'DIFFERENT  {what}: {_difference(left, right)}')

    def values(self) -> None:
        """Every encoding under every codec and kind of hash, both ways."""
        given = self.call('ours', 'expected', count=COUNT)['value']
        lossless = {name: digests for name, digests in given.items() if name not in LOSSY}
        for number, codec in enumerate(CODECS):
            hashes = HASHES[number::7]
            for writer in self.contenders:
                folder = self.folder / f'{writer}-{number}'
                self.call(writer, 'write', folder=folder, count=COUNT, compression=codec, hashes=hashes)
                ours, theirs = (_value(self.call(reader, 'read', folder=folder)) for reader in ('ours', 'mosaicml'))
                what = f'{len(given)} columns of {COUNT} samples written by {writer}, {codec or "no codec"}, {", ".join(hashes)}'
                self.note(f'{what}: as read by ours and by mosaicml', ours, theirs)
                read = {name: ours[name] for name in lossless if name in ours} if isinstance(ours, dict) else ours
                self.note(f'{what}: as given and as read by ours', read, lossless)

    def text(self) -> None:
        """The text formats, both ways."""
        for kind in ('json', 'csv', 'tsv', 'xsv'):
            for writer in self.contenders:
                folder = self.folder / f'{writer}-{kind}'
                self.call(writer, 'write_text', folder=folder, kind=kind, count=COUNT, compression='zstd')
                ours, theirs = (_value(self.call(reader, 'read', folder=folder)) for reader in ('ours', 'mosaicml'))
                self.note(f'{kind} written by {writer}: as read by ours and by mosaicml', ours, theirs)

    def orders(self) -> None:
        """Two epochs of every shuffle, and the rest of an epoch after the other's state."""
        folder = self.folder / 'ours-0'
        for shuffle in SHUFFLES:
            for workers, nodes in ((0, 1), (2, 2)):
                ours, theirs = (
                    _value(self.call(who, 'order', folder=folder, algorithm=shuffle, workers=workers, canonical_nodes=nodes))
                    for who in ('ours', 'mosaicml')
                )
                self.note(f'two epochs, shuffle {shuffle}, {workers} workers, {nodes} canonical nodes', ours, theirs)
            for saver, loader in (('ours', 'mosaicml'), ('mosaicml', 'ours')):
                saved = self.call(saver, 'resume', folder=folder, algorithm=shuffle, state=None)
                loaded = self.call(
                    loader, 'resume', folder=folder, algorithm=shuffle, state=saved['state'] if isinstance(saved, dict) else {}
                )
                went_on = loaded['value'] + loaded['rest'] if isinstance(loaded, dict) else loaded
                self.note(
                    f'shuffle {shuffle}: the rest of an epoch, state saved by {saver}, loaded by {loader}',
                    went_on,
                    saved['rest'] if isinstance(saved, dict) else saved,
                )


def _value(answer: Any) -> Any:
    return answer['value'] if isinstance(answer, dict) else answer


def _difference(left: Any, right: Any) -> str:
    if isinstance(left, dict) and isinstance(right, dict):
        names = [name for name in sorted({*left, *right}) if left.get(name) != right.get(name)]
        return f'columns {", ".join(names)}'
    return f'{str(left)[:200]} | {str(right)[:200]}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--bench', type=Path, default=Path(os.environ.get('BENCH') or ROOT / '.bench').absolute())
    python = parser.parse_args().bench / 'mosaicml' / 'bin' / 'python'
    if not python.exists():
        sys.exit(f'there is no {python}; `make bench-setup` makes it')
    with tempfile.TemporaryDirectory(prefix='streaming-compatible-') as folder:
        comparison = Comparison(python, Path(folder))
        try:
            comparison.values()
            comparison.text()
            comparison.orders()
        finally:
            for contender in comparison.contenders.values():
                contender.close()
    print(f'{comparison.equal} comparisons equal, {comparison.different} different')
    sys.exit(1 if comparison.different else 0)


if __name__ == '__main__':
    main()

"""The demo's corpus: source text as windows of byte tokens."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WINDOW = 512

COLUMNS = {'id': 'int', 'file': 'str', 'tokens': f'ndarray:uint8:{WINDOW}'}


def standard_library() -> Path:
    """The folder of this Python's own standard library sources."""
    return Path(sysconfig.get_paths()['stdlib'])


def source_files(folder: Path) -> list[Path]:
    """Text files below a folder, in a fixed order; of the standard library its modules, without tests and installed packages."""
    skipped = {'site-packages', 'dist-packages', '__pycache__', 'test', 'tests', 'idle_test', 'lib2to3', 'lib-dynload'}
    library = folder == standard_library()
    files = (path for path in folder.rglob('*.py' if library else '*') if path.is_file())
    return sorted(path for path in files if not (library and skipped & set(path.relative_to(folder).parts)))


def windows(folder: Path, limit_bytes: int) -> Iterator[dict[str, object]]:
    """Cut the text into samples of `WINDOW` tokens; what is left of a file at its end is padded with spaces.

    Args:
        folder: Where the text files are.
        limit_bytes: Stop after this much text.
    """
    number, taken = 0, 0
    for path in source_files(folder):
        data = path.read_bytes()[: max(0, limit_bytes - taken)]
        taken += len(data)
        for start in range(0, len(data), WINDOW):
            text = data[start : start + WINDOW].ljust(WINDOW)
            tokens = np.frombuffer(text, np.uint8)
            yield {'id': number, 'file': str(path.relative_to(folder)), 'tokens': tokens}
            number += 1
        if taken >= limit_bytes:
            return

"""The documentation: its pictures are made by the library, and its links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parent.parent / 'docs'
PAGES = [DOCS.parent / 'README.md', DOCS.parent / 'CONTRIBUTING.md', *sorted(DOCS.rglob('*.md'))]


# What commands write and a checkout may lack.
GENERATED = {DOCS / 'benchmarks.md'}


@pytest.mark.parametrize('page', PAGES, ids=[page.name for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r'\]\(([^)#]+)[^)]*\)', page.read_text()):
        if '://' not in target:
            assert (page.parent / target).exists() or page.parent / target in GENERATED, f'{page.name}: {target}'


@pytest.mark.skipif(importlib.util.find_spec('matplotlib') is None, reason='pictures need matplotlib')
def test_pictures_are_those_that_the_library_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DOCS / 'pictures.py', '--out', tmp_path], check=True, timeout=100)
    from PIL import Image

    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in (DOCS / 'img').glob('order-*'))
    for name in made:
        fresh, kept = (np.asarray(Image.open(folder / name).convert('L'), np.int16) for folder in (tmp_path, DOCS / 'img'))
        # Fonts and edges differ a little by matplotlib's version, the pictures do not.
        assert fresh.shape == kept.shape
        assert float(np.abs(fresh - kept).mean()) < 2, f'docs/img/{name} is old: python docs/pictures.py'

"""What users install: the wheel and the sdist hold the whole package and nothing else, wherever they are built."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ('streaming', 'readers', 'writers')


def sources() -> set[str]:
    """Every source file of the checkout, under the name that it is imported by; the two links are not walked."""
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob('*.py'):
            inside = path.relative_to(ROOT)
            if '__pycache__' in inside.parts or inside.parts[:2] in {('streaming', 'readers'), ('streaming', 'writers')}:
                continue
            found.add(str(inside if folder == 'streaming' else PurePosixPath('streaming') / inside))
    return found


def test_setup_cfg_lists_every_package() -> None:
    config = ConfigParser()
    config.read(ROOT / 'setup.cfg')
    listed = config['options']['packages'].split()
    assert listed == sorted(listed)
    assert set(listed) == {'.'.join(PurePosixPath(name).parent.parts) for name in sources()}


def test_every_package_has_an_init() -> None:
    folders = {PurePosixPath(name).parent for name in sources()}
    assert {str(folder / '__init__.py') for folder in folders} <= sources()


def test_the_links_lead_from_the_package_to_the_folders() -> None:
    for name in ('readers', 'writers'):
        assert (ROOT / 'streaming' / name).readlink() == Path('..') / name


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, built from the sdist, and the sdist, built from a copy of the checkout."""
    checkout, out = tmp_path_factory.mktemp('checkout'), tmp_path_factory.mktemp('dist')
    for name in ('setup.cfg', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md', 'CHANGELOG.md', 'constraints.txt'):
        shutil.copy(ROOT / name, checkout / name)
    for name in (*FOLDERS, 'tests'):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__', 'golden'))
    command = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', str(out), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_the_wheel_is_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob('streaming_dataset-0.1.0-*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if '.dist-info/' not in name}
    assert inside == sources() | {'streaming/py.typed'}
    assert any(name.endswith('licenses/LICENSE') for name in names)


@pytest.mark.slow
def test_the_sdist_has_what_building_needs_and_no_tests(built: Path) -> None:
    (sdist,) = built.glob('streaming_dataset-0.1.0.tar.gz')
    with tarfile.open(sdist) as archive:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    assert {
        'setup.cfg',
        'pyproject.toml',
        'LICENSE',
        'README.md',
        'streaming/py.typed',
        'readers/mds.py',
        'writers/mds.py',
    } <= names
    assert not any(name.startswith(('tests', 'benchmarks', 'streaming/readers', 'streaming/writers')) for name in names)


@pytest.mark.slow
def test_the_installed_wheel_imports_away_from_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob('*.whl')
    target, elsewhere = tmp_path / 'site', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'install', '--quiet', '--no-deps', '--no-index']
    subprocess.run([*pip, '--target', str(target), str(wheel)], check=True, timeout=60)
    code = f"""
import sys
sys.path.insert(0, {str(target)!r})
import streaming
assert streaming.__file__.startswith({str(target)!r}), streaming.__file__
for name in streaming.__all__:
    getattr(streaming, name)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=elsewhere, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

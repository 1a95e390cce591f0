"""docs/cli.md: its session runs as it stands there, and prints what it says."""

import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / 'docs' / 'cli.md'
SESSION = '\n'.join(re.findall(r'^```console\n(.*?)^```', DOCS.read_text(), re.MULTILINE | re.DOTALL))


def test_the_session(command: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / 'session'
    folder.mkdir()
    commands = re.findall(r'^\$ (.*)$', SESSION, re.MULTILINE)
    # Each command is followed by a mark, to tell its lines from the next one's.
    script = '\n'.join([f'streaming() {{ {" ".join(command)} "$@"; }}', *(f'{line}\necho "--- $?"' for line in commands)])
    done = subprocess.run(
        ['bash', '-c', script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    said = re.split(r'^--- 0\n', done.stdout, flags=re.MULTILINE)
    wanted = re.split(r'^\$ .*\n', SESSION, flags=re.MULTILINE)[1:]
    assert len(said) == len(wanted) + 1 and said[-1] == '', done.stdout
    for line, ours, theirs in zip(commands, said, wanted, strict=False):
        pattern = re.escape(theirs.strip()).replace(r'\.\.\.', '.*')
        assert re.fullmatch(pattern, ours.strip()), f'$ {line}\n{ours}'

"""What all commands have in common: help, errors, exit status, completion."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from streaming.cli.app import app

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback is not None]
GROUPS = ['cache ls', 'cache clear']

Run = Callable[..., 'subprocess.CompletedProcess[str]']


def test_help_names_every_command_and_says_what_the_exit_status_means(run: Run) -> None:
    text = run('--help').stdout
    assert all(f' {name} ' in text for name in COMMANDS)
    assert 'Exit status' in text
    assert run(status=2).stdout.strip() == text.strip()


@pytest.mark.parametrize('name', [*COMMANDS, *GROUPS])
def test_help_of_a_command_has_examples_in_its_own_lines(name: str) -> None:
    lines = [line.strip() for line in CliRunner().invoke(app, [*name.split(), '-h']).output.splitlines()]
    examples = lines[lines.index('Examples:') + 1 :]
    assert examples[0].startswith(f'streaming {name}')


def test_version(run: Run) -> None:
    assert run('--version').stdout.startswith('streaming-dataset ')


def test_our_errors_are_a_line_and_secrets_stay_out_of_it(run: Run) -> None:
    done = run('inspect', 'nowhere', status=1)
    assert done.stdout == ''
    assert done.stderr.startswith('error: ') and len(done.stderr.splitlines()) == 1
    assert 'nowhere/index.json does not exist' in done.stderr
    done = run('inspect', 'nothing://bucket/x?token=hunter2', status=1)
    assert 'no store serves nothing://' in done.stderr and 'hunter2' not in done.stderr


def test_usage_errors(run: Run) -> None:
    assert 'No such command' in run('nonsense', status=2).stderr
    assert 'Missing argument' in run('inspect', status=2).stderr
    assert '--samples' in run('inspect', 'x', '--samples', '-1', status=2).stderr


def test_debug_shows_the_traceback(run: Run) -> None:
    assert 'NotFoundError' in run('inspect', 'nowhere', status=1, STREAMING_DEBUG='1').stderr


def test_completion(run: Run) -> None:
    assert (
        '_STREAMING_COMPLETE=complete_bash'
        in run('--show-completion', 'bash', _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION='1').stdout
    )
    words = run(_STREAMING_COMPLETE='complete_bash', COMP_WORDS='streaming ins', COMP_CWORD='1').stdout
    assert words.split() == ['inspect']


def test_without_typer_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from streaming.cli import main; main()"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the command line needs typer: pip install 'streaming-dataset[cli]'\n"

"""What a hostile bucket may hold stays text."""

import pytest

from streaming.cli.output import print_rows, say


def test_what_steers_a_terminal_is_shown_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    say('shard\x1b]0;title\x07\ud800 [red]ü\nnext')
    print_rows([('a\x1b[2Jb', '[bold]x'), ('c', '')])
    assert capsys.readouterr().out.splitlines() == [
        r'shard\x1b]0;title\x07\ud800 [red]ü',
        'next',
        r'a\x1b[2Jb  [bold]x',
        'c',
    ]

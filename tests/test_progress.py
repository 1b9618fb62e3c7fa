"""Progress is sparse without a terminal."""

import sys

import pytest

from mos_fairseq.progress import progress


def test_a_log_gets_a_line_at_each_tenth(capsys):
    with progress(total=1000, unit="run", desc="measuring") as bar:
        for number in range(1000):
            bar.set_postfix(number=number)
            bar.update()
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 11 and lines[-1] == ""
    assert [f"{100 * tenth}/1000 [" in line for tenth, line in enumerate(lines[:-1], start=1)] == [True] * 10
    assert all(line.startswith("measuring: ") for line in lines[:-1])


def test_a_total_that_turns_out_smaller(capsys):
    with progress(total=50) as bar:
        bar.update(3)
        bar.total = bar.n
    assert "3/3 [" in capsys.readouterr().err


def test_one_that_breaks_off_says_no_more(capsys):
    with pytest.raises(KeyboardInterrupt), progress(total=10) as bar:
        bar.update(2)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.count("\n") == 1


def test_a_terminal_gets_a_bar_that_moves(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(total=1000, mininterval=0) as bar:
        for _ in range(1000):
            bar.update()
    assert capsys.readouterr().err.count("\r") > 500

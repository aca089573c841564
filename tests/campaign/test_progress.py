"""Progress for people and logs, and a Ctrl-C that cannot get lost."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys

import pytest
from rich.console import Console

from onnes.campaign.progress import Interrupt, Progressing


def test_lines_of_a_log_say_what_was_done():
    text = io.StringIO()
    with Progressing(["check", "relax"], Console(file=text, width=200)) as watcher:
        watcher.begin("check", 5, 2)
        watcher.advance("check", 2, 0)
        watcher.advance("check", 2, 1)
        watcher.end("check")
    lines = text.getvalue().splitlines()
    assert lines[0] == "1/2 check: 2 of 5 already in the ledger"
    assert lines[1].startswith("1/2 check: 5/5, 4 passed, 1 out")


def test_more_crystals_than_expected_are_counted():
    text = io.StringIO()
    with Progressing(["read"], Console(file=text, width=200)) as watcher:
        watcher.begin("read", 2, 0)
        for _ in range(5):
            watcher.advance("read", 1, 0)
        watcher.end("read")
    assert text.getvalue().startswith("1/1 read: 5/5, 5 passed")


def test_terminal_shows_a_bar():
    text = io.StringIO()
    with Progressing(["relax"], Console(file=text, width=200, force_terminal=True)) as watcher:
        watcher.begin("relax", 4, 0)
        watcher.advance("relax", 3, 1)
        watcher.end("relax")
    assert "3 passed, 1 out" in text.getvalue() and "4/4" in text.getvalue()


class Closing:
    """Its destructor is interrupted: Python alone would swallow that."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass


def test_interrupt_inside_a_destructor_is_not_lost(capsys):
    before = sys.unraisablehook
    with Interrupt() as interrupt:
        one = Closing()
        try:
            del one
            gc.collect()
        except KeyboardInterrupt:
            pytest.skip("this Python raised it outside the destructor")
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    assert "Traceback" not in capsys.readouterr().err
    assert sys.unraisablehook is before

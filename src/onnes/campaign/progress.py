"""How far a run is, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

#: Seconds between two lines of one stage when nobody watches a terminal.
EVERY_S = 15.0


class _Counts(ProgressColumn):
    """Passed and failed."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['passed']} passed, {task.fields['failed']} out")


class Interrupt:
    """Ctrl-C that cannot get lost.

    Python drops a KeyboardInterrupt that happens to arrive inside a destructor or a callback of the garbage
    collector, and prints a traceback. Here it is remembered and raised again at the next `check`.
    """

    def __init__(self) -> None:
        self.asked = False
        self._old: Any = None
        self._hook = sys.unraisablehook

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGINT, self._handle)
        sys.unraisablehook = self._unraisable
        return self

    def __exit__(self, *exc: object) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)
        sys.unraisablehook = self._hook

    def check(self) -> None:
        """Raise what was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    def _handle(self, *_: object) -> None:
        self.asked = True
        raise KeyboardInterrupt

    def _unraisable(self, what: Any) -> None:
        if not isinstance(what.exc_value, KeyboardInterrupt):
            self._hook(what)


class Progressing:
    """A watcher that draws; use it in a ``with`` statement.

    Parameters
    ----------
    stages : list of str
        In the order they will run.
    console : rich Console, optional
        Where to draw; stderr by default.
    """

    def __init__(self, stages: list[str], console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.stages = stages
        self._tasks: dict[str, int] = {}
        self._state: dict[str, list[float]] = {}
        self._interrupt = Interrupt()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            _Counts(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )

    def __enter__(self) -> Progressing:
        self._interrupt.__enter__()
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()
        self._interrupt.__exit__()

    def begin(self, stage: str, total: int, kept: int) -> None:
        """Start the line of a stage."""
        self._interrupt.check()
        place = f"{self.stages.index(stage) + 1}/{len(self.stages)} " if stage in self.stages else ""
        self._state[stage] = [total, 0, 0, time.monotonic(), time.monotonic()]
        task = self._bar.add_task(f"{place}{stage}", total=total, passed=0, failed=0)
        self._tasks[stage] = int(task)
        if kept:
            self.console.print(f"{place}{stage}: {kept} of {total} already in the ledger")

    def advance(self, stage: str, passed: int, failed: int) -> None:
        """Count verdicts."""
        self._interrupt.check()
        state = self._state[stage]
        state[1] += passed
        state[2] += failed
        if state[1] + state[2] > state[0]:  # how many crystals a file holds is known at its end
            state[0] = state[1] + state[2]
            self._bar.update(self._tasks[stage], total=state[0])  # type: ignore[arg-type]
        self._bar.update(
            self._tasks[stage],  # type: ignore[arg-type]
            completed=state[1] + state[2],
            passed=int(state[1]),
            failed=int(state[2]),
        )
        if not self.console.is_terminal and time.monotonic() - state[4] > EVERY_S:
            state[4] = time.monotonic()
            self._line(stage)

    def end(self, stage: str) -> None:
        """Close the line of a stage."""
        if not self.console.is_terminal:
            self._line(stage)

    def _line(self, stage: str) -> None:
        total, passed, failed, began, _ = self._state[stage]
        done, spent = passed + failed, time.monotonic() - began
        left = f", about {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
        place = f"{self.stages.index(stage) + 1}/{len(self.stages)} " if stage in self.stages else ""
        self.console.print(
            f"{place}{stage}: {done:.0f}/{total:.0f}, {passed:.0f} passed, {failed:.0f} out, {spent:.0f} s{left}"
        )

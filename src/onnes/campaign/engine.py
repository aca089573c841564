"""Who computes a campaign: processes of this machine, or a cluster through Parsl. The answers are the same.

The driver alone writes the ledger and counts the attempts; an engine runs tasks and says which of its workers died
(`onnes.parallel`). What an engine has started is on record while it runs, so that the next driver can end what a
killed one left behind.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnes.campaign.engine_leftovers import end_leftovers
from onnes.campaign.settings import EnginePart
from onnes.errors import SettingsError
from onnes.parallel import Engine, Workers

#: Takes the present record of an engine, to be kept where a later driver finds it; called by the driver's thread.
Note = Callable[[dict[str, Any]], None]


def check_engine(part: EnginePart, out: Path) -> None:
    """Refuse an engine that this machine cannot start; called before a run is made or touched.

    Parameters
    ----------
    part : EnginePart
    out : Path
        Folder of the run.

    Raises
    ------
    SettingsError
        ``no-parsl``, ``no-slurm``, ``bad-setting``.
    """
    if part.kind == "local":
        return
    folder = _folder(part, out)
    if not re.fullmatch(r"[\w@%+=:,./-]+", str(folder)):
        where = f'engine.folder = "{folder}"' if part.folder else f'--out "{folder.parent}"'
        raise SettingsError(
            "bad-setting",
            f"{where}: Parsl writes shell scripts there and cannot quote; use a path of letters, digits and _ . / -"
            + ("" if part.folder else ", or set engine.folder to one"),
        )
    if importlib.util.find_spec("parsl") is None:
        raise SettingsError(
            "no-parsl",
            f'engine.kind = "{part.kind}" needs Parsl, which is not installed: pip install "onnes[cluster]"; '
            '"local" needs nothing',
        )
    if part.kind == "slurm":
        missing = [p for p in ("sbatch", "squeue", "scancel") if shutil.which(p) is None]
        if missing:
            raise SettingsError(
                "no-slurm",
                f'engine.kind = "slurm": {", ".join(missing)} not found on the PATH; start onnes on a node that '
                "submits jobs",
            )


@contextmanager
def open_engine(
    part: EnginePart, workers: int, out: Path, held: Mapping[str, Any] | None, note: Note
) -> Iterator[Engine]:
    """Give the engine of the settings, after ending what an earlier one left; it is always closed.

    Parameters
    ----------
    part : EnginePart
    workers : int
        Processes where ``part.workers`` is 0.
    out : Path
        Folder of the run; certificates and logs go to its ``engine/``.
    held : mapping or None
        Record of the last engine of this run.
    note : callable
        See `Note`.

    Raises
    ------
    SettingsError
        Those of `check_engine`.
    EngineError
        ``leftover-jobs``; the record is then left as it is.
    """
    check_engine(part, out)
    if held and held.get("token"):
        end_leftovers(held)
        note({"kind": held.get("kind"), "host": held.get("host")})
    engine = _make(part, part.workers or workers, out, note)
    with _ended_by_sigterm():
        try:
            yield engine
        finally:
            engine.close()


def _make(part: EnginePart, workers: int, out: Path, note: Note) -> Engine:
    if part.kind == "local":
        return Workers(workers, part.retries)
    from onnes.campaign.engine_parsl import ParslEngine, machine, slurm

    shape = machine(workers) if part.kind == "parsl" else slurm(part)
    return ParslEngine(shape, _folder(part, out), part.retries, note)


def _folder(part: EnginePart, out: Path) -> Path:
    """Where Parsl keeps its scripts and logs."""
    return Path(part.folder or out / "engine").absolute()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM (a batch system, a shutdown) close everything, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        # Once: a second one must not interrupt the closing.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

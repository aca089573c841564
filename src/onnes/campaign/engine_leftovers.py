"""What a killed driver leaves behind, found again and ended before the work goes on.

An engine gives all it starts a token of its own: in the environment of its processes, in the names of its jobs. The
token is on record before the first process starts, so nothing escapes between start and record.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from onnes.parallel import EngineError

#: Environment variable that carries the token.
VARIABLE = "ONNES_ENGINE"


def end_leftovers(entry: Mapping[str, Any] | None) -> int:
    """End the processes and jobs of an engine that was not closed.

    Parameters
    ----------
    entry : mapping or None
        What the engine had put on record: ``token``, ``host``, ``interchange`` (process id), ``jobs`` (of Slurm).

    Returns
    -------
    int
        How many processes and jobs were ended.

    Raises
    ------
    EngineError
        ``leftover-jobs``: Slurm does not say which jobs there are, and does not cancel those on record. The record must
        be kept.
    """
    if not entry or not entry.get("token"):
        return 0
    token = str(entry["token"])
    recorded = [str(job) for job in entry.get("jobs") or []]
    jobs = _cancel_jobs(token, recorded) if entry.get("kind") == "slurm" else 0
    # Elsewhere its processes end by themselves: with their interchange gone, workers leave after the heartbeat.
    here = entry.get("host") == socket.gethostname()
    return jobs + (_end_processes(token) if here else 0)


def processes_of(token: str) -> list[int]:
    """Ids of the living processes of this machine that carry a token (Linux)."""
    mark = f"{VARIABLE}={token}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _end_processes(token: str, patience_s: float = 10.0) -> int:
    ended: set[int] = set()
    deadline = time.monotonic() + patience_s
    # Again until none is left: one that is being started may not have been there at the first look.
    while (found := processes_of(token)) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                ended.add(pid)
        time.sleep(0.05)
    return len(ended)


def job_prefix(token: str) -> str:
    """How the names of an engine's jobs begin (Parsl names a job after its executor)."""
    return f"parsl.onnes-{token}."


def _cancel_jobs(token: str, recorded: list[str], patience_s: float = 60.0) -> int:
    if shutil.which("scancel") is None:
        return 0
    found = _jobs_of(token)
    if found is None:
        # Slurm does not list them. What is on record can be cancelled by its number.
        if not recorded or not _cancelled(recorded):
            raise EngineError(
                "leftover-jobs",
                f"Slurm does not list the jobs of an earlier driver (squeue fails), {len(recorded)} on record, and "
                "they cannot be cancelled; try again when squeue works",
            )
        found = recorded
    elif found:
        _cancelled(found)
    deadline = time.monotonic() + patience_s
    # A job that is ending may still write into the folder of its task; no answer is not "none".
    while found and _jobs_of(token) != [] and time.monotonic() < deadline:
        time.sleep(0.5)
    return len(found)


def _cancelled(jobs: list[str]) -> bool:
    """Cancel jobs; False where Slurm did not take the order. One that has ended already is no failure."""
    try:
        done = subprocess.run(["scancel", *jobs], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    errors = done.stderr.strip().lower().splitlines()
    gone = ("invalid job id", "already complet")
    return done.returncode == 0 or (bool(errors) and all(any(g in line for g in gone) for line in errors))


def _jobs_of(token: str) -> list[str] | None:
    jobs = _jobs()
    return None if jobs is None else [job for job, name in jobs if name.startswith(job_prefix(token))]


def _jobs() -> list[tuple[str, str]] | None:
    """Ids and names of this user's jobs; None where Slurm does not say."""
    command = ["squeue", "--noheader", "--me", "--format=%i %j"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    lines = (line.split(maxsplit=1) for line in done.stdout.splitlines())
    return [(parts[0], parts[1]) for parts in lines if len(parts) == 2]

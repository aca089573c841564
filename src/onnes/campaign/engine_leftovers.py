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
    """
    if not entry or not entry.get("token"):
        return 0
    token = str(entry["token"])
    jobs = _cancel_jobs(token) if entry.get("kind") == "slurm" else 0
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


def _cancel_jobs(token: str, patience_s: float = 60.0) -> int:
    if shutil.which("scancel") is None:
        return 0
    found = _jobs_of(token)
    if found:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["scancel", *found], capture_output=True, timeout=60)
    deadline = time.monotonic() + patience_s
    # A job that is ending may still write into the folder of its task.
    while found and _jobs_of(token) and time.monotonic() < deadline:
        time.sleep(0.5)
    return len(found)


def _jobs_of(token: str) -> list[str]:
    return [job for job, name in _jobs() if name.startswith(job_prefix(token))]


def _jobs() -> list[tuple[str, str]]:
    """Ids and names of this user's jobs."""
    command = ["squeue", "--noheader", "--me", "--format=%i %j"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = (line.split(maxsplit=1) for line in done.stdout.splitlines())
    return [(parts[0], parts[1]) for parts in lines if len(parts) == 2]

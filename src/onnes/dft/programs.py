"""The executables of Quantum ESPRESSO on this machine, and one guarded execution of one of them."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from onnes.dft.failures import Failure, Reason
from onnes.dft.plan import Program, Step
from onnes.errors import InputError

# Loaded before any fork: between fork and exec nothing may wait for a lock.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
#: Seconds between looks at a running program and at the free disk.
LOOK_S = 1.0
#: Seconds a program has to end when it is asked to.
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Programs:
    """Where the programs are and how pw.x is started.

    Attributes
    ----------
    paths : dict of Program to str
    processes : int
        MPI processes of pw.x, one k-point pool each; every other program runs serially, several q side by side.
    """

    paths: dict[Program, str]
    processes: int = 1

    def command(self, step: Step) -> list[str]:
        """Command line of a step, to be run in its folder."""
        line = [self.paths[step.program], "-in", step.input_name]
        if step.program is not Program.PW or self.processes == 1:
            return line
        # Without pools the FFT is divided, which for small cells takes twice as long.
        launcher = ["mpirun", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
        if shutil.which("setpriv"):
            # Killed with its parent, mpirun would leave its ranks running; asked to end, it ends them.
            launcher = ["setpriv", "--pdeathsig", "TERM", *launcher]
        return [*launcher, "-n", str(self.processes), line[0], "-nk", str(self.processes), *line[1:]]


def find_programs(folder: Path | None = None, processes: int = 1) -> Programs:
    """Look for the programs in a folder or on the PATH.

    Raises
    ------
    InputError
        ``no-qe``: names what is missing.
    """
    found = {p: shutil.which(str(p), path=None if folder is None else str(folder)) for p in Program}
    missing = [str(p) for p, path in found.items() if path is None]
    if processes > 1 and shutil.which("mpirun") is None:
        missing.append("mpirun")
    if missing:
        raise InputError(
            "no-qe",
            f"{', '.join(missing)} not found {'on the PATH' if folder is None else f'in {folder}'}: install Quantum "
            "ESPRESSO (Debian: quantum-espresso); --dry-run needs none",
        )
    return Programs({p: str(Path(path).absolute()) for p, path in found.items() if path}, processes)


def free_MB(folder: Path) -> float:
    """Free space of a folder's disk."""
    return shutil.disk_usage(folder).free / 1e6


def execute(
    command: list[str],
    folder: Path,
    output: Path,
    *,
    floor_MB: float,
    stopped: Callable[[], bool] = lambda: False,
    look_s: float = LOOK_S,
    processes: int = 1,
) -> tuple[int, Failure | None]:
    """Run a program to its end, watching the disk.

    Parameters
    ----------
    command : list of str
    folder : Path
        Working directory.
    output : Path
        Standard output; standard error goes beside it, with the ending ``.err``.
    floor_MB : float
        The program is ended when the disk has less free: it would go on writing empty files without a word.
    stopped : callable
        Asked at every look; True ends the program.
    look_s : float
        Seconds between looks.
    processes : int
        MPI processes that the command starts.

    Returns
    -------
    (int, Failure or None)
        Exit code (negative: signal), and why it was ended here.
    """
    with open(output, "wb") as out, open(output.with_suffix(".err"), "wb") as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=_environment(processes),
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        ended: Failure | None = None
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=look_s), ended
                if ended is None and free_MB(folder) < floor_MB:
                    ended = Failure(
                        Reason.DISK_FULL, f"less than {floor_MB:.0f} MB free: ended before it was full"
                    )
                    _end(process)
                elif ended is None and stopped():
                    ended = Failure(Reason.STOPPED, "ended with the run")
                    _end(process)
        except BaseException:
            _end(process)
            raise


def _environment(processes: int) -> dict[str, str]:
    """Environment of a program: one thread, and as many slots for mpirun as there are processes.

    A Slurm job of one task with many cores (what Parsl asks for) has a single slot in the eyes of Open MPI, which then
    refuses to start. Without Slurm's variables it takes the node for its own and counts the cores it may use.
    """
    found = {**os.environ, "OMP_NUM_THREADS": "1"}
    tasks = found.get("SLURM_NTASKS", found.get("SLURM_NPROCS", ""))
    if "SLURM_JOB_ID" in found and (int(tasks) if tasks.isdigit() else 1) < processes:
        return {key: value for key, value in found.items() if not key.startswith(("SLURM_", "PMI"))}
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program with all it started: QE has nothing worth saving that a restart would trust.

    Asked first, because the ranks of a killed mpirun are in groups of their own and run on.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, kill -9 included (Linux)."""
    with suppress(OSError, AttributeError):
        if _LIBC is not None:
            _LIBC.prctl(1, signal.SIGKILL)

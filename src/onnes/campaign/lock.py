"""The lock of a run folder: one driver at a time, released by the kernel when its process dies."""

from __future__ import annotations

import datetime
import fcntl
import getpass
import json
import os
import socket
from pathlib import Path

from onnes.errors import LedgerError

LOCK_NAME = "driver.lock"


class DriverLock:
    """Exclusive lock on a file, held until `release` or the end of the process, however it ends.

    Parameters
    ----------
    path : Path
        The lock file. It is created when missing and left behind: only the kernel's lock counts, so a
        stale file never blocks a run.

    Raises
    ------
    LedgerError
        ``run-in-use`` naming the process that holds the lock; ``unwritable-run``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        try:
            # Not inherited by the workers (PEP 446): a worker that outlives the driver holds nothing.
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LedgerError("unwritable-run", f"cannot write in {path.parent}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            raise LedgerError(
                "run-in-use",
                f"{path.parent} is in use by {holder}; wait for it, stop it, or use another folder",
            ) from None
        except OSError as error:
            os.close(fd)
            raise LedgerError(
                "no-lock", f"{path} cannot be locked: {error.strerror}; use a local disk"
            ) from None
        self._fd = fd
        self._sign()

    def _sign(self) -> None:
        text = json.dumps(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            }
        )
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text.encode(), 0)
        except OSError:
            pass  # A full disk: the lock itself holds, only its signature is missing.

    def release(self) -> None:
        """Let another driver in. Harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def me() -> str:
    """Return who runs this process: user, host, process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name, as in some containers
        user = f"uid {os.getuid()}"
    return f"{user} on {socket.gethostname()}, process {os.getpid()}"


def driver(folder: Path) -> str:
    """Who drives the run in a folder now; empty when nobody does (or nobody can tell: no lock file yet)."""
    try:
        fd = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(fd)
    except OSError:
        return ""
    finally:
        # Closing lets go of the shared lock at once.
        os.close(fd)
    return ""


def _holder(fd: int) -> str:
    try:
        entry = json.loads(os.pread(fd, 4096, 0).decode())
        return f"process {entry['pid']} on {entry['host']} since {entry['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "another process"

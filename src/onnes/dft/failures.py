"""What went wrong in a run of Quantum ESPRESSO, by name, from what it left behind.

The exit code and ``JOB DONE.`` decide nothing: that line follows a self-consistent run that did not converge, a phonon
that did not, and a stop by ``max_seconds`` alike, and matdyn.x exits with 0 on imaginary modes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a step is not done."""

    SCF_NOT_CONVERGED = "scf-not-converged"
    RELAX_NOT_CONVERGED = "relax-not-converged"
    PH_NOT_CONVERGED = "ph-not-converged"
    WALLTIME = "walltime"
    STOPPED = "stopped-by-user"
    MISSING_PSEUDOPOTENTIAL = "missing-pseudopotential"
    BAD_INPUT = "bad-input"
    NO_SCF = "no-scf"
    NO_DENSE_SCF = "no-dense-scf"
    RECOVERED = "recovered-run"
    S_MATRIX = "s-matrix-not-positive-definite"
    DIAGONALISATION = "diagonalisation-failed"
    SYMMETRY = "wrong-symmetry"
    GRID = "incomplete-q-grid"
    WRONG_CHARGE = "wrong-charge"
    FERMI_LEVEL = "no-fermi-level"
    OVERLAP = "overlapping-atoms"
    DIVERGED = "diverged"
    DISK_FULL = "disk-full"
    OUT_OF_MEMORY = "out-of-memory"
    FILE = "file-damaged"
    CRASH = "crash"
    KILLED = "killed"
    TRUNCATED = "truncated"
    NOT_A_NUMBER = "not-a-number"
    NOT_QE = "not-this-program"
    NOTHING = "no-output"
    UNSTABLE = "imaginary-modes"
    INCONSISTENT = "inconsistent"
    INSULATOR = "insulator"
    MAGNETIC = "magnetic"


@dataclass(frozen=True)
class Failure:
    """A named reason.

    Attributes
    ----------
    reason : Reason
    detail : str
        One line: the program's own words where it had any.
    """

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.detail} [{self.reason}]"


# Words in lower case, searched in this order in standard output, standard error and CRASH: causes first, then what they
# bring about. Plain words, because a phonon output is megabytes long and is read again at every restart.
_CAUSES: list[tuple[Reason, tuple[str, ...]]] = [
    (Reason.DISK_FULL, ("no space left on device", "disk quota exceeded")),
    (
        Reason.OUT_OF_MEMORY,
        (
            "cannot allocate memory",
            "out of memory",
            "oom-kill",
            "oom_kill",
            "insufficient virtual memory",
            "allocation would exceed memory limit",
            "insufficient memory",
        ),
    ),
    (Reason.WALLTIME, ("maximum cpu time exceeded", "due to time limit", "exceeded limit", "sigterm")),
    (Reason.STOPPED, ("program stopped by user request",)),
    (Reason.RECOVERED, ("warning: file closed at level",)),
]
_EFFECTS: list[tuple[Reason, tuple[str, ...]]] = [
    (Reason.S_MATRIX, ("s matrix not positive definite", "problems computing cholesky")),
    (
        Reason.DIAGONALISATION,
        ("too many bands are not converged", "eigenvectors failed to converge"),
    ),
    (
        Reason.SYMMETRY,
        ("wrong representation", "wrong symmetry", "fft grid incompatible with symmetry", "not a group"),
    ),
    (Reason.GRID, ("missing q-point", "wrong number of q", "q-point list breaks symmetry", "wrong nqs")),
    (Reason.WRONG_CHARGE, ("charge is wrong",)),
    (Reason.FERMI_LEVEL, ("cannot bracket ef",)),
    (
        Reason.DIVERGED,
        ("|ddv_scf|^2 =   infinity", "|ddv_scf|^2 =        nan", "root not converged        nan"),
    ),
    (Reason.SCF_NOT_CONVERGED, ("convergence not achieved",)),
    (Reason.PH_NOT_CONVERGED, ("no convergence has been achieved",)),
    (
        Reason.RELAX_NOT_CONVERGED,
        (
            "the maximum number of steps has been reached",
            "bfgs failed after",
            "history already reset",
            "de0s is positive",
        ),
    ),
    (Reason.FILE, ("fortran runtime error",)),
    (Reason.CRASH, ("segmentation fault", "sigsegv", "mpi_abort was invoked", "not enough slots")),
]
# Routine that stops the program -> reason, where its message is not one of the words above.
_ROUTINES: list[tuple[Reason, str]] = [
    (Reason.MISSING_PSEUDOPOTENTIAL, r"readpp|read_pseudo\w*|upf_\w+"),
    (Reason.BAD_INPUT, r"read_namelists|read_cards|iosys|read_input|phq_readin|card_\w+|input|reading_\w+"),
    (Reason.NO_SCF, r"check_tempdir|read_xml_file|pw_readfile|read_file|pw_restart\w*|qexsd\w*"),
    (Reason.S_MATRIX, r"potrf|cdiaghg.*cholesky"),
    (Reason.DIAGONALISATION, r"[cr]diaghg|c_bands|diag\w*"),
    (Reason.SYMMETRY, r"set_irr\w*|find_mode_sym\w*|sgama\w*|smallgq?|check_all_sym\w*|set_sym\w*|sym\w*"),
    (Reason.GRID, r"q_points|check_q_points\w*|q2r|set_defaults"),
    (Reason.DIVERGED, r"broyden|mix_pot\w*"),
    (Reason.FILE, r"davcio|diropn|seqopn|open_\w+|read_\w+"),
]
_ERROR = re.compile(
    r"(?:Error in routine|from)\s+(\w+)\s*(?:\(-?\d+\)\s*:|:\s*error\s*#\s*-?\d+)\s*\n([^\n]*)"
)
_OVERLAP = re.compile(r"atoms\s*#\s*\d+\s+and\s*#\s*\d+\s+(?:overlap|differ)[^\n]*")


def find_failure(
    output: str, *, stderr: str = "", crash: str = "", exit_code: int | None = None
) -> Failure | None:
    """Name what a program's own words say went wrong; None where they say nothing.

    Parameters
    ----------
    output : str
        Standard output.
    stderr, crash : str
        Standard error, and the file ``CRASH`` of the working directory.
    exit_code : int, optional
        137 and -9 (killed) count only where the text names nothing; other codes count for nothing.
    """
    sources = [(text, text.lower()) for text in (output, stderr, crash) if text]
    return (
        _by_words(_CAUSES, sources)
        or _without_dense(stderr)
        or _by_routine(sources)
        or _by_words(_EFFECTS, sources)
        or (Failure(Reason.KILLED, "killed (signal 9) without a word") if exit_code in (137, -9) else None)
    )


def _by_words(signs: list[tuple[Reason, tuple[str, ...]]], sources: list[tuple[str, str]]) -> Failure | None:
    for reason, words in signs:
        for text, lower in sources:
            for word in words:
                place = lower.find(word)
                if place >= 0:
                    start = text.rfind("\n", 0, place) + 1
                    end = text.find("\n", place)
                    return Failure(reason, _tidy(text[start : end if end >= 0 else None]))
    return None


def _by_routine(sources: list[tuple[str, str]]) -> Failure | None:
    """The program's own error message, by what it says, else by the routine that gave it."""
    for text, lower in sources:
        if "error in routine" not in lower and ": error #" not in lower:
            continue
        found = _ERROR.search(text)
        if found is None:
            continue
        message = _tidy(f"{found[1]}: {found[2].strip()}")
        overlap = _OVERLAP.search(text)
        if overlap:
            return Failure(Reason.OVERLAP, _tidy(overlap[0]))
        by_words = _by_words(_EFFECTS, [(message, message.lower())])
        if by_words is not None:
            return by_words
        for reason, pattern in _ROUTINES:
            if re.fullmatch(pattern, found[1], re.IGNORECASE):
                return Failure(reason, message)
        return Failure(Reason.CRASH, message)
    return None


def _without_dense(stderr: str) -> Failure | None:
    """The Fortran error of ph.x when the scf with la2F did not run before: it names the file it lacks."""
    if "a2Fsave" in stderr and "Fortran runtime error" in stderr:
        return Failure(Reason.NO_DENSE_SCF, "ph.x found no dense-grid scf (a2Fsave): run that first")
    return None


def _tidy(text: str) -> str:
    return " ".join(text.replace("%", " ").split())[:200]


def unfinished(output: str, exit_code: int | None = None) -> Failure:
    """Reason for an output that names no error and does not reach its end."""
    if not output.strip():
        return Failure(Reason.NOTHING, "no output")
    if exit_code in (137, -9):
        return Failure(Reason.KILLED, "killed (signal 9): the output stops in the middle")
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    return Failure(Reason.TRUNCATED, f"the output stops after: {last[:70]}")

"""What a step must have left on disk: on a full disk pw.x says ``JOB DONE.``, exits with 0 and writes empty files.

Checked here: the XML record, the density, every wave function by its exact size, ``a2Fsave``, and the files of one q.
The XML also tells an insulator from a metal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnes.dft.dyn_file import parse_dyn, parse_dyn0
from onnes.dft.elph_file import parse_elph
from onnes.dft.failures import Failure, Reason
from onnes.dft.qe_text import real
from onnes.units import UNITS

FloatArray = NDArray[np.float64]

_HA_EV = UNITS.Ha_to_K * UNITS.kB_meV / 1e3
#: A gap above this makes an insulator, eV: below, the smearing blurs it anyway.
GAP_EV = 0.05


@dataclass(frozen=True)
class ScfRecord:
    """``data-file-schema.xml``.

    Attributes
    ----------
    failure : Failure or None
    plane_waves : tuple of int
        Of every k-point.
    bands : int
    electrons : float
    fermi_eV : float
    gap_eV : float
        Between band nelec/2 and the next over the k-points of the run; 0 for a metal, and where the number of
        electrons is odd; nan with too few bands to tell.
    spin_polarised : bool
    """

    failure: Failure | None
    plane_waves: tuple[int, ...] = ()
    bands: int = 0
    electrons: float = float("nan")
    fermi_eV: float = float("nan")
    gap_eV: float = float("nan")
    spin_polarised: bool = False

    @property
    def insulator(self) -> bool:
        """Whether the k-points of the run show a gap wider than `GAP_EV`."""
        return self.gap_eV > GAP_EV


def parse_scf_record(text: str) -> ScfRecord:
    """Parse ``data-file-schema.xml``; never raises."""
    if not text.strip():
        return ScfRecord(Failure(Reason.NOTHING, "data-file-schema.xml is empty"))
    if not text.rstrip().endswith("</qes:espresso>"):
        return ScfRecord(Failure(Reason.TRUNCATED, "data-file-schema.xml is cut"))
    if "<convergence_achieved>true</convergence_achieved>" not in text:
        return ScfRecord(
            Failure(Reason.SCF_NOT_CONVERGED, "data-file-schema.xml does not say that the scf converged")
        )
    output = text[text.find("<band_structure>") :]
    levels = [
        np.array([real(x) for x in block.split()])
        for block in re.findall(r"<eigenvalues[^>]*>([^<]*)</eigenvalues>", output)
    ]
    waves = tuple(int(x) for x in re.findall(r"<npw>\s*(\d+)\s*</npw>", output))
    stated = re.search(r"<nks>\s*(\d+)\s*</nks>", output)
    electrons = _value("nelec", output)
    fermi = _value("fermi_energy", output) * _HA_EV
    spin = "<lsda>true</lsda>" in output
    count = int(stated[1]) if stated else 0
    if not levels or len(levels) != count or len(waves) != count or not np.isfinite([electrons]).all():
        return ScfRecord(Failure(Reason.INCONSISTENT, f"{len(levels)} of {count} k-points in the XML"))
    bands = len(levels[0])
    if any(len(level) != bands or not np.isfinite(level).all() for level in levels):
        return ScfRecord(Failure(Reason.NOT_A_NUMBER, "an eigenvalue is missing or not a number"))
    gap = _gap(np.array(levels) * _HA_EV, electrons, spin)
    return ScfRecord(None, waves, bands, electrons, fermi, gap, spin)


def check_scf(folder: str | Path, prefix: str, *, dense: bool = False) -> Failure | None:
    """Whether the scratch folder of a self-consistent run is whole.

    Parameters
    ----------
    folder : path
        ``outdir``.
    prefix : str
    dense : bool
        Whether ``prefix.a2Fsave`` must be there as well.
    """
    place = Path(folder)
    save = place / f"{prefix}.save"
    record = parse_scf_record(_text(save / "data-file-schema.xml"))
    if record.failure is not None:
        return record.failure
    if _size(save / "charge-density.dat") <= 0:
        return Failure(Reason.FILE, "charge-density.dat is missing or empty")
    for number, waves in enumerate(record.plane_waves, start=1):
        wanted, found = wave_function_bytes(waves, record.bands), _size(save / f"wfc{number}.dat")
        if found < wanted:
            return Failure(Reason.FILE, f"wfc{number}.dat has {max(found, 0)} of {wanted} bytes: full disk?")
    return check_a2fsave(_text(place / f"{prefix}.a2Fsave")) if dense else None


def wave_function_bytes(plane_waves: int, bands: int) -> int:
    """Size of ``wfcN.dat``: five Fortran records, integers of 4 bytes, one complex a plane wave and band."""
    return 52 + 24 + 80 + (12 * plane_waves + 8) + bands * (16 * plane_waves + 8)


def check_a2fsave(text: str) -> Failure | None:
    """Count the numbers of ``prefix.a2Fsave``: bands of the dense grid, its k-points, weights, symmetries."""
    words = text.split()
    if not words:
        return Failure(Reason.FILE, "a2Fsave is missing or empty: full disk?")
    try:
        bands, points = int(words[0]), int(words[1])
        at = 2 + points * (bands + 4) + 3
        operations = int(words[at])
    except (IndexError, ValueError):
        return Failure(Reason.TRUNCATED, "a2Fsave is cut")
    wanted = at + 1 + 10 * operations
    if len(words) < wanted or not text.endswith("\n"):
        return Failure(Reason.TRUNCATED, f"a2Fsave holds {len(words)} of {wanted} numbers")
    return None


def check_q(folder: str | Path, prefix: str, number: int, n_sigma: int) -> Failure | None:
    """Whether the working folder of one q has its dynamical matrix and its coupling at every broadening.

    Parameters
    ----------
    folder : path
    prefix : str
    number : int
        Of the irreducible q, from 1.
    n_sigma : int
    """
    place = Path(folder)
    grid = parse_dyn0(_text(place / f"{prefix}.dyn0"))
    if isinstance(grid, Failure):
        return grid
    if number > len(grid.q):
        return Failure(Reason.GRID, f"q {number} asked for, the grid has {len(grid.q)}")
    dyn = parse_dyn(_text(place / f"{prefix}.dyn{number}"))
    if dyn.failure is not None or dyn.star is None or dyn.omega_cm1 is None:
        return dyn.failure
    if np.abs(dyn.star[0] - grid.q[number - 1]).max() > 1e-6:
        return Failure(Reason.INCONSISTENT, f"dyn{number} is of another q than dyn0 lists")
    elph = parse_elph(_text(place / "elph_dir" / f"elph.inp_lambda.{number}"), n_sigma=n_sigma)
    if elph.failure is not None:
        return elph.failure
    # Single precision in one file, a square root of it in the other: 0.1 cm-1 is far above that.
    if np.abs(np.sort(elph.omega_cm1) - np.sort(dyn.omega_cm1)).max() > 0.1 + 1e-3 * dyn.omega_cm1.max():
        return Failure(Reason.INCONSISTENT, f"coupling and dynamical matrix of q {number} disagree")
    for s in range(1, n_sigma + 1):
        table = _text(place / "elph_dir" / f"a2Fq2r.{50 + s}.{number}")
        failure = _check_table(table, dyn.weight, dyn.atoms, s)
        if failure is not None:
            return failure
    return None


def _check_table(text: str, star: int, atoms: int, sigma: int) -> Failure | None:
    """``a2Fq2r``: a matrix for every star member."""
    numbers = re.sub(r"Dynamical  Matrix in cartesian axes|q = \(|\)", " ", text).split()
    wanted = 4 + star * (3 + atoms**2 * 20)
    if len(numbers) != wanted or not text.endswith("\n"):
        return Failure(Reason.TRUNCATED, f"a2Fq2r of broadening {sigma}: {len(numbers)} of {wanted} numbers")
    if not np.isfinite([real(x) for x in numbers]).all():
        return Failure(Reason.NOT_A_NUMBER, f"a2Fq2r of broadening {sigma}: an entry is not a number")
    return None


def _gap(levels_eV: FloatArray, electrons: float, spin: bool) -> float:
    if spin:
        # One <eigenvalues> holds both spins; without their occupations the question stays open.
        return float("nan")
    filled = electrons / 2.0
    if abs(filled - round(filled)) > 1e-6:
        return 0.0
    n = round(filled)
    if n >= levels_eV.shape[1]:
        return float("nan")
    return max(0.0, float(levels_eV[:, n].min() - levels_eV[:, n - 1].max()))


def _value(tag: str, text: str) -> float:
    found = re.search(rf"<{tag}>\s*([^<]*?)\s*</{tag}>", text)
    return real(found[1]) if found else float("nan")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="latin-1")
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1

"""Output of ``pw.x``: energy, Fermi level, bands at the gap, relaxed cell; done only when its content says so."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnes.dft.failures import Failure, Reason, find_failure, unfinished
from onnes.dft.qe_text import NUMBER, ended, finite, last, timing, whole_lines

FloatArray = NDArray[np.float64]

#: Bohr radius in A (CODATA 2018), as the output's lengths need it.
BOHR_A = 0.529177210903


@dataclass(frozen=True)
class PwOutput:
    """What a pw.x run says. Numbers are None where the output does not reach them.

    Attributes
    ----------
    failure : Failure or None
        Why the run is not done; None when it is complete and converged.
    version : str
    atoms, types, k_points, bands, symmetries : int or None
    electrons, ecutwfc_Ry, ecutrho_Ry, volume_A3, degauss_Ry : float or None
    smearing : bool
        Whether occupations are smeared.
    energy_Ry, accuracy_Ry : float or None
        Last total energy and estimated scf accuracy.
    fermi_eV, homo_eV, lumo_eV : float or None
        Fermi energy; highest occupied and lowest unoccupied levels with fixed occupations.
    iterations : int or None
        Of the last self-consistent cycle.
    force_Ry_bohr, pressure_kbar : float or None
        Last total force and pressure.
    magnetisation : float or None
        Last absolute magnetisation, Bohr magnetons a cell.
    lattice_A : ndarray, shape (3, 3), or None
        Final cell of a relaxation that ended.
    positions : tuple of (str, tuple of 3 float), or None
        Final fractional coordinates.
    ram_MB : float or None
        Estimated per process.
    cpu_s, wall_s : float or None
    """

    failure: Failure | None
    version: str = ""
    atoms: int | None = None
    types: int | None = None
    k_points: int | None = None
    bands: int | None = None
    symmetries: int | None = None
    electrons: float | None = None
    ecutwfc_Ry: float | None = None
    ecutrho_Ry: float | None = None
    volume_A3: float | None = None
    degauss_Ry: float | None = None
    smearing: bool = False
    energy_Ry: float | None = None
    accuracy_Ry: float | None = None
    fermi_eV: float | None = None
    homo_eV: float | None = None
    lumo_eV: float | None = None
    iterations: int | None = None
    force_Ry_bohr: float | None = None
    pressure_kbar: float | None = None
    magnetisation: float | None = None
    lattice_A: FloatArray | None = None
    positions: tuple[tuple[str, tuple[float, float, float]], ...] | None = None
    ram_MB: float | None = None
    cpu_s: float | None = None
    wall_s: float | None = None

    @property
    def done(self) -> bool:
        """Complete and converged."""
        return self.failure is None


def parse_pw(
    text: str, *, relax: bool = False, stderr: str = "", crash: str = "", exit_code: int | None = None
) -> PwOutput:
    """Parse the standard output of pw.x.

    Parameters
    ----------
    text : str
        Whole or cut anywhere.
    relax : bool
        Whether a relaxation was asked for: then its final cell or positions are required.
    stderr, crash, exit_code
        What else the run left; see `onnes.dft.failures.find_failure`.

    Returns
    -------
    PwOutput
        Never raises on text of any kind.
    """
    whole = whole_lines(text)
    cell, sites = _final_geometry(whole) if relax else (None, None)
    times = timing("PWSCF", whole)
    found = {
        "version": (re.findall(r"Program PWSCF v\.(\S+)", whole) or [""])[0],
        "atoms": _integer(r"number of atoms/cell\s+=\s+(\d+)\s", whole),
        "types": _integer(r"number of atomic types\s+=\s+(\d+)\s", whole),
        "k_points": _integer(r"number of k points=\s*(\d+)\s", whole),
        "bands": _integer(r"number of Kohn-Sham states=\s*(\d+)\s", whole),
        "symmetries": _symmetries(whole),
        "electrons": last(rf"number of electrons\s+=\s+{NUMBER}", whole),
        "ecutwfc_Ry": last(rf"kinetic-energy cutoff\s+=\s+{NUMBER}\s+Ry", whole),
        "ecutrho_Ry": last(rf"charge density cutoff\s+=\s+{NUMBER}\s+Ry", whole),
        "volume_A3": _volume(whole),
        "degauss_Ry": last(rf"smearing, width \(Ry\)=\s*{NUMBER}", whole),
        "smearing": "smearing, width (Ry)" in whole,
        "energy_Ry": last(rf"(?m)^!+\s+total energy\s+=\s+{NUMBER} Ry", whole),
        "accuracy_Ry": last(rf"estimated scf accuracy\s+<\s+{NUMBER} Ry", whole),
        "fermi_eV": last(rf"the Fermi energy is\s+{NUMBER} ev", whole),
        "homo_eV": last(rf"highest occupied(?:, lowest unoccupied)? level \(ev\):\s+{NUMBER}", whole),
        "lumo_eV": last(rf"highest occupied, lowest unoccupied level \(ev\):\s+[-\d.]+\s+{NUMBER}", whole),
        "iterations": _integer(r"convergence has been achieved in\s+(\d+)\s+iterations", whole),
        "force_Ry_bohr": last(rf"Total force =\s+{NUMBER}", whole),
        "pressure_kbar": last(rf"\(kbar\)\s+P=\s*{NUMBER}", whole),
        "magnetisation": last(rf"absolute magnetization\s+=\s+{NUMBER}", whole),
        "lattice_A": cell,
        "positions": sites,
        "ram_MB": _ram(whole),
        "cpu_s": times[0] if times else None,
        "wall_s": times[1] if times else None,
    }
    failure = _failure(text, whole, found, relax, stderr, crash, exit_code)
    return PwOutput(failure, **found)


def _failure(
    text: str,
    whole: str,
    found: dict[str, object],
    relax: bool,
    stderr: str,
    crash: str,
    exit_code: int | None,
) -> Failure | None:
    named = find_failure(whole, stderr=stderr, crash=crash, exit_code=exit_code)
    if named is not None:
        return named
    if not whole.strip():
        return unfinished(text, exit_code)
    if "Program PWSCF" not in whole:
        return Failure(Reason.NOT_QE, "this is no output of pw.x")
    if not ended("PWSCF", whole):
        return unfinished(text, exit_code)
    numbers = [found[name] for name in ("energy_Ry", "accuracy_Ry", "electrons", "volume_A3")]
    level = found["fermi_eV"] if found["smearing"] else found["homo_eV"]
    if not finite([*numbers, level]):  # type: ignore[list-item]
        return Failure(
            Reason.NOT_A_NUMBER, "energy, accuracy, level, electrons or volume missing or not finite"
        )
    if found["iterations"] is None or not _last_cycle_converged(whole):
        return Failure(Reason.SCF_NOT_CONVERGED, "the last self-consistent cycle does not say it converged")
    if "Writing output data file" not in whole:
        return Failure(Reason.TRUNCATED, "nothing says that the density was written")
    if relax and found["positions"] is None:
        return Failure(Reason.RELAX_NOT_CONVERGED, "no final coordinates: the relaxation did not end")
    return None


def _last_cycle_converged(text: str) -> bool:
    """Whether the last self-consistent cycle that began also converged."""
    begun = text.rfind("Self-consistent Calculation")
    return text.find("convergence has been achieved in", max(begun, 0)) >= 0


def _final_geometry(
    text: str,
) -> tuple[FloatArray | None, tuple[tuple[str, tuple[float, float, float]], ...] | None]:
    """Cell (None where it was fixed) and positions between the markers of a relaxation that converged."""
    block = re.search(r"Begin final coordinates\n([\s\S]*?)End final coordinates\n", text)
    if block is None or "End of BFGS Geometry Optimization" not in text:
        return None, None
    cell = None
    header = re.search(r"CELL_PARAMETERS \((\w+)(?:=\s*([\d.]+))?\)\n((?:.*\n){3})", block[1])
    if header:
        rows = np.array([[float(x) for x in line.split()] for line in header[3].splitlines()])
        scale = {"alat": float(header[2] or "nan") * BOHR_A, "bohr": BOHR_A, "angstrom": 1.0}.get(header[1])
        if rows.shape != (3, 3) or scale is None or not np.isfinite(scale):
            return None, None
        cell = rows * scale
    atoms = re.search(r"ATOMIC_POSITIONS \(crystal\)\n([\s\S]*)$", block[1])
    sites = []
    for line in atoms[1].splitlines() if atoms else ():
        words = line.split()
        if len(words) < 4:
            break
        sites.append((words[0], (float(words[1]), float(words[2]), float(words[3]))))
    return cell, tuple(sites) or None


def _integer(pattern: str, text: str) -> int | None:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else None


def _symmetries(text: str) -> int | None:
    count = _integer(r"(\d+) Sym\. Ops\.", text)
    return 1 if count is None and "No symmetry found" in text else count


def _volume(text: str) -> float | None:
    bohr3 = last(rf"unit-cell volume\s+=\s+{NUMBER} \(a\.u\.\)\^3", text)
    return None if bohr3 is None else bohr3 * BOHR_A**3


def _ram(text: str) -> float | None:
    found = re.findall(rf"Estimated max dynamical RAM per process >\s+{NUMBER}\s*(MB|GB)", text)
    return float(found[-1][0]) * (1024.0 if found[-1][1] == "GB" else 1.0) if found else None

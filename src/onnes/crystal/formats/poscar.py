"""VASP POSCAR and CONTCAR, versions 5 and 6 (version 4 only with symbols after the coordinates)."""

from __future__ import annotations

import numpy as np

from onnes.crystal.parsed import Parsed, Species, full_sites, parse_species
from onnes.errors import CrystalError, InputError, OnnesError


def parse(text: str) -> list[Parsed]:
    """Read a POSCAR.

    Parameters
    ----------
    text : str
        The file.

    Returns
    -------
    list of Parsed, length 1

    Raises
    ------
    InputError
        ``truncated``, ``bad-number``, ``no-elements``.
    CrystalError
        ``unknown-element``, ``zero-volume``.
    """
    lines = text.splitlines()
    if len(lines) < 8:
        raise InputError("truncated", f"a POSCAR has at least 8 lines, this one has {len(lines)}")
    lattice, scale = _cell(lines)
    names, counts, at = _composition(lines)
    selective = lines[at].strip()[:1] in ("s", "S") if at < len(lines) else False
    at += int(selective)
    if at >= len(lines) or not lines[at].strip():
        raise InputError("truncated", "the line 'Direct' or 'Cartesian' is missing")
    cartesian = lines[at].strip()[0] in "cCkK"
    rows = [line.split() for line in lines[at + 1 : at + 1 + sum(counts)]]
    if len(rows) < sum(counts) or any(len(row) < 3 for row in rows):
        raise InputError("truncated", f"{sum(counts)} atoms are announced, fewer coordinates follow")
    frac = np.array([[_float(x, "a coordinate") for x in row[:3]] for row in rows])
    if cartesian:
        frac = _to_fractional(frac * scale, lattice)
    species = _expand(names, counts) if names else _trailing(rows, 6 if selective else 3)
    return [Parsed(lattice, full_sites(species, frac))]


def _float(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError("bad-number", f"{what} is {text[:40]!r}, not a number") from error


def _cell(lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lattice in A and the factors on Cartesian coordinates."""
    words = lines[1].split()
    factors = [_float(x, "the scale") for x in words[:3] if x[:1] in "+-.0123456789"] if words else []
    rows = [line.split()[:3] for line in lines[2:5]]
    if len(factors) not in (1, 3) or any(len(row) < 3 for row in rows):
        raise InputError("truncated", "lines 2 to 5 of a POSCAR hold one scale and three vectors")
    lattice = np.array([[_float(x, "a lattice vector") for x in row] for row in rows])
    scale = np.array(factors)
    if len(scale) == 1 and scale[0] < 0:  # a negative scale is the volume
        volume = abs(float(np.linalg.det(lattice)))
        if volume == 0.0:
            raise CrystalError("zero-volume", "the lattice vectors span no volume")
        scale = np.array([float(np.cbrt(-scale[0] / volume))])
    return lattice * scale, np.broadcast_to(scale, (3,))


def _composition(lines: list[str]) -> tuple[list[str], list[int], int]:
    """Return element names (empty in a version 4 file), counts and the index of the line after them."""
    at, names = 5, []
    while at < len(lines) and lines[at].split() and not lines[at].split()[0].isdecimal():
        # VASP 6 writes "Mg_pv/f474ac0d": the symbol ends at the first underscore or slash.
        names += [word.split("/")[0].split("_")[0] for word in lines[at].split()]
        at += 1
    counts: list[int] = []
    while at < len(lines) and lines[at].split() and all(w.isdecimal() for w in lines[at].split()):
        counts += [int(word) for word in lines[at].split()]
        at += 1
        if not names or len(counts) >= len(names):
            break
    if not counts or (names and len(names) != len(counts)):
        raise InputError("truncated", f"{len(names)} element names and {len(counts)} counts")
    if sum(counts) > 10_000_000:
        raise CrystalError("too-many-atoms", f"{sum(counts)} atoms are announced")
    return names, counts, at


def _expand(names: list[str], counts: list[int]) -> list[Species]:
    return [s for name, n in zip(names, counts, strict=True) for s in [parse_species(name)] * n]


def _trailing(rows: list[list[str]], column: int) -> list[Species]:
    try:
        return [parse_species(row[column]) for row in rows]
    except (IndexError, OnnesError) as error:
        raise InputError(
            "no-elements", "the POSCAR (VASP 4) names no elements; write the symbols into its sixth line"
        ) from error


def _to_fractional(positions: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(np.linalg.solve(lattice.T, positions.T).T)
    except np.linalg.LinAlgError as error:
        raise CrystalError("zero-volume", "the lattice vectors span no volume") from error

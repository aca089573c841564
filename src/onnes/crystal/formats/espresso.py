"""Quantum ESPRESSO pw.x input: any ibrav, every unit of cell and positions."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from onnes.crystal.formats.bravais import bravais_cell
from onnes.crystal.formula import atomic_numbers
from onnes.crystal.parsed import ISOTOPE_MASS, Parsed, Species, full_sites, parse_species
from onnes.errors import CrystalError, InputError
from onnes.units import UNITS


def _bohr() -> float:
    from scipy.constants import physical_constants

    return float(physical_constants["Bohr radius"][0]) / UNITS.angstrom_m


def parse(text: str) -> list[Parsed]:
    """Read a pw.x input.

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
        ``no-structure``, ``truncated``, ``bad-number``, ``unknown-unit``, ``no-cell``, ``unsupported``.
    CrystalError
        ``unknown-element``, ``zero-volume``.
    """
    from ase.io.espresso import read_fortran_namelist

    try:
        namelists, cards = read_fortran_namelist(io.StringIO(text))
    except Exception as error:  # ASE raises many types on damaged text
        raise InputError("bad-namelist", f"cannot read the namelists: {str(error)[:120]}") from error
    if "system" not in namelists:
        raise InputError("no-structure", "no &SYSTEM namelist: not a pw.x input")
    system = {str(k).lower(): v for k, v in dict(namelists["system"]).items()}
    lattice, alat = _cell(system, cards)
    masses = _species_masses(cards)
    species, frac = _positions(system, cards, lattice, alat, masses)
    return [Parsed(lattice, full_sites(species, frac))]


def _card(cards: list[str], name: str) -> tuple[str, list[list[str]]] | None:
    """Return the option of a card (lower case, brackets off) and its rows up to the next card."""
    names = (
        "ATOMIC_",
        "CELL_PARAMETERS",
        "K_POINTS",
        "OCCUPATIONS",
        "CONSTRAINTS",
        "SOLVENTS",
        "HUBBARD",
        "ADDITIONAL",
    )
    for k, line in enumerate(cards):
        if line.strip().upper().startswith(name):
            rows = []
            for row in cards[k + 1 :]:
                if row.strip().upper().startswith(names):
                    break
                plain = row.split("!")[0].split("#")[0].split()
                if plain:
                    rows.append(plain)
            option = line.strip()[len(name) :].split("!")[0].strip(" \t{}()").lower()
            return option, rows
    return None


def _float(text: Any, what: str) -> float:
    try:
        return float(str(text).lower().replace("d", "e"))
    except ValueError as error:
        raise InputError("bad-number", f"{what} is {str(text)[:40]!r}, not a number") from error


def _int(text: Any, what: str) -> int:
    value = _float(text, what)
    if not np.isfinite(value) or value != int(value) or abs(value) > 1e7:
        raise InputError("bad-number", f"{what} is {str(text)[:40]!r}, not a whole number")
    return int(value)


def _cell(system: dict[str, Any], cards: list[str]) -> tuple[np.ndarray, float | None]:
    """Return the lattice (A) and the unit ``alat`` (A) where defined."""
    bohr = _bohr()
    celldm = [_float(system.get(f"celldm({k})", 0.0), f"celldm({k})") for k in range(1, 7)]
    if "a" in system:
        if celldm[0]:
            raise InputError("ambiguous-cell", "give either celldm or A, B, C, not both")
        a, b, c = (_float(system.get(k, 0.0), k) for k in "abc")
        if not a:
            raise InputError("no-cell", "A is zero")
        cosines = [_float(system.get(k, 0.0), k) for k in ("cosab", "cosac", "cosbc")]
        celldm = _celldm_from_lengths(_int(system.get("ibrav", 0), "ibrav"), a / bohr, b / a, c / a, cosines)
    alat = celldm[0] * bohr or None
    if "ibrav" not in system:
        raise InputError("no-cell", "&SYSTEM has no ibrav")
    ibrav = _int(system["ibrav"], "ibrav")
    if ibrav:
        return bravais_cell(ibrav, celldm) * bohr, alat
    card = _card(cards, "CELL_PARAMETERS")
    if card is None or len(card[1]) < 3 or any(len(row) < 3 for row in card[1][:3]):
        raise InputError("no-cell", "ibrav = 0 needs CELL_PARAMETERS with three vectors")
    rows = np.array([[_float(x, "a cell vector") for x in row[:3]] for row in card[1][:3]])
    unit = card[0] or ("alat" if alat else "bohr")
    lattice = rows * _length_unit(unit, alat)
    return lattice, alat or float(np.linalg.norm(lattice[0]))


def _celldm_from_lengths(ibrav: int, a: float, b: float, c: float, cosines: list[float]) -> list[float]:
    """Translate A, B, C, cosAB, cosAC, cosBC into celldm(1..6) as pw.x does for each ibrav."""
    ab, ac, bc = cosines
    if ibrav in (14,):
        angles = [bc, ac, ab]
    elif ibrav in (-12, -13):
        angles = [0.0, ac, 0.0]
    else:
        angles = [ab, 0.0, 0.0]
    return [a, b, c, *angles]


def _length_unit(unit: str, alat: float | None) -> float:
    table = {"bohr": _bohr(), "angstrom": 1.0, "alat": alat}
    if unit not in table:
        raise InputError("unknown-unit", f"unknown unit {unit[:20]!r}; use one of alat, bohr, angstrom")
    factor = table[unit]
    if factor is None:
        raise InputError("no-cell", "lengths in alat need celldm(1) or A")
    return float(factor)


def _species_masses(cards: list[str]) -> dict[str, float]:
    card = _card(cards, "ATOMIC_SPECIES")
    rows = card[1] if card else []
    return {row[0]: _float(row[1], f"mass of {row[0]}") for row in rows if len(row) >= 2}


def _species(label: str, masses: dict[str, float]) -> Species:
    """Read a pw.x label: the symbol, then at most a digit or ``_x`` / ``-x``."""
    head = "".join(c if c.isalpha() else " " for c in label).split()
    options = [head[0][:2].capitalize(), head[0][:1].upper()] if head else []
    symbol = next((s for s in options if s in atomic_numbers() or s in ISOTOPE_MASS), None)
    if symbol is None:
        raise CrystalError("unknown-element", f"label {label[:20]!r} names no element")
    species = parse_species(symbol)
    given = masses.get(label)
    # A user studies PdD by writing H with the mass of deuterium.
    isotope = next((m for m in ISOTOPE_MASS.values() if given and abs(given - m) < 0.05), None)
    return Species("H", None, isotope) if species.symbol == "H" and isotope else species


def _positions(
    system: dict[str, Any],
    cards: list[str],
    lattice: np.ndarray,
    alat: float | None,
    masses: dict[str, float],
) -> tuple[list[Species], np.ndarray]:
    card = _card(cards, "ATOMIC_POSITIONS")
    if card is None or not card[1]:
        raise InputError("no-structure", "no ATOMIC_POSITIONS")
    unit, rows = card[0] or "alat", card[1]
    announced = _int(system.get("nat", len(rows)), "nat")
    if not 0 < announced <= len(rows) or any(len(row) < 4 for row in rows[:announced]):
        raise InputError("truncated", f"nat = {announced}, but {len(rows)} positions follow")
    if unit == "crystal_sg":
        raise InputError(
            "unsupported", "ATOMIC_POSITIONS crystal_sg is not read; write all atoms of the cell"
        )
    rows = rows[:announced]
    values = np.array([[_expression(x) for x in row[1:4]] for row in rows])
    if unit != "crystal":
        try:
            values = np.linalg.solve(lattice.T, (values * _length_unit(unit, alat)).T).T
        except np.linalg.LinAlgError as error:
            raise CrystalError("zero-volume", "the cell vectors span no volume") from error
    return [_species(row[0], masses) for row in rows], values


def _expression(text: str) -> float:
    """Read a coordinate; pw.x also takes arithmetic, of which plain fractions (``1/3``) are accepted here."""
    top, slash, bottom = text.partition("/")
    if not slash:
        return _float(top, "a coordinate")
    divisor = _float(bottom, "a coordinate")
    if divisor == 0.0:
        raise InputError("bad-number", f"coordinate {text[:40]!r} divides by zero")
    return _float(top, "a coordinate") / divisor

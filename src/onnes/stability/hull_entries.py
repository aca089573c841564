"""A user's own phases for the hull: csv files and pymatgen's computed entries, the method of their energies declared.

Total energies of two methods differ by eV/atom, and a hull made of both is wrong without looking wrong. So a file does
not enter the hull undeclared. Energies of the potential of the shipped table are joined with it. Energies of any other
method make the whole hull, elements included, and the candidates' energies have to be of that method, too.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from onnes.crystal.formula import atomic_numbers, formula_of
from onnes.errors import DataError, InputError, SettingsError
from onnes.stability.chemistry import ANIONS
from onnes.stability.hull import HullReferences, Reference

#: An entry further than this below the lowest phase of its composition in the table it joins is not of the same method
#: (or not per atom): polymorphs that are not in the table gain at most a few tenths of an eV/atom.
TOO_LOW_eV_ATOM = 0.5
#: The same where the table has no phase of that composition, below the hull of the other phases: first without, then
#: with an element of `ANIONS`. Of 2,602 random compounds of the shipped table, each left out in turn, the lowest lies
#: 4.07 eV/atom below the hull of the rest (LaF3); of the 582 without anions among 1,198 of them, 1.00 (Lu3Pd4). 7 % of
#: all lie more than 0.5 below: that limit would refuse true phases.
TOO_LOW_NEW_eV_ATOM = (1.1, 4.5)
#: Calculations that one hull may hold side by side, as the corrections of the Materials Project allow.
_TOGETHER = (frozenset(("GGA", "GGA+U", "GGA_U", "PBE", "PBE+U")), frozenset(("R2SCAN", "SCAN")))


class Entry(NamedTuple):
    """A phase as a file gives it: the reference, the type of calculation where told, its energy correction in eV."""

    reference: Reference
    run_type: str = ""
    correction_eV: float = 0.0


@dataclass(frozen=True)
class OwnHull:
    """The hull to use and, where it is not the potential's, the energies of the candidates.

    Attributes
    ----------
    table : HullReferences
    energies : mapping of str to float, or None
        Energy per atom by id of the candidate; None: the potential's energies are of the table's method.
    """

    table: HullReferences
    energies: Mapping[str, float] | None = field(default=None)


def own_hull(
    shipped: HullReferences,
    paths: Iterable[Path] = (),
    *,
    method: str = "",
    energies: Path | None = None,
) -> OwnHull:
    """Make the hull of a user's files.

    Parameters
    ----------
    shipped : HullReferences
        Table of the potential.
    paths : iterable of paths
        Files for `read_entries`.
    method : str
        Whose energies the files hold: the method of `shipped` joins them, any other name leaves it out.
    energies : path, optional
        csv file with the columns id and energy_eV_atom: the candidates' energies by the same other method.

    Raises
    ------
    SettingsError
        ``undeclared-method`` without `method`; ``mixed-methods`` where energies of two methods would meet.
    DataError
        ``bad-entries``.
    InputError
        ``missing-path``.
    """
    files = list(paths)
    if not files:
        if method or energies:
            raise SettingsError(
                "no-entries", "a method or energies of candidates go with entries for the hull"
            )
        return OwnHull(shipped)
    if not method:
        raise SettingsError(
            "undeclared-method",
            f"whose energies does {files[0]} hold? {shipped.method}: they join the shipped table; any other name "
            "(PBE): they are the whole hull, and the candidates' energies must be given, too",
        )
    entries = [e for path in files for e in read_entries(path)]
    names = ", ".join(path.name for path in files)
    if method == shipped.method:
        if energies is not None:
            raise SettingsError("mixed-methods", f"candidates' energies are computed with {method}, not read")
        return OwnHull(joined(shipped, entries, names))
    if energies is None:
        raise SettingsError(
            "mixed-methods",
            f"the hull of {names} holds energies of {method}; those of the candidates must be given, too: "
            f"the energies of {shipped.method} cannot be compared with it",
        )
    return OwnHull(table_of(entries, method, names), read_energies(energies))


def joined(shipped: HullReferences, entries: Iterable[Entry], source: str) -> HullReferences:
    """The shipped table and entries of the same potential.

    Raises
    ------
    SettingsError
        ``mixed-methods`` for entries that are DFT calculations by their own words, carry corrections, or lie too low.
    """
    more = list(entries)
    for entry in more:
        if entry.run_type or entry.correction_eV:
            told = entry.run_type or f"corrected by {entry.correction_eV:.3g} eV"
            raise SettingsError(
                "mixed-methods", f"{entry.reference.id} is {told}, not an energy of {shipped.method}"
            )
    _comparable(shipped, more)
    return shipped.joined([e.reference for e in more], source)


def _comparable(shipped: HullReferences, entries: list[Entry]) -> None:
    every = [e.reference for e in entries]
    # Elements that the table lacks stand in for themselves, so that their compounds can be placed.
    new = [r for r in every if r.formula in set(_symbols(r.formula)) - shipped.elements.keys()]
    table = shipped.joined(new, "new elements") if new else shipped
    for reference in every:
        lowest, limit = _lowest(reference.formula, shipped, table)
        if reference.energy_eV_atom < lowest - limit:
            raise SettingsError(
                "mixed-methods",
                f"{reference.id} ({reference.formula}): {reference.energy_eV_atom:.3f} eV/atom lies "
                f"{lowest - reference.energy_eV_atom:.2f} below {shipped.method}'s hull (a true phase: at most "
                f"{limit:g}); another method, or not per atom",
            )


def _lowest(formula: str, shipped: HullReferences, table: HullReferences) -> tuple[float, float]:
    """The energy to compare a phase with, and how far below it may lie, eV/atom."""
    parts = _symbols(formula)
    same = [p.energy_eV_atom for p in shipped.phases(parts) if p.formula == formula]
    if same:
        return min(same), TOO_LOW_eV_ATOM
    metal, ionic = TOO_LOW_NEW_eV_ATOM
    if len(parts) == 1 or set(parts) - table.elements.keys():
        # Nothing to compare with but the most strongly bound of all elements.
        return min(shipped.elements.values(), default=-math.inf), TOO_LOW_eV_ATOM if len(
            parts
        ) == 1 else ionic
    return table.hull_energy(formula), ionic if ANIONS & set(parts) else metal


def _symbols(formula: str) -> list[str]:
    from pymatgen.core import Composition

    return [e.symbol for e in Composition(formula).elements]


def table_of(entries: Iterable[Entry], method: str, source: str) -> HullReferences:
    """A table of entries alone.

    Raises
    ------
    SettingsError
        ``mixed-methods`` for calculations that do not belong on one hull (GGA and r2SCAN).
    """
    every = list(entries)
    kinds = {e.run_type.upper() for e in every if e.run_type}
    if kinds and not any(kinds <= together for together in _TOGETHER) and len(kinds) > 1:
        raise SettingsError("mixed-methods", f"{source} holds {' and '.join(sorted(kinds))}: no common hull")
    lines = "".join(f"{e.reference}\n" for e in every)
    digest = hashlib.sha256((method + lines).encode()).hexdigest()[:16]
    return HullReferences([e.reference for e in every], digest, method, source)


def read_entries(path: Path) -> list[Entry]:
    """Read phases.

    Parameters
    ----------
    path : path
        ``.csv`` (columns formula, energy_eV_atom and, optional, id) or ``.json`` of pymatgen ``ComputedEntry`` or
        ``ComputedStructureEntry`` objects, one or a list, with their corrections; either also gzip-compressed.

    Raises
    ------
    InputError
        ``missing-path``.
    DataError
        ``bad-entries``: what is wrong, and where.
    """
    text = _text(path)
    if ".csv" in path.suffixes:
        rows = _rows(text, path, ("formula", "energy_eV_atom"))
        return [
            Entry(
                _reference(
                    r["formula"], r["energy_eV_atom"], r.get("id") or f"{path.stem}-{k}", f"{path}, row {k}"
                )
            )
            for k, r in enumerate(rows, start=1)
        ]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError("bad-entries", f"{path} is neither csv by name nor JSON: {error}") from None
    every = found if isinstance(found, list) else [found]
    if not every:
        raise DataError("bad-entries", f"{path} holds no entry")
    return [_computed(one, f"{path}, entry {k}", f"{path.stem}-{k}") for k, one in enumerate(every, start=1)]


def read_energies(path: Path) -> dict[str, float]:
    """Read the candidates' own energies: csv with id and energy_eV_atom.

    Raises
    ------
    InputError
        ``missing-path``.
    DataError
        ``bad-entries``.
    """
    found: dict[str, float] = {}
    for k, row in enumerate(_rows(_text(path), path, ("id", "energy_eV_atom")), start=1):
        if row["id"] in found:
            raise DataError("bad-entries", f"{path}, row {k}: {row['id']} is there twice")
        found[row["id"]] = _number(row["energy_eV_atom"], f"{path}, row {k}")
    return found


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError("missing-path", f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError("bad-entries", f"{path} cannot be read: {error}") from None


def _rows(text: str, path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    reader = csv.DictReader(text.splitlines())
    try:
        names, rows = reader.fieldnames or [], list(reader)
    except csv.Error as error:  # a cell beyond the module's limit
        raise DataError("bad-entries", f"{path}, line {reader.line_num + 1}: {error}") from None
    missing = [c for c in columns if c not in names]
    if missing:
        raise DataError("bad-entries", f"{path} has no column {missing[0]}; wanted: {', '.join(columns)}")
    if not rows:
        raise DataError("bad-entries", f"{path} holds no row")
    return rows


def _number(text: Any, where: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError("bad-entries", f"{where}: {text!r} is no energy")
    return value


def _reference(formula: Any, energy: Any, id: str, where: str) -> Reference:
    from pymatgen.core import Composition

    try:
        amounts = Composition(formula).get_el_amt_dict()
    except (ValueError, TypeError, KeyError):
        amounts = {}
    wrong = [s for s, n in amounts.items() if s not in atomic_numbers() or n <= 0 or n != round(n)]
    if not amounts or wrong:
        raise DataError("bad-entries", f"{where}: {formula!r} is no formula of whole numbers of elements")
    name = formula_of(s for s, n in amounts.items() for _ in range(round(n)))
    return Reference(name, _number(energy, where), str(id))


def _computed(found: Any, where: str, name: str) -> Entry:
    """A pymatgen entry from its dictionary; the energy is the corrected one, as in pymatgen's own hulls."""
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

    try:
        kind = ComputedStructureEntry if "structure" in found else ComputedEntry
        entry = kind.from_dict(found)
        told = str((entry.parameters or {}).get("run_type") or "")
        reference = _reference(
            entry.composition.formula, entry.energy_per_atom, str(entry.entry_id or name), where
        )
        return Entry(reference, told, float(entry.correction))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError("bad-entries", f"{where} is no pymatgen ComputedEntry: {error!r}") from None

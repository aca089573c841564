"""Any file or folder to crystals that passed the gate; what does not pass comes back as a reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.crystal import files
from onnes.crystal.check import Limits, check, check_cell, flags
from onnes.crystal.formula import formula_of
from onnes.crystal.ordering import disordered, order
from onnes.crystal.parsed import Parsed, Problem, Site, Species, full_sites, parse_species
from onnes.errors import CrystalError, InputError, OnnesError

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Crystal:
    """One crystal that passed the gate.

    Attributes
    ----------
    id : str
        Record id, or file name without ending, ``#block`` appended where a file holds several. Unique in
        one `read`.
    structure : pymatgen Structure
        Ordered, neutral elements, right-handed; the cell and the order of sites are those of the file.
    source : str
        ``path`` or ``path#block``.
    meta : dict
        Optional keys: ``isotopes`` {site index: mass in u}, ``oxidation_states`` [one a site], ``flags``
        (list of ``slab``, ``chain``, ``molecule``, ``made-periodic``, ``ordered-model``), ``labels`` {name:
        number}, ``record_id``, ``data_set`` (``source`` of a record), ``ordering`` (how a disordered crystal was
        ordered).
    """

    id: str
    structure: Structure
    source: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """One input that did not become a crystal.

    Attributes
    ----------
    id, source : str
        As in `Crystal`.
    code : str
        Reason code.
    message : str
        One line for a person.
    formula : str
        Reduced formula where it could be read.
    """

    id: str
    source: str
    code: str
    message: str
    formula: str = ""


def read(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    limits: Limits | None = None,
    order_disorder: bool = False,
) -> Iterator[Crystal | Refused]:
    """Read structures from files and folders.

    Parameters
    ----------
    paths : path or iterable of paths
        CIF, POSCAR, extxyz, pw.x input, JSON, jsonl (each also gzip-compressed), or folders of them.
    limits : Limits, optional
        Limits of the gate.
    order_disorder : bool
        Replace partial occupancies by an ordered model (see `onnes.crystal.ordering.order`) instead of
        refusing.

    Yields
    ------
    Crystal or Refused
        In the order of the paths; folders are searched recursively and sorted. One bad input does not
        stop the rest.

    Raises
    ------
    InputError
        When not one structure, good or refused, was found: the first reason (``missing-path``,
        ``empty-folder``, ``no-structure-file``, ``empty-file``, ``binary-file``, ``truncated``,
        ``unknown-format``, ``no-input``, ...).
    """
    limits = limits or Limits()
    taken: dict[str, int] = {}
    waiting: list[tuple[Refused, InputError]] = []  # held back until it is clear that something can be read
    seen = False
    for result in _entries(paths, limits, order_disorder):
        if isinstance(result, tuple):
            if seen:
                yield _unique(result[0], taken)
            else:
                waiting.append(result)
            continue
        seen = True
        while waiting:
            yield _unique(waiting.pop(0)[0], taken)
        yield _unique(result, taken)
    if seen:
        return
    if not waiting:
        raise InputError("no-input", "no path was given")
    first, more = waiting[0], len(waiting) - 1
    rest = f" (and {more} more unreadable)" if more else ""
    raise InputError(first[1].code, first[0].message + rest) from first[1]


def _entries(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]], limits: Limits, order_disorder: bool
) -> Iterator[Crystal | Refused | tuple[Refused, InputError]]:
    """Yield results; a tuple where a whole path or file is unreadable."""
    for path in [paths] if isinstance(paths, (str, PathLike)) else paths:
        try:
            found = files.find(Path(path))
        except InputError as error:
            yield Refused(Path(path).name, str(path), error.code, error.message), error
            continue
        for file in found:
            yield from _file(file, limits, order_disorder)


def _file(
    path: Path, limits: Limits, order_disorder: bool
) -> Iterator[Crystal | Refused | tuple[Refused, InputError]]:
    stem, any_structure = _stem(path), False
    problems: list[tuple[Refused, InputError]] = []
    try:
        for entry in files.parse(path):
            source = f"{path}#{entry.block}" if entry.block else str(path)
            name = entry.record_id or (f"{stem}#{entry.block}" if entry.block else stem)
            if isinstance(entry, Problem):
                refused = Refused(name, source, entry.error.code, f"{source}: {entry.error.message}")
                if isinstance(entry.error, InputError):
                    problems.append((refused, entry.error))
                    if any_structure or len(problems) > 100:
                        yield from (r for r, _ in problems)
                        any_structure, problems = True, []
                    continue
                result: Crystal | Refused = refused
            else:
                result = _finish(entry, name, source, limits, order_disorder)
            yield from (r for r, _ in problems)
            any_structure, problems = True, []
            yield result
    except OnnesError as error:
        refused = Refused(stem, str(path), error.code, f"{path}: {error.message}")
        if isinstance(error, InputError):
            problems.append((refused, error))
        else:  # the file was understood, its crystal is refused
            yield from (r for r, _ in problems)
            any_structure, problems = True, []
            yield refused
    except Exception as error:  # a fault of ours must not end a batch of thousands; tests look for this code
        short = f"{type(error).__name__}: {str(error)[:120]}"
        fault = InputError("internal-error", f"the reader failed ({short}); please report this file")
        problems.append((Refused(stem, str(path), fault.code, f"{path}: {fault.message}"), fault))
    for problem in problems:
        yield problem[0] if any_structure else problem


def _stem(path: Path) -> str:
    name = path.name
    if name.lower().endswith(".gz"):
        name = name[:-3]
    known = files.ENDINGS.get(Path(name).suffix.lower())
    return (Path(name).stem if known else name) or path.name


def _unique(result: Crystal | Refused, taken: dict[str, int]) -> Crystal | Refused:
    """Give a second crystal of one name the name ``x~2``: tables and ledgers are keyed by id."""
    from dataclasses import replace

    taken[result.id] = taken.get(result.id, 0) + 1
    if taken[result.id] == 1:
        return result
    name = f"{result.id}~{taken[result.id]}"
    while name in taken:
        taken[result.id] += 1
        name = f"{result.id}~{taken[result.id]}"
    taken[name] = 1
    return replace(result, id=name)


def _finish(
    parsed: Parsed, name: str, source: str, limits: Limits, order_disorder: bool
) -> Crystal | Refused:
    try:
        structure, meta = _gate(parsed, limits, order_disorder)
    except OnnesError as error:
        formula = formula_of(s for site in parsed.sites for s in site.occupancies())
        if not any(disordered(site) for site in parsed.sites):
            return Refused(name, source, error.code, f"{source}: {error.message}", formula)
        return Refused(name, source, error.code, f"{source}: {error.message}")
    return Crystal(name, structure, source, meta)


def _gate(parsed: Parsed, limits: Limits, order_disorder: bool = False) -> tuple[Structure, dict[str, Any]]:
    """Order if asked, build the pymatgen structure, check it, and collect what chemistry does not need."""
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as PmgStructure

    meta: dict[str, Any] = {}
    if len(parsed.sites) > limits.max_atoms:  # before the costly steps; `check` says the same of a supercell
        raise CrystalError(
            "too-many-atoms",
            f"{len(parsed.sites)} atoms in the cell; at most {limits.max_atoms} are accepted",
        )
    shared = [site for site in parsed.sites if disordered(site)]
    check_cell(parsed.lattice, np.array([s.frac for s in parsed.sites]).reshape(-1, 3), limits)
    if shared and not order_disorder:
        shown = "; ".join(site.describe() for site in shared[:3])
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        raise CrystalError("partial-occupancy", f"{shown}{more}; order the crystal first (order_disorder)")
    if shared:
        parsed, meta["ordering"] = order(parsed, limits.max_atoms)
    species = [_single(site) for site in parsed.sites]
    structure = PmgStructure(
        Lattice(parsed.lattice), [s.symbol for s in species], np.array([s.frac for s in parsed.sites])
    )
    check(structure, limits)
    masses = {k: s.mass for k, s in enumerate(species) if s.mass is not None}
    remarks = [*flags(structure), *parsed.flags]
    optional = {
        "isotopes": masses,
        "oxidation_states": [s.oxidation or 0.0 for s in species]
        if any(s.oxidation for s in species)
        else None,
        "flags": remarks,
        "labels": parsed.labels,
        "record_id": parsed.record_id,
        "data_set": parsed.data_set,
    }
    return structure, {**meta, **{k: v for k, v in optional.items() if v}}


def _single(site: Site) -> Species:
    """Return the one element of an ordered site; isotopes that share it give their mean mass."""
    if len(site.content) == 1:
        return site.content[0][0]
    from ase.data import atomic_masses, atomic_numbers

    total = sum(x for _, x in site.content)
    symbol = site.content[0][0].symbol
    natural = float(atomic_masses[atomic_numbers[symbol]])
    mass = sum((s.mass or natural) * x for s, x in site.content) / total
    charge = next((s.oxidation for s, _ in site.content if s.oxidation is not None), None)
    return Species(symbol, charge, mass if any(s.mass for s, _ in site.content) else None)


def as_crystal(obj: Any, *, id: str | None = None, limits: Limits | None = None) -> Crystal:
    """Turn an object a Python user holds into a `Crystal`.

    Parameters
    ----------
    obj : pymatgen Structure, ASE Atoms, mapping, Crystal, or an object with a ``structure()`` method
        A mapping holds ``lattice``, ``species``, ``frac`` (or pymatgen's ``as_dict`` form).
    id : str, optional
        Name; by default the record's id or the formula.
    limits : Limits, optional
        Limits of the gate.

    Returns
    -------
    Crystal

    Raises
    ------
    CrystalError
        What `onnes.crystal.check` raises, ``bad-record``, ``unknown-object``.
    """
    limits = limits or Limits()
    if isinstance(obj, Crystal):
        check(obj.structure, limits)
        return obj if id is None else Crystal(id, obj.structure, obj.source, obj.meta)
    try:
        parsed = _parsed_object(obj)
        structure, meta = _gate(parsed, limits)
    except InputError as error:
        raise CrystalError(error.code, error.message) from error
    name = id or parsed.record_id or formula_of(s.symbol for s in (_single(x) for x in parsed.sites))
    return Crystal(name, structure, "memory", meta)


def _parsed_object(obj: Any) -> Parsed:
    from onnes.crystal.formats import records

    if isinstance(obj, Mapping):
        parsed = records.from_mapping(obj)
        parsed.record_id = str(obj.get("id", "") or "")
        return parsed
    if hasattr(obj, "get_chemical_symbols") and hasattr(obj, "cell"):
        return _from_ase(obj)
    if hasattr(obj, "lattice") and hasattr(obj, "sites"):
        return _from_pymatgen(obj)
    if callable(getattr(obj, "structure", None)):  # onnes.data.Record
        parsed = _from_pymatgen(obj.structure())
        parsed.record_id = str(getattr(obj, "id", "") or "")
        parsed.labels = dict(getattr(obj, "labels", None) or {})
        return parsed
    raise CrystalError("unknown-object", f"cannot make a crystal of {type(obj).__name__}")


def _from_ase(atoms: Any) -> Parsed:
    from ase.data import atomic_masses, atomic_numbers

    from onnes.crystal.formats.xyz import fractional

    if len(atoms) == 0:
        raise CrystalError("no-atoms", "the Atoms object is empty")
    names, masses = atoms.get_chemical_symbols(), atoms.get_masses()
    species = [
        # Only hydrogen: the natural masses of other elements differ between tables in the last digits.
        Species(s, None, float(m) if s == "H" and abs(m - atomic_masses[atomic_numbers[s]]) > 0.5 else None)
        for s, m in ((parse_species(n).symbol, m) for n, m in zip(names, masses, strict=True))
    ]
    remarks = [] if bool(np.all(atoms.pbc)) else ["made-periodic"]
    return Parsed(np.array(atoms.cell[:]), full_sites(species, fractional(atoms)), flags=remarks)


def _from_pymatgen(structure: Any) -> Parsed:
    sites = []
    for k, site in enumerate(structure):
        content = []
        for specie, amount in site.species.items():
            species = parse_species(str(getattr(specie, "symbol", specie)))
            charge = getattr(specie, "oxi_state", None)
            content.append((Species(species.symbol, charge, species.mass), float(amount)))
        sites.append(Site(np.array(site.frac_coords, dtype=float), content, f"site {k}"))
    return Parsed(np.array(structure.lattice.matrix, dtype=float), sites)

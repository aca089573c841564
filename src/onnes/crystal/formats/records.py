"""JSON: record dictionaries, pymatgen's ``as_dict`` form, JARVIS ``atoms``; one, a list, or one a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from onnes.crystal.formats.xyz import is_number
from onnes.crystal.parsed import Parsed, Problem, Site, Species, full_sites, parse_species
from onnes.errors import CrystalError, InputError, OnnesError

_ID_KEYS = ("id", "jid", "material_id", "record_id")
_NOT_LABELS = {"lattice", "species", "frac", "frac_coords", "coords", "id", "nsites", "index", "charge"}


def parse_json(text: str) -> list[Parsed | Problem]:
    """Read one JSON document.

    Parameters
    ----------
    text : str
        An object or a list of objects.

    Returns
    -------
    list of Parsed or Problem

    Raises
    ------
    InputError
        ``bad-json``, ``no-structure``.
    """
    data = _loads(text)
    rows = data if isinstance(data, list) else [data]
    if not rows:
        raise InputError("no-structure", "the JSON list is empty")
    if not any(isinstance(row, dict) and holds_structure(row) for row in rows):
        raise InputError("no-structure", "no object with lattice, species and frac (or pymatgen's sites)")
    return [_row(row, str(k) if len(rows) > 1 else "") for k, row in enumerate(rows, start=1)]


def parse_lines(text: str) -> Iterator[Parsed | Problem]:
    """Read one JSON object a line; a damaged line does not stop the rest.

    Parameters
    ----------
    text : str
        The file.

    Yields
    ------
    Parsed or Problem
    """
    seen = False
    for k, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        seen = True
        try:
            yield _row(_loads(line), str(k))
        except OnnesError as error:
            yield Problem(error, str(k))
    if not seen:
        raise InputError("no-structure", "the file holds no rows")


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("bad-json", f"not JSON: {str(error)[:120]}") from error


def holds_structure(row: Mapping[str, Any]) -> bool:
    """Return whether a JSON object describes a crystal in one of the accepted forms."""
    if any(isinstance(row.get(key), dict) and holds_structure(row[key]) for key in ("structure", "atoms")):
        return True
    return ("lattice" in row and ("sites" in row or "species" in row)) or "lattice_mat" in row


def _row(row: Any, name: str) -> Parsed | Problem:
    record_id = ""
    try:
        if not isinstance(row, dict) or not holds_structure(row):
            raise InputError("no-structure", "no object with lattice, species and frac (or pymatgen's sites)")
        record_id = next((str(row[k]) for k in _ID_KEYS if row.get(k) not in (None, "")), "")
        parsed = from_mapping(row)
    except OnnesError as error:
        return Problem(error, name, record_id)
    parsed.block, parsed.record_id = name, record_id
    source = row.get("source")
    parsed.data_set = source if isinstance(source, str) else ""
    return parsed


def from_mapping(row: Mapping[str, Any]) -> Parsed:
    """Read one structure from a dictionary.

    Parameters
    ----------
    row : mapping
        ``{"lattice", "species", "frac"}``; or pymatgen's ``{"lattice": {"matrix"}, "sites"}``; or JARVIS'
        ``{"lattice_mat", "elements", "coords", "cartesian"}``; or any of these under ``structure`` or
        ``atoms``.

    Returns
    -------
    Parsed
        Finite numbers at the top level become labels.

    Raises
    ------
    InputError
        ``bad-record``.
    CrystalError
        ``unknown-element``, ``zero-volume``.
    """
    inner = next((row[k] for k in ("structure", "atoms") if isinstance(row.get(k), dict)), None)
    try:
        if inner is not None:
            parsed = from_mapping(inner)
        elif "sites" in row:
            parsed = _pymatgen(row)
        else:
            parsed = _plain(row)
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise InputError("bad-record", f"{type(error).__name__}: {str(error)[:120]}") from error
    extra = row.get("labels")
    values = {**row, **(extra if isinstance(extra, dict) else {})}
    try:
        labels = {k: float(v) for k, v in values.items() if k not in _NOT_LABELS and is_number(v)}
    except OverflowError as error:
        raise InputError("bad-record", "a label is too large for a number") from error
    parsed.labels = {**parsed.labels, **labels}
    return parsed


def _matrix(value: Any, width: int = 3) -> np.ndarray:
    array = np.array(value, dtype=float)
    if array.ndim != 2 or array.shape[1] != width:
        raise InputError("bad-record", f"expected rows of {width} numbers, found shape {array.shape}")
    return array


def _lattice(value: Any) -> np.ndarray:
    lattice = _matrix(value["matrix"] if isinstance(value, dict) else value)
    if lattice.shape != (3, 3):
        raise InputError("bad-record", f"the lattice has shape {lattice.shape}, not (3, 3)")
    return lattice


def _plain(row: Mapping[str, Any]) -> Parsed:
    lattice = _lattice(row["lattice"] if "lattice" in row else row["lattice_mat"])
    species = [parse_species(s) for s in (row["species"] if "species" in row else row["elements"])]
    key = next((k for k in ("frac", "frac_coords", "coords") if k in row), None)
    if key is None:
        raise InputError("bad-record", "no fractional coordinates (frac)")
    if not species:
        raise CrystalError("no-atoms", "the record holds no atoms")
    frac = _matrix(row[key])
    if key == "coords" and row.get("cartesian", False):
        frac = _solve(lattice, frac)
    if len(frac) != len(species):
        raise InputError("bad-record", f"{len(species)} species and {len(frac)} coordinates")
    return Parsed(lattice, full_sites(species, frac))


def _solve(lattice: np.ndarray, positions: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(np.linalg.solve(lattice.T, positions.T).T)
    except np.linalg.LinAlgError as error:
        raise CrystalError("zero-volume", "the lattice vectors span no volume") from error


def _pymatgen(row: Mapping[str, Any]) -> Parsed:
    lattice = _lattice(row["lattice"])
    sites = []
    for k, site in enumerate(row["sites"]):
        content = []
        for part in site["species"]:
            species = parse_species(part["element"])
            charge = part.get("oxidation_state")
            if charge is not None:
                species = Species(species.symbol, float(charge), species.mass)
            content.append((species, float(part.get("occu", 1.0))))
        if "abc" in site:
            frac = np.array(site["abc"], dtype=float)
        else:
            frac = _solve(lattice, np.array([site["xyz"]], dtype=float))[0]
        if frac.shape != (3,):
            raise InputError("bad-record", f"site {k} has coordinates of shape {frac.shape}")
        sites.append(Site(frac, content, str(site.get("label", f"site {k}"))))
    return Parsed(lattice, sites)

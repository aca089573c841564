"""One JSON object of foreign origin to one record."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnes.data.files import read_all, readable, text_lines
from onnes.data.labels import LABELS
from onnes.data.records import Record, encode
from onnes.errors import CrystalError, DataError, InputError

#: Names of JARVIS and of the Alexandria electron-phonon set -> ours; units are equal.
ALIASES = {
    "lamb": "lambda",
    "la": "lambda",
    "wlog": "omega_log_K",
    "Tc": "Tc_K",
    "dosef": "dos_ef_states_eV_cell",
    "debye": "debye_T_K_predicted",
    "formation_energy_peratom": "formation_energy_eV_atom",
    "ehull": "ehull_eV_atom",
    "optb88vdw_bandgap": "gap_optb88vdw_eV",
    "mbj_bandgap": "gap_mbj_eV",
    "bulk_modulus_kv": "bulk_modulus_kv_GPa",
    "shear_modulus_gv": "shear_modulus_gv_GPa",
    "magmom_oszicar": "magmom_oszicar_muB",
}

#: Largest unpacked JSON in an archive.
MAX_BYTES = 4_000_000_000

_UNKNOWN = ("na", "", "NA", "nan")


def json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(place, decoded row)`` of a JSON, jsonl or zipped JSON file; a bad line comes as its error.

    Raises
    ------
    InputError, DataError
        The file cannot be read (`onnes.data.files.text_lines`), ``not-json``, ``ambiguous-archive``,
        ``truncated-file``, ``too-large``.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")):
        for number, line in text_lines(path):
            if line.strip():
                yield f"line {number}", _decode(line)
        return
    data = _decode(_unzip(path) if name.endswith(".zip") else read_all(path))
    if isinstance(data, DataError):
        raise data
    for number, row in enumerate(data if isinstance(data, list) else [data], start=1):
        yield f"row {number}", row


def _decode(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return DataError("not-json", f"not JSON: {str(error)[:80]}")


def _unzip(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(readable(path)) as archive:
            inside = [i for i in archive.infolist() if i.filename.lower().endswith(".json")]
            if len(inside) != 1:
                text = f"{path} holds {len(inside)} JSON files; one is expected"
                raise InputError("ambiguous-archive", text)
            if inside[0].file_size > MAX_BYTES:
                raise InputError("too-large", f"{path} unpacks to more than {MAX_BYTES / 1e9:g} GB")
            return archive.read(inside[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError("truncated-file", f"{path} is no complete zip file: {error}") from None
    except OSError as error:
        raise InputError("cannot-read", f"{path}: {error.strerror or error}") from None


def record_of(row: Any, *, id: str, source: str, extra: tuple[str, ...] = ()) -> Record:
    """Build a record of one row and pass it through the gate.

    Parameters
    ----------
    row : dict
        Our own row; a JARVIS row (``atoms`` with ``lattice_mat``, ``coords``, ``elements``, ``cartesian``); or
        anything `onnes.crystal.read.as_crystal` takes.
    id, source : str
        Used when the row has none.
    extra : names
        Fields to take as labels besides the known ones.

    Raises
    ------
    DataError
        The codes of `Record.from_row`.
    CrystalError
        The codes of `onnes.crystal.check.check`.
    """
    from onnes.crystal.check import check
    from onnes.crystal.read import as_crystal

    if not isinstance(row, Mapping):
        raise DataError("not-an-object", f"a row must be a JSON object, not {type(row).__name__}")
    atoms = row.get("atoms")
    if isinstance(atoms, Mapping) and "lattice_mat" in atoms:
        record = Record.from_row(_jarvis(row, atoms), id=id, source=source, extra_labels=extra)
    elif isinstance(row.get("lattice"), list) and "species" in row:
        record = Record.from_row(row, id=id, source=source, extra_labels=extra)
    else:
        crystal = as_crystal(row)  # its own gate
        name = row.get("id") or row.get("material_id") or id
        labels = _labels(row, extra)
        return Record.from_structure(crystal.structure, str(name), source=source, labels=labels)
    check(record.structure())
    encode(record)  # what cannot be written is this row's fault, not the whole file's
    return record


def _labels(row: Mapping[str, Any], extra: tuple[str, ...]) -> dict[str, float]:
    named = {ALIASES.get(key, key): value for key, value in row.items() if isinstance(key, str)}
    return {
        key: float(value)
        for key, value in named.items()
        if (key in LABELS or key in extra) and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _jarvis(row: Mapping[str, Any], atoms: Mapping[str, Any]) -> dict[str, Any]:
    """Our row of a JARVIS row; ``na`` and NaN mean "not known" there."""
    fields = {ALIASES.get(key, key): _known(value) for key, value in row.items() if key != "atoms"}
    name = fields.pop("jid", None) or fields.get("id")
    if name is not None:
        fields["id"] = name
    lattice, frac = _cell(atoms, name or "row")
    elements = atoms.get("elements")
    if not isinstance(elements, list):
        raise DataError("missing-field", f"{name}: atoms has no list of elements")
    species = [symbol.strip() if isinstance(symbol, str) else symbol for symbol in elements]
    # Their text formula and counts are kept out: ours are derived from the sites.
    for derived in ("formula", "nsites", "nat"):
        fields.pop(derived, None)
    return {**fields, "lattice": lattice, "species": species, "frac": frac}


def _cell(atoms: Mapping[str, Any], name: str) -> tuple[list[list[float]], list[list[float]]]:
    """Lattice and fractional coordinates of JARVIS ``atoms``."""
    flag = atoms.get("cartesian")
    if not isinstance(flag, bool):
        raise DataError("missing-field", f"{name}: atoms does not say whether coords are cartesian")
    try:
        lattice = np.array(atoms["lattice_mat"], dtype=float)
        coords = np.array(atoms["coords"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("bad-shape", f"{name}: lattice_mat or coords: {str(error)[:80]}") from None
    if lattice.shape != (3, 3) or coords.ndim != 2 or coords.shape[1] != 3:
        raise DataError("bad-shape", f"{name}: lattice_mat {lattice.shape}, coords {coords.shape}")
    if not (np.isfinite(lattice).all() and np.isfinite(coords).all()):
        raise DataError("not-finite", f"{name}: lattice_mat or coords hold a number that is not finite")
    if flag:
        try:
            coords = np.linalg.solve(lattice.T, coords.T).T
        except np.linalg.LinAlgError:
            raise CrystalError("zero-volume", f"{name}: the lattice vectors span no volume") from None
    return lattice.tolist(), coords.tolist()


def _known(value: Any) -> Any:
    """Replace "not known" by None, also inside lists and objects, so that JSON can hold the rest."""
    if isinstance(value, str):
        return None if value in _UNKNOWN else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_known(item) for item in value]
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    return value

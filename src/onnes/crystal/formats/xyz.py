"""Extended XYZ, any number of frames; ASE reads each frame, so one damaged frame does not stop the rest."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from onnes.crystal.parsed import ISOTOPE_MASS, Parsed, Problem, Species, full_sites
from onnes.errors import CrystalError, InputError, OnnesError


def parse(text: str) -> list[Parsed | Problem]:
    """Read every frame.

    Parameters
    ----------
    text : str
        The file.

    Returns
    -------
    list of Parsed or Problem

    Raises
    ------
    InputError
        ``no-structure`` when there is no frame.
    """
    lines = text.splitlines()
    found: list[Parsed | Problem] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        name = str(len(found) + 1)
        if not lines[at].strip().isdecimal() or len(lines[at].strip()) > 8:
            error = InputError(
                "bad-frame", f"line {at + 1} should hold the number of atoms: {lines[at][:40]!r}"
            )
            found.append(Problem(error, name))
            break  # without a count the start of the next frame is unknown
        n = int(lines[at])
        frame = lines[at : at + n + 2]
        try:
            found.append(_frame(frame, n, name))
        except OnnesError as error:
            found.append(Problem(error, name))
        at += n + 2
    if not found:
        raise InputError("no-structure", "the file holds no frame")
    if len(found) == 1:
        found[0].block = ""
    return found


def _frame(frame: list[str], n: int, name: str) -> Parsed:
    if len(frame) < n + 2:
        raise InputError("truncated", f"frame {name} announces {n} atoms and holds {max(len(frame) - 2, 0)}")
    if n == 0:
        raise CrystalError("no-atoms", f"frame {name} holds no atoms")
    if not re.search(r"lattice\s*=", frame[1], re.IGNORECASE):
        raise InputError("no-cell", f'frame {name} has no Lattice="..." in its second line')
    rows, masses = [], {}
    for k, row in enumerate(frame[2:]):
        word = re.match(r"\s*(D|T)(?=\s)", row)
        if word:  # ASE knows no symbols for isotopes
            masses[k] = ISOTOPE_MASS[word[1]]
            row = "H" + row[word.end() :]
        rows.append(row)
    atoms = _ase_read("\n".join([*frame[:2], *rows]) + "\n", name)
    species = [Species(s, None, masses.get(k)) for k, s in enumerate(atoms.get_chemical_symbols())]
    sites = full_sites(species, fractional(atoms))
    labels = {k: float(v) for k, v in atoms.info.items() if is_number(v)}
    record_id = next((str(atoms.info[k]) for k in ("id", "name") if k in atoms.info), "")
    flags = [] if bool(np.all(atoms.pbc)) else ["made-periodic"]
    return Parsed(np.array(atoms.cell[:]), sites, name, labels, record_id, flags)


def _ase_read(text: str, name: str) -> Any:
    from ase.io import read

    try:
        return read(io.StringIO(text), format="extxyz", index=0)
    except KeyError as error:
        raise CrystalError("unknown-element", f"frame {name}: {error} is no element symbol") from error
    except Exception as error:  # ASE raises many types on damaged text
        raise InputError("bad-frame", f"frame {name}: {type(error).__name__}: {str(error)[:120]}") from error


def is_number(value: object) -> bool:
    """Return True for a finite int or float that is not a bool."""
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(
        value, (bool, np.bool_)
    )
    return plain and bool(np.isfinite(float(value)))  # type: ignore[arg-type]


def fractional(atoms: Any) -> np.ndarray:
    """Return fractional coordinates of ASE Atoms, not wrapped.

    Raises
    ------
    CrystalError
        ``zero-volume``.
    """
    try:
        return np.asarray(np.linalg.solve(np.array(atoms.cell[:]).T, atoms.positions.T).T)
    except np.linalg.LinAlgError as error:
        raise CrystalError("zero-volume", "the cell vectors span no volume") from error

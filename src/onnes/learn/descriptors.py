"""Crystals as fixed rows of numbers, for the classical baselines.

Four sets: ``cell`` (element fractions, statistics of element properties, cell), ``structure`` (those and what
the neighbours of the atoms look like), ``invariant`` (``structure`` but for what the choice of the cell
changes), ``cfid`` (the classical force-field inspired descriptors of Choudhary, DeCost and Tavazza, Phys. Rev.
Materials 2 (2018) 083801, computed by jarvis-tools where it is installed). The first three are our own;
``structure`` is no CFID and is never called so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.amd import amd
from onnes.crystal.formula import covalent_radii, numbers
from onnes.crystal.geometry import geometry, pairs
from onnes.data.records import Record
from onnes.errors import DataError, ModelError

if TYPE_CHECKING:
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]

#: Element properties (pymatgen's names) and, after them, valence electrons by shell letter.
PROPERTIES = (
    "Z",
    "X",
    "atomic_mass",
    "atomic_radius",
    "row",
    "group",
    "mendeleev_no",
    "melting_point",
    "molar_volume",
    "ionization_energy",
    "bulk_modulus",
)
SHELLS = "spdf"
#: Columns of `element_table` that describe bonds by the difference of the two ends.
_BOND = tuple(PROPERTIES.index(name) for name in ("X", "atomic_radius", "atomic_mass"))
#: Two atoms count as bonded up to this multiple of the sum of their covalent radii.
BOND_REACH = 1.3
_LAST_Z = 103


@lru_cache(maxsize=1)
def element_table() -> FloatArray:
    """Properties of the elements, shape (104, 15), row Z; unknown values are the median of the known ones."""
    from pymatgen.core import Element

    table = np.full((_LAST_Z + 1, len(PROPERTIES) + len(SHELLS)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for z in range(1, _LAST_Z + 1):
            element = Element.from_Z(z)
            for k, name in enumerate(PROPERTIES):
                value = getattr(element, name)
                table[z, k] = np.nan if value is None else float(value)
            table[z, len(PROPERTIES) :] = _valence(element.full_electronic_structure)
    return np.where(np.isnan(table), np.nanmedian(table, axis=0), table)


def _valence(shells: Sequence[tuple[int, str, int]]) -> list[int]:
    """Electrons outside the noble-gas core, by shell letter; full inner d and f shells are core."""
    last = max(n for n, _, _ in shells)
    counts = dict.fromkeys(SHELLS, 0)
    for n, letter, electrons in shells:
        full = electrons == {"s": 2, "p": 6, "d": 10, "f": 14}[letter]
        if n == last or (letter in "df" and not full and n >= last - 2):
            counts[letter] += electrons
    return [counts[letter] for letter in SHELLS]


def _composition(z: NDArray[np.int64]) -> FloatArray:
    """Element fractions (103), then mean, deviation, least, largest of every property (60)."""
    if z.max() > _LAST_Z:
        raise DataError("unknown-element", f"no properties for element {z.max()}; up to {_LAST_Z} are known")
    fractions = np.bincount(z, minlength=_LAST_Z + 1)[1:] / len(z)
    values = element_table()[z]
    return np.concatenate([fractions, values.mean(0), values.std(0), values.min(0), values.max(0)])


def cell(record: Record) -> FloatArray:
    """Composition and cell: volume per atom, density, packing fraction, number of atoms."""
    return cell_of(record.structure())


def cell_of(crystal: Structure) -> FloatArray:
    """`cell` of a pymatgen structure, shape (167,)."""
    facts = geometry(crystal)
    size = [facts[k] for k in ("volume_per_atom_A3", "density_g_cm3", "packing_fraction", "n_atoms")]
    return np.concatenate([_composition(numbers(crystal)), np.array(size, dtype=float)])


def structure(record: Record) -> FloatArray:
    """`cell`, average minimum distances, lattice shape, and statistics of coordination and bonds."""
    return structure_of(record.structure())


def structure_of(crystal: Structure) -> FloatArray:
    """`structure` of a pymatgen structure, shape (217,)."""
    a, b, c = sorted(crystal.lattice.abc)
    shape = [b / a, c / a, *sorted(crystal.lattice.angles)]
    return np.concatenate([cell_of(crystal), amd(crystal), shape, _bonds_of(crystal)])


def invariant(record: Record) -> FloatArray:
    """`structure` without what depends on the choice of the cell: number of atoms and lattice shape."""
    return invariant_of(record.structure())


def invariant_of(crystal: Structure) -> FloatArray:
    """`invariant` of a pymatgen structure, shape (211,), rounded to six decimals.

    In ideal crystals many numbers are equal but for rounding, which differs from cell to cell; trees would
    split on that.
    """
    return np.round(np.concatenate([cell_of(crystal)[:-1], amd(crystal), _bonds_of(crystal)]), 6)


def _bonds_of(crystal: Structure) -> FloatArray:
    return _bonds(np.array(crystal.lattice.matrix), np.array(crystal.frac_coords), numbers(crystal))


def _bonds(lattice: FloatArray, frac: FloatArray, z: NDArray[np.int64]) -> FloatArray:
    """Coordination, relative bond length, and differences across a bond: mean, deviation, least, largest."""
    radii = covalent_radii()[z]
    i, j, d, _ = pairs(lattice, frac, 2.0 * BOND_REACH * float(radii.max()))
    relative = d / (radii[i] + radii[j])
    bonded = relative <= BOND_REACH
    i, j, relative = i[bonded], j[bonded], relative[bonded]
    count = np.bincount(i, minlength=len(z)).astype(float)
    if not len(i):  # no bond in range: zeros, which no bonded crystal has
        return np.concatenate([_spread(count), np.zeros(4 * (1 + len(_BOND)) + 1)])
    table = element_table()[:, _BOND]
    across = np.abs(table[z[i]] - table[z[j]])
    like = float(np.mean(z[i] == z[j]))
    columns = [_spread(column) for column in across.T]
    return np.concatenate([_spread(count), _spread(relative), *columns, [like]])


def _spread(x: FloatArray) -> FloatArray:
    return np.array([x.mean(), x.std(), x.min(), x.max()])


def cfid(record: Record) -> FloatArray:
    """Classical force-field inspired descriptors, computed by jarvis-tools.

    Raises
    ------
    ModelError
        ``missing-extra`` without jarvis-tools; ``descriptor-failed`` when it refuses the crystal.
    """
    from onnes.learn.cfid import cfid as describe_one

    return describe_one(record.structure())


DESCRIPTORS: dict[str, Callable[[Record], FloatArray]] = {
    "cell": cell,
    "structure": structure,
    "invariant": invariant,
    "cfid": cfid,
}


def describe(records: Sequence[Record], kind: str) -> FloatArray:
    """Descriptors of all records, shape (n, features).

    A crystal whose descriptors cannot be computed gets a row of NaN, so that it stays in the count of missing
    predictions.

    Raises
    ------
    DataError
        ``unknown-descriptors``.
    ModelError
        ``missing-extra``; ``descriptor-failed`` when not one crystal can be described.
    """
    if kind not in DESCRIPTORS:
        names = ", ".join(DESCRIPTORS)
        raise DataError("unknown-descriptors", f"unknown descriptors {kind!r}; use one of {names}")
    rows: list[FloatArray | None] = []
    first: ModelError | DataError | None = None
    for record in records:
        try:
            rows.append(DESCRIPTORS[kind](record))
        except (ModelError, DataError) as error:
            if error.code == "missing-extra":
                raise
            first = first or error
            rows.append(None)
    width = max((len(row) for row in rows if row is not None), default=0)
    if not width:
        raise first or DataError("no-rows", "no crystal to describe")
    out = np.full((len(rows), width), np.nan)
    for k, row in enumerate(rows):
        if row is not None:
            out[k] = row
    return out

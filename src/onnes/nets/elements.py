"""Features of the elements for graph networks, computed at run time from the tables of pymatgen and ASE.

The eight properties are those of the ALIGNN paper and of the formation-energy model of InvDesFlow:
electronegativity, group, covalent radius, valence electrons, first ionisation energy, electron affinity, outermost
orbital and atomic volume.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np

from onnes.crystal.formula import covalent_radii

#: Highest atomic number with features.
MAX_Z = 103

PROPERTIES = (
    "electronegativity",
    "group",
    "covalent_radius_A",
    "valence_electrons",
    "ionisation_energy_eV",
    "electron_affinity_eV",
    "orbital",
    "molar_volume_cm3",
)

_NOBLE = (0, 2, 10, 18, 36, 54, 86)
_BINS = {
    "electronegativity": (0.5, 4.0, 10),
    "covalent_radius_A": (0.25, 2.5, 10),
    "valence_electrons": (0.5, 16.5, 16),
    "ionisation_energy_eV": (np.log(3.8), np.log(25.0), 10),
    "electron_affinity_eV": (-3.0, 3.7, 10),
    "molar_volume_cm3": (np.log(4.0), np.log(75.0), 10),
}


@lru_cache(maxsize=1)
def properties() -> np.ndarray:
    """Return the eight properties of every element.

    Returns
    -------
    ndarray, shape (104, 8)
        Row Z, columns `PROPERTIES`; ``orbital`` is 0 to 3 for s, p, d, f. NaN where the tables have no value,
        and in row 0.
    """
    from pymatgen.core import Element

    table = np.full((MAX_Z + 1, len(PROPERTIES)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of every missing value; they are NaN here
        for z in range(1, MAX_Z + 1):
            element = Element.from_Z(z)
            block = "s" if z == 2 else element.block
            table[z] = [
                element.X,
                element.group,
                covalent_radii()[z],
                _valence(z, block, element.group),
                _or_nan(element.ionization_energy),
                _or_nan(element.electron_affinity),
                "spdf".index(block),
                _or_nan(element.molar_volume),
            ]
    table.setflags(write=False)
    return table


@lru_cache(maxsize=1)
def standardised() -> np.ndarray:
    """Return the properties with mean 0 and standard deviation 1 over the elements; 0 where unknown.

    Returns
    -------
    ndarray, shape (104, 8)
    """
    table = properties()
    scaled = (table - np.nanmean(table, axis=0)) / np.nanstd(table, axis=0)
    scaled = np.where(np.isfinite(scaled), scaled, 0.0)
    scaled.setflags(write=False)
    return scaled


@lru_cache(maxsize=1)
def one_hot() -> np.ndarray:
    """Return the properties in bins, one column a bin, as networks of the CGCNN family read them.

    Returns
    -------
    ndarray, shape (104, 88)
        Ionisation energy and volume are binned by logarithm. An unknown value leaves its bins empty.
    """
    table = properties()
    columns = []
    for name, values in zip(PROPERTIES, table.T, strict=True):
        if name == "group":
            columns.append(_bins(values, 0.5, 18.5, 18))
        elif name == "orbital":
            columns.append(_bins(values, -0.5, 3.5, 4))
        else:
            low, high, count = _BINS[name]
            logarithm = name in ("ionisation_energy_eV", "molar_volume_cm3")
            columns.append(_bins(np.log(values) if logarithm else values, low, high, count))
    hot = np.concatenate(columns, axis=1)
    hot.setflags(write=False)
    return hot


def _valence(z: int, block: str, group: int) -> int:
    """Electrons outside the closed shells: of s and d elements the group, without a full d shell for p."""
    if block == "f":
        return z - max(n for n in _NOBLE if n < z)
    if z == 2:
        return 2
    return group - 10 if block == "p" else group


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _bins(values: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
    """One-hot bins of equal width; values beyond the ends fall in the end bins, NaN in none."""
    known = np.isfinite(values)
    position = np.floor((np.where(known, values, low) - low) / (high - low) * count)
    hot = np.eye(count)[np.clip(position, 0, count - 1).astype(int)]
    return hot * known[:, None]

"""What a 3D view draws: the atoms of one cell with their boundary images, bonds and cell edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A pair is a bond if it is shorter than this many times the sum of the covalent radii ...
_RADII = 1.25
#: ... and than this many times the nearest-neighbour distance of either atom. The second rule keeps
#: second shells out: in a metal they lie within the first limit but are no bonds.
_SHELL = 1.15
#: Atoms this close to a face (fractional) are repeated on the opposite face.
_FACE = 0.02
#: More atoms than this are drawn without boundary images, and without bonds: a phone must turn it.
_MANY = 120


def view_model(structure: dict[str, Any]) -> dict[str, Any]:
    """Turn a structure into plain lists that the page's viewer draws.

    Parameters
    ----------
    structure : dict
        ``lattice`` (3x3, angstrom), ``species`` (n symbols), ``frac`` (n, 3).

    Returns
    -------
    dict
        ``lattice``; ``atoms``: one ``[element index, x, y, z]`` each in angstrom; ``bonds``: index
        pairs into ``atoms``; ``elements``: one ``[symbol, colour, radius in angstrom]`` each.
    """
    species = [str(symbol) for symbol in structure["species"]]
    lattice = np.asarray(structure["lattice"], dtype=float)
    frac = np.asarray(structure["frac"], dtype=float).reshape(-1, 3)
    frac = frac - np.floor(frac + _FACE)
    names = sorted(set(species))
    owner, shift = _boundary_images(frac)
    positions = (frac[owner] + shift) @ lattice
    drawn = {(int(i), *map(int, s)): k for k, (i, s) in enumerate(zip(owner, shift, strict=True))}
    return {
        "lattice": [[round(float(x), 4) for x in row] for row in lattice],
        "atoms": [
            [names.index(species[i]), *(round(float(x), 3) for x in xyz)]
            for i, xyz in zip(owner, positions, strict=True)
        ],
        "bonds": _bonds(species, frac, lattice, drawn),
        "elements": [[name, *_look(name)] for name in names],
    }


def _boundary_images(frac: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index and lattice shift of every atom drawn: those of the cell, and images on its far faces."""
    owner, shift = [], []
    for i, position in enumerate(frac):
        ranges = [(0, 1) if len(frac) <= _MANY and x < _FACE else (0,) for x in position]
        for a in ranges[0]:
            for b in ranges[1]:
                for c in ranges[2]:
                    owner.append(i)
                    shift.append((a, b, c))
    return np.asarray(owner, dtype=np.int64), np.asarray(shift, dtype=np.int64).reshape(-1, 3)


def _bonds(
    species: list[str],
    frac: NDArray[np.float64],
    lattice: NDArray[np.float64],
    drawn: dict[tuple[int, ...], int],
) -> list[list[int]]:
    """Bonds between drawn atoms, each once, as index pairs."""
    from ase import Atoms
    from ase.data import atomic_numbers, covalent_radii
    from matscipy.neighbours import neighbour_list

    if not species or len(species) > _MANY or abs(np.linalg.det(lattice)) < 1e-6:
        return []
    if not all(name in atomic_numbers for name in species):
        return []
    atoms = Atoms(species, scaled_positions=frac, cell=lattice, pbc=True)
    reach = _RADII * np.array([covalent_radii[atomic_numbers[name]] for name in species])
    first, second, distance, offset = neighbour_list("ijdS", atoms, 2.0 * float(reach.max()))
    near = distance < reach[first] + reach[second]
    first, second, distance, offset = first[near], second[near], distance[near], offset[near]
    nearest = np.full(len(species), np.inf)
    np.minimum.at(nearest, first, distance)
    keep = distance <= _SHELL * np.maximum(nearest[first], nearest[second])
    pairs = set()
    for i, j, s in zip(first[keep], second[keep], offset[keep], strict=True):
        for (k, *shift), index in drawn.items():
            if k != i:
                continue
            other = drawn.get((int(j), *(int(a + b) for a, b in zip(shift, s, strict=True))))
            if other is not None and other != index:
                pairs.add((min(index, other), max(index, other)))
    return [list(pair) for pair in sorted(pairs)]


def _look(symbol: str) -> tuple[str, float]:
    """Colour (hex) and drawn radius (angstrom) of an element; grey for an unknown symbol."""
    from ase.data import atomic_numbers, covalent_radii
    from ase.data.colors import jmol_colors

    number = atomic_numbers.get(symbol, 0)
    # Near-white elements vanish on a white page; they are darkened to a light grey.
    colour = np.minimum(jmol_colors[number], 0.88) if number else np.full(3, 0.6)
    red, green, blue = (round(255 * float(c)) for c in colour)
    return f"#{red:02x}{green:02x}{blue:02x}", round(0.2 + 0.25 * float(covalent_radii[number]), 3)

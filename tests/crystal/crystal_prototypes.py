"""Hand-written prototypes, and ways to write one crystal in another cell."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Lattice, Structure


def prototypes() -> dict[str, Structure]:
    """Return well-known crystals by name; lattice constants are textbook values."""
    make = Structure.from_spacegroup
    return {
        "fcc-Al": make(225, Lattice.cubic(4.05), ["Al"], [[0, 0, 0]]),
        "bcc-Nb": make(229, Lattice.cubic(3.30), ["Nb"], [[0, 0, 0]]),
        "hcp-Mg": make(194, Lattice.hexagonal(3.21, 5.21), ["Mg"], [[1 / 3, 2 / 3, 1 / 4]]),
        "MgB2": make(191, Lattice.hexagonal(3.086, 3.524), ["Mg", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 1 / 2]]),
        "CsCl": make(221, Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "zincblende": make(216, Lattice.cubic(5.41), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
        "perovskite": make(
            221, Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        ),
        "rutile": make(136, Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
        "A15": make(223, Lattice.cubic(5.29), ["Nb", "Sn"], [[0.25, 0, 0.5], [0, 0, 0]]),
        "CrB": make(
            63, Lattice.orthorhombic(2.97, 7.86, 2.93), ["Cr", "B"], [[0, 0.146, 0.25], [0, 0.440, 0.25]]
        ),
        "P3121": make(
            152,
            Lattice.hexagonal(4.916, 5.405),
            ["Si", "O"],
            [[0.470, 0, 1 / 3], [0.414, 0.268, 0.119 + 1 / 3]],
        ),
        "monoclinic": make(
            14,
            Lattice.monoclinic(5.15, 5.21, 5.32, 99.2),
            ["Zr", "O", "O"],
            [[0.276, 0.041, 0.208], [0.070, 0.332, 0.345], [0.450, 0.757, 0.479]],
        ),
        "triclinic": Structure(
            Lattice.from_parameters(4.1, 5.3, 6.2, 81, 95, 102),
            ["Li", "P", "S", "S"],
            [[0.1, 0.2, 0.3], [0.6, 0.55, 0.71], [0.35, 0.81, 0.12], [0.9, 0.4, 0.95]],
        ),
    }


def disguise(structure: Structure, rng: np.random.Generator, noise: float = 0.0) -> Structure:
    """Return the same crystal in a random supercell, sheared, shifted, perhaps Niggli-reduced, permuted."""
    shear = np.eye(3, dtype=int)
    shear[0, 1], shear[2, 0] = rng.integers(-2, 3, size=2)
    size = np.diag([[1, 1, 1], [2, 1, 1], [1, 2, 1], [1, 1, 3], [2, 2, 2]][rng.integers(5)])
    t = structure * (shear @ size)
    t = Structure(t.lattice, t.species, t.frac_coords + rng.random(3))
    if rng.random() < 0.5:
        t = t.get_reduced_structure("niggli")
    order = rng.permutation(len(t))
    kick = rng.normal(size=(len(t), 3)) * noise / 3
    cart = t.cart_coords[order] + kick
    return Structure(t.lattice, [t.species[i] for i in order], cart, coords_are_cartesian=True)

"""Crystals for the tests of graphs and networks, written by hand."""

import numpy as np
from pymatgen.core import Lattice, Structure

FCC = [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]


def al() -> Structure:
    return Structure(4.05 * np.array(FCC), ["Al"], [[0, 0, 0]])


def cs() -> Structure:
    return Structure(3.07 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]), ["Cs"], [[0, 0, 0]])


def mgb2() -> Structure:
    lattice = Lattice.hexagonal(3.086, 3.524)
    return Structure(lattice, ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])


def perovskite() -> Structure:
    frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Structure(Lattice.cubic(3.905), ["Sr", "Ti", "O", "O", "O"], frac)


def lowsym(seed: int = 3) -> Structure:
    """Triclinic, six atoms, no symmetry, no close contacts."""
    rng = np.random.default_rng(seed)
    lattice = Lattice.from_parameters(5.1, 5.9, 6.3, 82, 97, 108)
    frac = np.array(
        [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]
    )
    return Structure(lattice, ["Y", "Ni", "B", "C", "Nb", "Pd"], frac + rng.normal(0, 0.03, frac.shape))


def needle() -> Structure:
    lattice = Lattice.from_parameters(3, 3, 60, 90, 90, 20)
    return Structure(lattice, ["Al", "Nb"], [[0.1, 0.2, 0.3], [0.6, 0.1, 0.32]])


def bain(ratio: float) -> Structure:
    """NbAl on the way from bcc (1) to fcc (1.41) at constant volume: shells split and cross."""
    lattice = Lattice.tetragonal(3.3 / ratio ** (1 / 3), 3.3 * ratio ** (2 / 3))
    return Structure(lattice, ["Nb", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def everyday() -> list[Structure]:
    return [al(), cs(), mgb2(), perovskite(), lowsym()]


def rotated(s: Structure, seed: int = 0) -> Structure:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q = q * np.linalg.det(q)
    return Structure(s.lattice.matrix @ q.T, s.species, s.frac_coords)


def shifted(s: Structure, seed: int = 1) -> Structure:
    move = np.random.default_rng(seed).uniform(-2, 2, 3)
    return Structure(s.lattice, s.species, s.frac_coords + move)


def permuted(s: Structure, seed: int = 2) -> Structure:
    order = np.random.default_rng(seed).permutation(len(s))
    return Structure(s.lattice, [s.species[k] for k in order], s.frac_coords[order])


def noisy(s: Structure, size: float = 1e-9, seed: int = 4) -> Structure:
    rng = np.random.default_rng(seed)
    cart = s.cart_coords + rng.uniform(-size, size, (len(s), 3))
    return Structure(
        s.lattice.matrix + rng.uniform(-size, size, (3, 3)) / 10, s.species, cart, coords_are_cartesian=True
    )


def supercell(s: Structure, scale: object = (2, 2, 2)) -> Structure:
    big = s.copy()
    big.make_supercell(scale)
    return big


def views(s: Structure) -> dict[str, Structure]:
    """The same crystal written in other ways."""
    return {
        "rotated": rotated(s),
        "shifted": shifted(s),
        "permuted": permuted(s),
        "noisy": noisy(s),
        "supercell": permuted(supercell(s)),
        "niggli": s.get_reduced_structure("niggli"),
        "sheared": supercell(s, [[1, 3, 0], [0, 1, 0], [2, 0, 1]]),
    }


def roughness(values: np.ndarray) -> float:
    """Largest step of a curve over its largest step on a grid 8 times coarser: 1/8 if smooth, 1 if it jumps."""
    return float(np.abs(np.diff(values)).max() / np.abs(np.diff(values[::8])).max())

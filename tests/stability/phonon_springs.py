"""A crystal of springs, whose phonons are known in closed form."""

from __future__ import annotations

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from matscipy.neighbours import neighbour_list
from scipy import constants

#: (eV/A^2/u)^(1/2) / 2 pi in THz.
TO_THZ = np.sqrt(constants.e / 1e-20 / constants.atomic_mass) / (2e12 * np.pi)
TO_CM1 = 1e12 / (100.0 * constants.c)


class Springs(Calculator):
    """Springs between atoms about `lengths` apart, stiffness (eV/A^2) each; at rest at exactly those lengths."""

    implemented_properties = ("energy", "forces")

    def __init__(self, lengths, stiffness):
        super().__init__()
        self.lengths, self.stiffness = np.array(lengths), np.array(stiffness)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, vector = neighbour_list("iD", atoms, float(self.lengths.max()) * 1.1)
        d = np.linalg.norm(vector, axis=1)
        shell = np.abs(d[:, None] - self.lengths).argmin(1)
        stretch = d - self.lengths[shell]
        k = np.where(np.abs(stretch) < 0.1 * self.lengths[shell], self.stiffness[shell], 0.0)
        force = np.zeros((len(atoms), 3))
        np.add.at(force, i, (k * stretch / d)[:, None] * vector)
        self.results = {"energy": 0.25 * float((k * stretch**2).sum()), "forces": force}


def fcc_frequencies(q, a, mass, stiffness):
    """Frequencies in THz of an fcc crystal with springs to first and second neighbours; q in 1/A, without 2 pi.

    D(q) = (1/m) sum over neighbours R of k n n^T (1 - cos 2 pi q R).
    """
    first = [np.roll([x, y, 0], s) * a / 2 for x in (1, -1) for y in (1, -1) for s in range(3)]
    second = [np.roll([x, 0, 0], s) * a for x in (1, -1) for s in range(3)]
    dynamical = np.zeros((3, 3))
    for k, shell in zip(stiffness, (first, second), strict=True):
        for bond in shell:
            n = bond / np.linalg.norm(bond)
            dynamical += k / mass * np.outer(n, n) * (1 - np.cos(2 * np.pi * q @ bond))
    squared = np.linalg.eigvalsh(dynamical)
    return np.sign(squared) * np.sqrt(np.abs(squared)) * TO_THZ

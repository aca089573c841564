"""Every potential by name: loads, knows its forces, has a hash of its own."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from onnes.errors import SettingsError
from onnes.stability.potentials import POTENTIALS, calculator, elements, potential, potential_hash


@pytest.mark.parametrize("name", ["7net-mf-0", "7net-l3i5"])
def test_forces_are_the_slope_of_the_energy(name):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.1, seed=1)
    atoms.calc = calculator(name)
    force, step = atoms.get_forces()[0, 0], 0.01
    energies = []
    for sign in (1.0, -1.0):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[0, 0] += sign * step
        energies.append(moved.get_potential_energy())
    assert abs(force) > 0.1
    # The potentials work in single precision: energies are good to 1e-6 eV.
    assert force == pytest.approx((energies[1] - energies[0]) / (2 * step), abs=2e-3)
    assert np.abs(atoms.get_forces().sum(0)).max() < 1e-4
    assert {1, 5, 12, 41} <= elements(name) and 84 not in elements(name)


def test_names_and_hashes():
    assert {"7net-0", "7net-l3i5", "7net-mf-0", "7net-mf-0-r2scan"} <= set(POTENTIALS)
    assert all(each.name == name for name, each in POTENTIALS.items())
    hashes = {potential_hash(name) for name in POTENTIALS}
    # Both sides of the multi-fidelity potential share one file of weights.
    assert len(hashes) == len(POTENTIALS)
    assert potential("7net-mf-0").weights == potential("7net-mf-0-r2scan").weights
    with pytest.raises(SettingsError, match=r"7net-0.*unknown-potential"):
        potential("7net")

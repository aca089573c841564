"""The frozen potential: invariances and agreement with its own ASE calculator."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.errors import ModelError
from onnes.learn.features import FrozenPotential


@pytest.fixture(scope="module")
def potential():
    return FrozenPotential()


def mgb2():
    lattice = Lattice.hexagonal(3.085, 3.523)
    return Structure(lattice, ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])


def test_energy_is_the_calculators(potential):
    from pymatgen.io.ase import AseAtomsAdaptor
    from sevenn.calculator import SevenNetCalculator

    atoms = AseAtomsAdaptor.get_atoms(mgb2(), msonable=False)
    atoms.calc = SevenNetCalculator("7net-0", device="cpu")
    (one,) = potential.evaluate([mgb2()])
    assert one.energy_eV_atom == pytest.approx(atoms.get_potential_energy() / 3, abs=2e-5)
    assert one.x.shape == (3, 576)


def test_rotation_permutation_and_supercell_change_nothing(potential):
    start = mgb2()
    turned = start.copy()
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    q = q * np.sign(np.linalg.det(q))
    turned = Structure(Lattice(start.lattice.matrix @ q), start.species, start.frac_coords)
    swapped = Structure(start.lattice, start.species[::-1], start.frac_coords[::-1])
    large = start * (2, 1, 2)
    a, b, c, d = potential.evaluate([start, turned, swapped, large])
    np.testing.assert_allclose(b.x, a.x, atol=2e-4)
    np.testing.assert_allclose(c.x[::-1], a.x, atol=2e-4)
    np.testing.assert_allclose(d.x.mean(0), a.x.mean(0), atol=2e-4)


def test_batching_changes_nothing(potential):
    al = Structure(Lattice.cubic(4.05), ["Al"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    together = list(potential.evaluate([mgb2(), al, mgb2()]))
    (alone,) = potential.evaluate([al])
    np.testing.assert_allclose(together[1].x, alone.x, atol=2e-4)
    np.testing.assert_allclose(together[0].x, together[2].x, atol=2e-4)


def test_unknown_element_is_named(potential):
    with pytest.raises(ModelError, match="Cm"):
        list(potential.evaluate([Structure(Lattice.cubic(3.0), ["Cm"], [[0, 0, 0]])]))

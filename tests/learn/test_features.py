"""The frozen potential: invariances and agreement with its own ASE calculator."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.errors import CrystalError, ModelError
from onnes.learn.features import LAYERS, POTENTIAL, FrozenPotential
from onnes.learn.predictors import predictor


@pytest.fixture(scope="module")
def potential():
    """That of the shipped predictor, which other tests of this process use as well."""
    found = predictor("standard").epc.frozen[POTENTIAL]
    assert isinstance(found, FrozenPotential) and found.layers == frozenset(LAYERS)
    return found


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


def mixed():
    """Crystals of 1 to 36 atoms, more in all than a batch takes."""
    al = Structure(Lattice.cubic(4.05), ["Al"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    nb = Structure(Lattice.cubic(3.3), ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return [mgb2(), nb.get_primitive_structure(), al * (3, 3, 1), al, mgb2() * (2, 2, 1), nb, mgb2(), al]


def alone(potential, structures):
    return [next(potential.evaluate([s])) for s in structures]


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.x, b.x, rtol=1e-5, atol=2e-5)
        assert a.energy_eV_atom == pytest.approx(b.energy_eV_atom, abs=1e-5)


def test_batching_changes_nothing(potential):
    assert sum(map(len, mixed())) > 2 * potential.atoms_per_batch
    same(potential.evaluate(mixed()), alone(potential, mixed()))


def test_out_of_memory_halves_the_batch(potential, monkeypatch):
    """The forward pass itself fails, as torch fails on a CPU, whenever it is given more than ten atoms."""
    expected = alone(potential, mixed())
    plain, asked = potential.model._preprocess, []

    def small(data):
        asked.append(len(data["atomic_numbers"]))
        if asked[-1] > 10:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return plain(data)

    monkeypatch.setattr(potential.model, "_preprocess", small)
    found = list(potential.attempt(mixed()))
    large = [k for k, s in enumerate(mixed()) if len(s) > 10]
    assert large and all(isinstance(found[k], CrystalError) for k in large)
    assert {found[k].code for k in large} == {"out-of-memory"}
    rest = [k for k in range(len(found)) if k not in large]
    same([found[k] for k in rest], [expected[k] for k in rest])
    assert max(asked) > 20 and len(asked) > len(found) / 2


def test_other_errors_of_torch_are_not_taken_for_memory(potential, monkeypatch):
    def wrong(data):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(potential.model, "_preprocess", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        list(potential.attempt([mgb2(), mgb2()]))
    monkeypatch.setattr(potential.model, "_preprocess", lambda data: (_ for _ in ()).throw(MemoryError))
    assert [e.code for e in potential.attempt([mgb2(), mgb2()])] == ["out-of-memory"] * 2


def test_a_refusal_costs_its_own_place_only(potential):
    curium = Structure(Lattice.cubic(3.0), ["Cm"], [[0, 0, 0]])
    first, second, third = potential.attempt([mgb2(), curium, mgb2()])
    assert isinstance(second, ModelError) and second.code == "unknown-element"
    assert np.array_equal(first.x, third.x)


def test_unknown_element_is_named(potential):
    with pytest.raises(ModelError, match="Cm"):
        list(potential.evaluate([Structure(Lattice.cubic(3.0), ["Cm"], [[0, 0, 0]])]))

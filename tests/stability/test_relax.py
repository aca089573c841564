"""Relaxation: known lattice constants, invariances, and what must be called a failure."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from pymatgen.core import Lattice, Structure

from onnes.errors import CrystalError, SettingsError
from onnes.stability.potentials import calculator, potential, potential_hash
from onnes.stability.relax import RelaxSettings, relax


def al(a: float = 4.2) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Al"], [[0, 0, 0]]).get_primitive_structure()


def mgb2() -> Structure:
    return Structure.from_spacegroup(
        "P6/mmm", Lattice.hexagonal(3.2, 3.4), ["Mg", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 1 / 2]]
    )


@pytest.fixture(scope="module")
def relaxed_al():
    return relax(al())


def test_aluminium_finds_its_lattice_constant(relaxed_al):
    # PBE gives 4.04 A (experiment 4.05 A).
    assert relaxed_al.converged and relaxed_al.reason == ""
    assert (4 * relaxed_al.structure.volume) ** (1 / 3) == pytest.approx(4.04, abs=0.03)
    assert relaxed_al.energy_eV_atom < relaxed_al.energy_start_eV_atom
    assert relaxed_al.fmax_eV_A <= 0.05
    assert relaxed_al.volume_change == pytest.approx(relaxed_al.structure.volume / al().volume - 1)
    assert relaxed_al.rmsd_A == pytest.approx(0.0, abs=1e-6)


def test_supercell_has_the_same_energy_per_atom(relaxed_al):
    big = al()
    big.make_supercell(2)
    done = relax(big)
    assert done.energy_eV_atom == pytest.approx(relaxed_al.energy_eV_atom, abs=2e-3)


def test_rotation_and_order_do_not_matter():
    start = mgb2().copy()
    start.perturb(0.05, seed=1)
    angle = 0.7
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    other = Structure(start.lattice.matrix @ turn, start.species[::-1], start.frac_coords[::-1])
    a, b = relax(start), relax(other)
    assert a.steps == b.steps
    assert a.energy_eV_atom == pytest.approx(b.energy_eV_atom, abs=1e-4)
    assert np.allclose(a.structure.lattice.abc, b.structure.lattice.abc, atol=1e-3)


def test_same_input_same_output_to_the_last_digit():
    start = mgb2()
    start.perturb(0.05, seed=2)
    a, b = relax(start), relax(start)
    assert np.array_equal(a.structure.lattice.matrix, b.structure.lattice.matrix)
    assert np.array_equal(a.structure.frac_coords, b.structure.frac_coords)


def test_too_few_steps_is_not_convergence():
    start = mgb2()
    start.perturb(0.2, seed=3)
    done = relax(start, RelaxSettings(max_steps=2))
    assert not done.converged and done.reason.startswith("steps: ") and done.steps == 2
    assert np.isfinite(done.energy_eV_atom)


@pytest.mark.parametrize(
    ("structure", "word"),
    [
        (Structure(Lattice.cubic(2.0), ["Na", "Cl"], [[0, 0, 0], [0.3, 0.3, 0.3]]), "exploded: force"),
        (Structure(Lattice.cubic(9.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]), "isolated: "),
    ],
    ids=["crushed", "apart"],
)
def test_leaving_the_physical_range_is_divergence(structure, word):
    done = relax(structure)
    assert not done.converged and done.reason.startswith(word)
    assert np.isnan(done.energy_eV_atom)
    assert done.structure == structure


def test_unknown_element_and_potential_are_named():
    with pytest.raises(CrystalError, match="potential-unknown-element"):
        relax(Structure(Lattice.cubic(3.35), ["Po"], [[0, 0, 0]]))
    with pytest.raises(SettingsError, match="unknown-potential"):
        potential("magic")
    with pytest.raises(SettingsError, match="bad-setting"):
        RelaxSettings(max_steps=0)


def test_any_ase_calculator_can_be_used():
    argon = Structure.from_spacegroup("Fm-3m", Lattice.cubic(1.6), ["Ar"], [[0, 0, 0]])
    lj = LennardJones(sigma=1.0, epsilon=1.0, rc=3.0, smooth=True)
    done = relax(argon, RelaxSettings(fmax_eV_A=1e-3), calc=lj)
    # Nearest-neighbour distance of the fcc Lennard-Jones crystal: 1.0902 sigma without a cut-off.
    assert done.converged
    assert done.structure.lattice.a / np.sqrt(2) == pytest.approx(1.09, abs=0.03)


def test_hash_belongs_to_the_weights():
    assert len(potential_hash()) == 16 and calculator() is calculator()

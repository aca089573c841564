"""Pressure, space group, bounds, patience and docking of a relaxation; on quick calculators."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure

from onnes.crystal.symmetry import space_group
from onnes.errors import CrystalError, SettingsError
from onnes.stability.relax import RelaxSettings, relax
from onnes.stability.relax_symmetry import find, idealise, strayed
from onnes.units import UNITS

TIGHT = RelaxSettings(fmax_eV_A=1e-3)


def cu3au(a: float = 3.8, b: float | None = None) -> Structure:
    """L1_2; tetragonally strained where b is given."""
    return Structure(
        Lattice.tetragonal(a, b or a),
        ["Au", "Cu", "Cu", "Cu"],
        [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )


def set_up(**more) -> RelaxSettings:
    return RelaxSettings(**{"fmax_eV_A": 1e-3, **more})


def test_pressure_meets_minus_the_slope_of_the_energy():
    # p = -dE/dV at the volume found, by central differences of energies at p = 0.
    pressure = 20.0
    free, pressed = relax(cu3au(), TIGHT, EMT()), relax(cu3au(), set_up(pressure_GPa=pressure), EMT())
    assert pressed.converged and pressed.structure.volume < free.structure.volume
    energies, volumes = [], []
    for scale in (0.999, 1.001):
        s = pressed.structure.copy()
        s.scale_lattice(pressed.structure.volume * scale)
        atoms = s.to_ase_atoms()
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
        volumes.append(s.volume)
    slope = -(energies[1] - energies[0]) / (volumes[1] - volumes[0]) * UNITS.eV_per_A3_to_GPa
    assert slope == pytest.approx(pressure, rel=0.01)
    work = pressure / UNITS.eV_per_A3_to_GPa * pressed.structure.volume / 4
    assert pressed.enthalpy_eV_atom == pytest.approx(pressed.energy_eV_atom + work, abs=1e-9)
    assert pressed.energy_eV_atom > free.energy_eV_atom
    assert free.enthalpy_eV_atom == free.energy_eV_atom


def test_negative_pressure_expands():
    free, pulled = relax(cu3au(), TIGHT, EMT()), relax(cu3au(), set_up(pressure_GPa=-3.0), EMT())
    assert pulled.converged and pulled.structure.volume > free.structure.volume * 1.01


def shaken(seed: int = 1) -> Structure:
    s = cu3au(3.7, 4.0)
    s.perturb(0.004, seed=seed)
    return s


def test_the_space_group_is_kept_where_free_forces_leave_it():
    kept = relax(shaken(), set_up(symmetry=True, symprec_A=0.05), EMT())
    assert kept.converged and kept.start_space_group == 123
    # The tetragonal cell relaxes to the cubic one, a supergroup.
    assert kept.space_group == 221 == space_group(kept.structure, 1e-3)[0]
    free = relax(shaken(), TIGHT, EMT())
    assert kept.energy_eV_atom == pytest.approx(free.energy_eV_atom, abs=1e-4)
    assert space_group(free.structure, 1e-5)[0] < 221
    assert space_group(kept.structure, 1e-5)[0] in (123, 221)


def test_the_last_digit_does_not_depend_on_the_global_generator():
    start = shaken(2)
    np.random.seed(1)
    one = relax(start, set_up(fmax_eV_A=0.02), EMT())
    np.random.seed(12345)
    before = np.random.get_state()[1].copy()
    two = relax(start, set_up(fmax_eV_A=0.02), EMT())
    assert np.array_equal(one.structure.lattice.matrix, two.structure.lattice.matrix)
    assert np.array_equal(one.structure.frac_coords, two.structure.frac_coords)
    assert np.array_equal(np.random.get_state()[1], before)


def test_moved_onto_its_symmetry_a_crystal_has_it():
    atoms = shaken(3).to_ase_atoms()
    operations = find(atoms, 0.05)
    assert len(operations.rotations) == 16 and strayed(atoms, operations) > 1e-3
    move = idealise(atoms, operations)
    assert 1e-3 < move < 0.05 and strayed(atoms, operations) < 1e-9
    turns = operations.cartesian(np.array(atoms.cell))
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-9)


def test_a_supercell_keeps_its_translations():
    big = cu3au(3.9)
    big.make_supercell([2, 1, 1])
    done = relax(big, set_up(symmetry=True), EMT())
    one = relax(cu3au(3.9), set_up(symmetry=True), EMT())
    assert done.converged and done.space_group == 221
    assert done.energy_eV_atom == pytest.approx(one.energy_eV_atom, abs=1e-5)


def test_volume_beyond_the_bound_stops_the_run():
    far = cu3au(4.3)
    assert relax(far, TIGHT, EMT()).converged
    done = relax(far, set_up(max_volume_change=1.1), EMT())
    assert not done.converged and done.reason.startswith("volume: ") and np.isnan(done.energy_eV_atom)
    assert done.structure == far


class Restless(Calculator):
    """Forces that neither fall nor lead anywhere."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        push = np.zeros((len(atoms), 3))
        push[0, 0], push[1, 0] = 0.2, -0.2
        self.results = {"energy": -1.0, "forces": push, "stress": np.zeros(6)}


def test_a_hopeless_run_is_given_up():
    done = relax(cu3au(), set_up(patience=15, max_step_A=0.001, max_steps=100), Restless())
    assert not done.converged and done.reason.startswith("hopeless: ") and done.steps == 15
    assert done.energy_eV_atom == pytest.approx(-0.25)
    patient = relax(cu3au(), set_up(patience=0, max_step_A=0.001, max_steps=40), Restless())
    assert patient.reason.startswith("steps: ") and patient.steps == 40


def test_patience_does_not_stop_what_gets_somewhere():
    start = cu3au(4.2)
    start.perturb(0.2, seed=1)
    assert relax(start, set_up(patience=10), EMT()).converged


class Lies(Calculator):
    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, energy):
        super().__init__()
        self.told = energy

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.told is None:
            raise NotImplementedError("no parameters for this element")
        self.results = {"energy": self.told, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}


def test_what_is_not_a_number_is_called_so_and_a_refusal_a_refusal():
    assert relax(cu3au(), TIGHT, Lies(np.nan)).reason.startswith("nan: ")
    with pytest.raises(CrystalError, match=r"no parameters.*potential-refused"):
        relax(cu3au(), TIGHT, Lies(None))


def test_docking_saves_a_cell_whose_atoms_clash():
    clash = cu3au(4.0)
    clash.replace(1, "Cu", [0.05, 0.05, 0.0])
    before = relax(clash, set_up(max_steps=300), EMT())
    done = relax(clash, set_up(dock=True, max_steps=300), EMT())
    assert done.docked_steps > 0
    assert done.converged, done.reason
    # EMT's pure repulsion may or may not survive the clash; never with a lower energy from a better start.
    assert not before.converged or done.energy_eV_atom < before.energy_eV_atom + 0.1
    assert relax(cu3au(), set_up(dock=True), EMT()).docked_steps == 0


@pytest.mark.parametrize(
    "wrong", [{"pressure_GPa": np.nan}, {"max_volume_change": 1.0}, {"symprec_A": 0.0}, {"patience": -1}]
)
def test_bad_settings(wrong):
    with pytest.raises(SettingsError, match="bad-setting"):
        RelaxSettings(**wrong)


@pytest.mark.parametrize("size", [1, 200])
def test_one_atom_and_two_hundred(size):
    one = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.7), ["Cu"], [[0, 0, 0]])
    small = one.get_primitive_structure()
    if size == 200:
        one.make_supercell([5, 5, 2])
        small = one
    assert len(small) == size
    done = relax(small, set_up(fmax_eV_A=0.01, symmetry=size == 1), EMT())
    assert done.converged
    assert (done.structure.volume / size * 4) ** (1 / 3) == pytest.approx(3.59, abs=0.02)

"""The contract of calculators: sound ones keep it, and each kind of unsound one fails the check made for it."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from onnes.errors import SettingsError
from onnes.stability.contract import contract
from onnes.stability.potentials import calculator, elements

EMT_ELEMENTS = (1, 6, 7, 8, 13, 28, 29, 46, 47, 78, 79)
NAMES = [
    "finite",
    "translation",
    "rotation-energy",
    "rotation-forces",
    "rotation-stress",
    "net-force",
    "forces",
    "stress",
    "permutation",
    "cell",
    "supercell",
    "isolated-atom",
    "history",
]


class Spoilt(Calculator):
    """EMT with one fault."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self):
        super().__init__()
        self.calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        sound = EMT()
        self.calls += 1
        found = {name: sound.get_property(name, atoms) for name in self.implemented_properties}
        self.results = self.spoil(atoms, found)


class WrongSign(Spoilt):
    def spoil(self, atoms, found):
        return {**found, "stress": -found["stress"]}


class Gigapascal(Spoilt):
    def spoil(self, atoms, found):
        return {**found, "stress": found["stress"] * 160.21766}


class WrongVoigt(Spoilt):
    def spoil(self, atoms, found):
        return {**found, "stress": found["stress"][[0, 1, 2, 5, 3, 4]]}


class Atomic(Spoilt):
    """Forces in hartree/bohr."""

    def spoil(self, atoms, found):
        return {**found, "forces": found["forces"] / 51.4221}


class NotTheGradient(Spoilt):
    """Forces that a network predicts directly: small errors, sum zero."""

    def spoil(self, atoms, found):
        wrong = found["forces"] * 0.05
        return {**found, "forces": found["forces"] + wrong - wrong.mean(axis=0)}


class Drifting(Spoilt):
    def spoil(self, atoms, found):
        return {**found, "forces": found["forces"] + 0.01}


class KnowsDirections(Spoilt):
    def spoil(self, atoms, found):
        extra = 1e-3 * float(np.array(atoms.cell)[0, 0])
        return {**found, "energy": found["energy"] + extra, "free_energy": found["energy"] + extra}


class KnowsPlaces(Spoilt):
    def spoil(self, atoms, found):
        extra = 1e-3 * float((atoms.get_scaled_positions() ** 2).sum())
        return {**found, "energy": found["energy"] + extra, "free_energy": found["energy"] + extra}


class KnowsOrder(Spoilt):
    def spoil(self, atoms, found):
        forces = found["forces"].copy()
        forces[0, 0] += 0.1
        forces[-1, 0] -= 0.1
        return {**found, "forces": forces}


class Intensive(Spoilt):
    def spoil(self, atoms, found):
        return {**found, "energy": found["energy"] / len(atoms), "free_energy": found["energy"] / len(atoms)}


class Remembers(Spoilt):
    def spoil(self, atoms, found):
        extra = 1e-3 * self.calls
        return {**found, "energy": found["energy"] + extra, "free_energy": found["energy"] + extra}


class Silent(Spoilt):
    """NaN for an atom without neighbours."""

    def spoil(self, atoms, found):
        return {**found, "energy": np.nan, "free_energy": np.nan} if len(atoms) == 1 else found


class Stumbles(Spoilt):
    def spoil(self, atoms, found):
        if len(atoms) == 1:
            raise IndexError("index 0 is out of bounds")
        return found


def failed(calc, **more):
    return {check.name: check for check in contract(calc, **more) if not check.passed}


@pytest.mark.parametrize("calc", [EMT(), LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True)])
def test_sound_calculators_pass(calc):
    checks = contract(calc, EMT_ELEMENTS if isinstance(calc, EMT) else None)
    assert [c.name for c in checks] == NAMES
    assert [c.words for c in checks if not c.passed] == []


def test_the_default_potential_passes():
    assert failed(calculator("7net-0"), elements=elements("7net-0")) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["7net-l3i5", "7net-mf-0", "7net-mf-0-r2scan"])
def test_the_other_shipped_potentials_pass(name):
    assert failed(calculator(name), elements=elements(name)) == {}


@pytest.mark.parametrize(
    ("spoilt", "check", "words"),
    [
        (WrongSign, "stress", "the sign is the opposite"),
        (Gigapascal, "stress", "given in GPa"),
        (WrongVoigt, "stress", "not off by one factor"),
        (NotTheGradient, "forces", "forces against -dE/dx"),
        (Atomic, "forces", "given in hartree/bohr"),
        (Drifting, "net-force", ""),
        (KnowsDirections, "rotation-energy", ""),
        (KnowsPlaces, "translation", ""),
        (KnowsOrder, "permutation", ""),
        (Intensive, "supercell", ""),
        (Remembers, "history", ""),
        (Silent, "isolated-atom", "nan"),
        (Stumbles, "isolated-atom", "IndexError"),
    ],
)
def test_every_fault_fails_its_check(spoilt, check, words):
    found = failed(spoilt(), elements=EMT_ELEMENTS)
    assert check in found and words in found[check].words


@pytest.mark.parametrize("spoilt", [WrongSign, Gigapascal, WrongVoigt])
def test_a_wrong_stress_is_not_blamed_on_anything_else(spoilt):
    assert set(failed(spoilt(), elements=EMT_ELEMENTS)) <= {"stress", "rotation-stress"}


def test_a_crystal_of_ones_own_and_no_crystal_at_all():
    from ase.build import bulk

    crystal = bulk("Ni", cubic=True)
    crystal.rattle(0.1, seed=1)
    assert failed(EMT(), atoms=crystal) == {}
    before = crystal.positions.copy()
    assert np.array_equal(before, crystal.positions)
    with pytest.raises(SettingsError, match="no-test-crystal"):
        contract(EMT(), elements=[26])


def test_a_calculator_that_cannot_do_it_fails_every_check_without_raising():
    class Nothing(Calculator):
        implemented_properties = ("energy",)

        def calculate(self, *args, **kwargs):
            raise RuntimeError("no licence")

    checks = contract(Nothing(), EMT_ELEMENTS)
    assert [c.name for c in checks] == NAMES and not any(c.passed for c in checks)
    assert all("no licence" in c.words or "not implemented" in c.words.lower() for c in checks)

"""What an ASE calculator must keep to before its relaxations mean anything: a test that a user runs on their own.

Every check measures one number and compares it with a tolerance. Derivatives are taken with the five-point central
difference of step `STEP`, whose own error is far below the tolerances for any potential that is smooth:
f' = [8 (f(h) - f(-h)) - (f(2h) - f(-2h))] / (12 h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.errors import OnnesError, SettingsError
from onnes.units import UNITS

if TYPE_CHECKING:
    from ase import Atoms

#: Displacement in A, and strain times ten.
STEP = 0.02
#: Rounding of a potential in single precision, in eV an atom and eV/A.
ENERGY_TOL = 2e-5
FORCE_TOL = 1e-3
#: Slopes of an energy in single precision; a force field whose forces are not its gradient misses them by 0.05.
SLOPE_TOL_eV_A = 5e-3
#: Below the stress that a cell relaxed to 0.05 eV/A is left with.
STRESS_TOL_GPA = 0.05
#: Relative part of both, for stiff crystals.
RELATIVE_TOL = 0.002
#: Crystals tried, the first whose elements are known: elements, structure, lattice constant in A.
PAIRS = (
    ("NaCl", "rocksalt", 5.64),
    ("TiN", "rocksalt", 4.24),
    ("CuAu", "cesiumchloride", 3.15),
    ("SiC", "zincblende", 4.36),
    ("ArAr", "cesiumchloride", 4.3),
)


@dataclass(frozen=True)
class Check:
    """One line of the contract.

    Attributes
    ----------
    name : str
    measured, tolerance : float
        In ``unit``; passed when measured <= tolerance. NaN: it could not be measured.
    unit : str
    words : str
        What was compared, and what is probably wrong where that can be told.
    """

    name: str
    measured: float
    tolerance: float
    unit: str
    words: str

    @property
    def passed(self) -> bool:
        """Whether the calculator keeps to it (NaN never does)."""
        return bool(self.measured <= self.tolerance)


def contract(calc: Any, elements: Iterable[int] | None = None, atoms: Atoms | None = None) -> list[Check]:
    """Test a calculator.

    Parameters
    ----------
    calc : ASE calculator
        With energy, forces and stress.
    elements : iterable of int, optional
        Atomic numbers it knows; decides which crystal is made of what. Default: all.
    atoms : ase Atoms, optional
        The crystal to test on, of at least two atoms, instead: low in symmetry, so that no component vanishes.

    Returns
    -------
    list of Check
        Always all of them. A check that the calculator answers with an exception has measured NaN.

    Raises
    ------
    SettingsError
        ``no-test-crystal``: none of the pairs of `PAIRS` is known, and no crystal was given.
    """
    crystal = atoms.copy() if atoms is not None else _crystal(elements)
    probe = _Probe(calc, crystal)
    todo: tuple[Callable[[_Probe], Check], ...] = (
        _finite,
        _translation,
        _rotation_energy,
        _rotation_forces,
        _rotation_stress,
        _net_force,
        _forces,
        _stress,
        _permutation,
        _cell,
        _supercell,
        _isolated_atom,
        _history,
    )
    return [_measured(check, probe) for check in todo]


class _Probe:
    """A calculator and a crystal, with its numbers at rest."""

    def __init__(self, calc: Any, crystal: Atoms) -> None:
        self.calc, self.crystal = calc, crystal

    def at(self, atoms: Atoms) -> Atoms:
        """A copy of atoms with the calculator, its memory of earlier results cleared."""
        fresh = atoms.copy()
        if callable(getattr(self.calc, "reset", None)):
            self.calc.reset()
        fresh.calc = self.calc
        return fresh

    def energy(self, atoms: Atoms) -> float:
        """The energy whose gradient the forces are."""
        return _energy(self.at(atoms))

    def forces(self, atoms: Atoms) -> np.ndarray:
        return np.array(self.at(atoms).get_forces(), dtype=float)

    def stress(self, atoms: Atoms) -> np.ndarray:
        return np.array(self.at(atoms).get_stress(voigt=False), dtype=float)


def _energy(atoms: Atoms) -> float:
    from ase.calculators.calculator import PropertyNotImplementedError

    try:
        return float(atoms.get_potential_energy(force_consistent=True))
    except PropertyNotImplementedError:  # no smearing, no difference: as ASE's optimisers do
        return float(atoms.get_potential_energy())


def _measured(check: Callable[[_Probe], Check], probe: _Probe) -> Check:
    try:
        return check(probe)
    except Exception as error:  # a calculator of someone else: whatever it raises is the finding
        name = check.__name__.lstrip("_").replace("_", "-")
        return Check(name, np.nan, 0.0, "", f"{type(error).__name__}: {' '.join(str(error).split())[:150]}")


def _crystal(elements: Iterable[int] | None) -> Atoms:
    from ase.build import bulk
    from ase.data import atomic_numbers
    from ase.symbols import string2symbols

    known = None if elements is None else {int(z) for z in elements}
    for formula, kind, length in PAIRS:
        if known is None or {atomic_numbers[e] for e in string2symbols(formula)} <= known:
            atoms = bulk(formula, kind, a=length).repeat((2, 1, 1))
            # Sheared and shaken: all forces and all six stresses differ from zero.
            shear = np.array([[1.02, 0.06, 0.03], [0.0, 0.97, -0.04], [0.0, 0.0, 1.01]])
            atoms.set_cell(np.array(atoms.cell) @ shear, scale_atoms=True)
            atoms.rattle(0.12, seed=7)
            return atoms
    raise SettingsError(
        "no-test-crystal", "the potential knows none of the test pairs; give a crystal of your own"
    )


def _finite(p: _Probe) -> Check:
    energy, forces, stress = p.energy(p.crystal), p.forces(p.crystal), p.stress(p.crystal)
    parts = (("energy", np.array(energy)), ("forces", forces), ("stress", stress))
    bad = [name for name, values in parts if not np.isfinite(values).all()]
    if forces.shape != (len(p.crystal), 3):
        bad.append(f"forces of shape {forces.shape}")
    words = "not finite: " + ", ".join(bad) if bad else "energy, forces and stress are finite numbers"
    return Check("finite", float(len(bad)), 0.0, "faults", words)


def _translation(p: _Probe) -> Check:
    moved = p.crystal.copy()
    moved.positions += [0.37, -1.91, 4.03]
    moved.wrap()
    off = abs(p.energy(moved) - p.energy(p.crystal)) / len(moved)
    return Check(
        "translation", off, ENERGY_TOL, "eV/atom", "energy of the crystal moved by a vector and wrapped"
    )


def _turn() -> np.ndarray:
    """A rotation about no axis of the crystal (row vectors: x @ turn)."""
    axis, angle = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0), 1.1
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _turned(p: _Probe) -> Atoms:
    turned = p.crystal.copy()
    turned.set_cell(np.array(turned.cell) @ _turn(), scale_atoms=True)
    return turned


def _rotation_energy(p: _Probe) -> Check:
    off = abs(p.energy(_turned(p)) - p.energy(p.crystal)) / len(p.crystal)
    return Check("rotation-energy", off, ENERGY_TOL, "eV/atom", "energy of the crystal turned in space")


def _rotation_forces(p: _Probe) -> Check:
    off = float(np.abs(p.forces(_turned(p)) - p.forces(p.crystal) @ _turn()).max())
    return Check("rotation-forces", off, FORCE_TOL, "eV/A", "forces turn with the crystal")


def _rotation_stress(p: _Probe) -> Check:
    off = p.stress(_turned(p)) - _turn().T @ p.stress(p.crystal) @ _turn()
    worst = float(np.abs(off).max()) * UNITS.eV_per_A3_to_GPa
    return Check("rotation-stress", worst, STRESS_TOL_GPA / 5, "GPa", "stress turns with the crystal")


def _net_force(p: _Probe) -> Check:
    off = float(np.abs(p.forces(p.crystal).sum(axis=0)).max())
    return Check("net-force", off, FORCE_TOL, "eV/A", "sum of all forces")


def _slope(energy_at: Callable[[float], float], step: float) -> float:
    near, far = energy_at(step) - energy_at(-step), energy_at(2 * step) - energy_at(-2 * step)
    return (8.0 * near - far) / (12.0 * step)


def _forces(p: _Probe) -> Check:
    told = p.forces(p.crystal)
    found = np.zeros_like(told)

    def moved(k: int, axis: int, by: float) -> float:
        atoms = p.crystal.copy()
        atoms.positions[k, axis] += by
        return p.energy(atoms)

    for k, axis in np.ndindex(*told.shape):
        found[k, axis] = -_slope(lambda by, k=k, axis=axis: moved(k, axis, by), STEP)  # type: ignore[misc]
    off = float(np.abs(told - found).max())
    allowed = SLOPE_TOL_eV_A + RELATIVE_TOL * float(np.abs(found).max())
    words = "forces against -dE/dx" + _factor(told, found, off, allowed, _FORCE_FACTORS)
    return Check("forces", off, allowed, "eV/A", words)


def _stress(p: _Probe) -> Check:
    told, found = p.stress(p.crystal), np.zeros((3, 3))
    volume = p.crystal.get_volume()

    def strained(a: int, b: int, by: float) -> float:
        atoms, strain = p.crystal.copy(), np.eye(3)
        strain[a, b] += by / 2
        strain[b, a] += by / 2
        atoms.set_cell(np.array(atoms.cell) @ strain, scale_atoms=True)
        return p.energy(atoms)

    for a in range(3):
        for b in range(a, 3):
            slope = _slope(lambda by, a=a, b=b: strained(a, b, by), STEP / 10)  # type: ignore[misc]
            found[a, b] = found[b, a] = slope / volume
    told, found = told * UNITS.eV_per_A3_to_GPa, found * UNITS.eV_per_A3_to_GPa
    off = float(np.abs(told - found).max())
    allowed = STRESS_TOL_GPA + RELATIVE_TOL * float(np.abs(found).max())
    words = "stress against dE/dstrain / V (positive: the cell wants to shrink)"
    return Check("stress", off, allowed, "GPa", words + _factor(told, found, off, allowed, _STRESS_FACTORS))


_STRESS_FACTORS = {
    UNITS.eV_per_A3_to_GPa: "given in GPa, wanted in eV/A^3",
    1602.18: "given in kbar, wanted in eV/A^3",
}
_FORCE_FACTORS = {
    1 / 51.4221: "given in hartree/bohr",
    1 / 25.7110: "given in Ry/bohr",
    1 / 27.2114: "given in hartree/A",
}


def _factor(told: np.ndarray, found: np.ndarray, off: float, allowed: float, known: dict[float, str]) -> str:
    """What is wrong, where all components are off by one factor; empty when nothing is."""
    if off <= allowed or not np.any(found):
        return ""
    scale = float((told * found).sum() / (found * found).sum())
    if np.abs(told - scale * found).max() > allowed * max(abs(scale), 1e-3):
        return "; not off by one factor"
    sign = "the sign is the opposite" if scale < 0 else ""
    if abs(scale + 1.0) < 0.02:
        return f"; {sign}"
    words = next((f": {text}" for factor, text in known.items() if abs(abs(scale) / factor - 1.0) < 0.02), "")
    return f"; {sign}{' and ' if sign else ''}off by the factor {abs(scale):.4g}{words}"


def _permutation(p: _Probe) -> Check:
    order = np.random.default_rng(3).permutation(len(p.crystal))
    mixed = p.crystal[order]
    off = float(np.abs(p.forces(mixed) - p.forces(p.crystal)[order]).max())
    off = max(off, abs(p.energy(mixed) - p.energy(p.crystal)))
    return Check(
        "permutation", off, FORCE_TOL, "eV, eV/A", "energy and forces with the atoms in another order"
    )


def _cell(p: _Probe) -> Check:
    from ase.build import make_supercell

    other = make_supercell(p.crystal, [[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    off = abs(p.energy(other) - p.energy(p.crystal)) / len(p.crystal)
    return Check("cell", off, ENERGY_TOL, "eV/atom", "the same crystal with other cell vectors")


def _supercell(p: _Probe) -> Check:
    from ase.build import make_supercell

    double = make_supercell(p.crystal, [[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    off = abs(p.energy(double) / 2 - p.energy(p.crystal)) / len(p.crystal)
    return Check("supercell", off, ENERGY_TOL, "eV/atom", "twice the cell has twice the energy")


def _isolated_atom(p: _Probe) -> Check:
    from ase import Atoms as AseAtoms

    lone = AseAtoms(
        p.crystal.get_chemical_symbols()[:1], [[0.0, 0.0, 0.0]], cell=[20.0, 20.0, 20.0], pbc=True
    )
    p.energy(p.crystal)  # one that has no energy for anything refuses nothing
    try:
        energy, forces = p.energy(lone), p.forces(lone)
    except (RuntimeError, ValueError, NotImplementedError, OnnesError) as error:
        # Refusing is one of the two right answers; a TypeError or IndexError is no refusal but an accident.
        words = f"an atom alone in 20 A is refused ({type(error).__name__})"
        return Check("isolated-atom", 0.0, 0.0, "faults", words)
    good = bool(np.isfinite(energy) and np.isfinite(forces).all() and np.abs(forces).max() < FORCE_TOL)
    words = f"an atom alone in 20 A: energy {energy:.4g} eV, force {np.abs(forces).max():.2g} eV/A"
    return Check("isolated-atom", float(not good), 0.0, "faults", words)


def _history(p: _Probe) -> Check:
    """Computed first, after another crystal, and through one calculator that two crystals share."""
    first_energy, first = p.energy(p.crystal), p.forces(p.crystal)
    other = p.crystal[: len(p.crystal) // 2 + 1]
    other.set_cell(np.array(other.cell) * 1.07, scale_atoms=True)
    other_energy = p.energy(other)
    shared, beside = p.crystal.copy(), other.copy()
    shared.calc = beside.calc = p.calc
    off = 0.0
    for _ in range(2):
        off = max(off, abs(_energy(shared) - first_energy))
        off = max(off, float(np.abs(shared.get_forces() - first).max()))
        off = max(off, abs(_energy(beside) - other_energy))
    words = "energy and forces, whatever was computed before and whoever shares the calculator"
    return Check("history", off, ENERGY_TOL, "eV, eV/A", words)

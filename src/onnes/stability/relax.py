"""Relaxation of cell and coordinates: L-BFGS in ASE's Frechet cell filter, with an eye on divergence."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.errors import CrystalError, SettingsError
from onnes.stability.potentials import DEFAULT, calculator, require_elements
from onnes.stability.relax_watch import REACH_A, Watch
from onnes.units import UNITS

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from onnes.stability.relax_symmetry import Operations

#: A relaxation that leaves this window has left the potential's world, not found a minimum.
VOLUME_WINDOW = (0.25, 4.0)
ENERGY_RISE_EV_ATOM = 0.01


@dataclass(frozen=True)
class RelaxSettings:
    """How to relax.

    Attributes
    ----------
    potential : str
        Name in `onnes.stability.potentials.POTENTIALS`.
    fmax_eV_A : float
        Converged when no force, and no component of the cell's generalised force, is larger.
    max_steps : int
        Steps of the optimiser.
    max_step_A : float
        Longest move of an atom in one step.
    pressure_GPa : float
        The enthalpy E + pV is minimised.
    symmetry : bool
        Stay in the space group found at the start, to which cell and atoms are moved first.
    symprec_A : float
        Distance tolerance for that group.
    max_volume_change : float
        Factor by which the volume may grow or shrink before the run is stopped.
    dock : bool
        Separate clashing atoms and make the volume plausible first (`onnes.stability.dock`).
    patience : int
        Steps without progress (`onnes.stability.relax_watch`) after which a run is given up; 0 never gives up.
    """

    potential: str = DEFAULT
    fmax_eV_A: float = 0.05
    max_steps: int = 200
    max_step_A: float = 0.2
    pressure_GPa: float = 0.0
    symmetry: bool = False
    symprec_A: float = 0.01
    max_volume_change: float = VOLUME_WINDOW[1]
    dock: bool = False
    patience: int = 0

    def __post_init__(self) -> None:
        if not (self.fmax_eV_A > 0 and self.max_steps >= 1 and 0 < self.max_step_A <= 1):
            raise SettingsError(
                "bad-setting", f"fmax > 0, max_steps >= 1 and 0 < max_step <= 1 needed: {self}"
            )
        if not (math.isfinite(self.pressure_GPa) and self.max_volume_change > 1):
            raise SettingsError("bad-setting", f"a finite pressure and max_volume_change > 1 needed: {self}")
        if not (0 < self.symprec_A <= 1 and self.patience >= 0):
            raise SettingsError("bad-setting", f"0 < symprec <= 1 and patience >= 0 needed: {self}")

    @property
    def pressure_eV_A3(self) -> float:
        """The pressure in ASE's units."""
        return self.pressure_GPa / UNITS.eV_per_A3_to_GPa


@dataclass(frozen=True)
class Relaxed:
    """Outcome of a relaxation.

    Attributes
    ----------
    structure : pymatgen Structure
        The last geometry, converged or not (the given one when the run was stopped).
    energy_eV_atom : float
        At `structure`, without the pV of a pressure; NaN when the run was stopped.
    energy_start_eV_atom : float
        At the starting geometry (after docking and moving onto the symmetry, where asked for).
    steps : int
        Optimiser steps taken.
    fmax_eV_A : float
        Largest force left.
    converged : bool
    volume_change : float
        Final over initial volume, minus one.
    rmsd_A : float
        Root mean square move of the atoms, the change of the cell and the common drift taken out.
    reason : str
        Empty when converged; else ``code: words`` with a code of docs/relaxation.md (``steps``, ``volume``,
        ``exploded``, ``close``, ``isolated``, ``nan``, ``energy``, ``hopeless``, ``symmetry``).
    enthalpy_eV_atom : float
        Energy plus pV; the energy at no pressure.
    space_group : int
        At the end, when the symmetry was kept; 0 otherwise.
    start_space_group : int
        The group that was kept; `space_group` is it, or a supergroup.
    docked_steps : int
        Steps of docking before the relaxation.
    """

    structure: Structure
    energy_eV_atom: float
    energy_start_eV_atom: float
    steps: int
    fmax_eV_A: float
    converged: bool
    volume_change: float
    rmsd_A: float
    reason: str
    enthalpy_eV_atom: float = np.nan
    space_group: int = 0
    start_space_group: int = 0
    docked_steps: int = 0

    def numbers(self) -> dict[str, Any]:
        """What a ledger keeps."""
        return {
            "energy_eV_atom": self.energy_eV_atom,
            "energy_start_eV_atom": self.energy_start_eV_atom,
            "enthalpy_eV_atom": self.enthalpy_eV_atom,
            "steps": self.steps,
            "fmax_eV_A": self.fmax_eV_A,
            "converged": self.converged,
            "volume_change": self.volume_change,
            "rmsd_A": self.rmsd_A,
        }


def relax(structure: Structure, settings: RelaxSettings | None = None, calc: Any = None) -> Relaxed:
    """Relax cell and coordinates of a crystal.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure that passed the gate. Its cell is kept as it is (a primitive one is cheaper).
    settings : RelaxSettings, optional
    calc : ASE calculator, optional
        Instead of the potential named in the settings.

    Returns
    -------
    Relaxed
        Never raises for a bad geometry: a run that leaves the physical range says so in ``reason``.

    Raises
    ------
    CrystalError
        ``potential-unknown-element``; ``potential-refused``: the potential has no energy for the start;
        ``dock-failed``; ``symmetry-failed``.
    SettingsError
        ``unknown-potential``, ``missing-extra``, ``broken-potential``.
    """
    settings = settings or RelaxSettings()
    if calc is None:
        calc = calculator(settings.potential)
        require_elements(structure, settings.potential)
    with _own_randomness():
        return _Run(structure, settings, calc).result()


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Start numpy's global generator at one place, and give it back as it was.

    scipy's matrix logarithm, on which ASE's cell filter rests, draws from it when it estimates a norm: without this the
    last digits of a relaxation would depend on what was computed before.
    """
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


class _Run:
    """One relaxation."""

    def __init__(self, structure: Structure, settings: RelaxSettings, calc: Any) -> None:
        from pymatgen.io.ase import AseAtomsAdaptor

        self.given, self.settings = structure, settings
        self.docked_steps = 0
        if settings.dock:
            from onnes.stability.dock import dock

            docked = dock(structure)
            structure, self.docked_steps = docked.structure, docked.steps
        self.atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        self.operations: Operations | None = None
        self.group = self.group_after = 0
        if settings.symmetry:
            self._keep_symmetry()
        self.start = self.atoms.copy()
        self.start.set_constraint()
        self.atoms.calc = calc
        self.reach = float(getattr(calc, "cutoff", REACH_A))
        self.steps, self.fmax, self.converged = 0, np.inf, False

    def _keep_symmetry(self) -> None:
        from onnes.crystal.symmetry import space_group
        from onnes.stability.relax_symmetry import KeepSymmetry, find, idealise

        self.group = space_group(_structure(self.atoms), self.settings.symprec_A)[0]
        self.operations = find(self.atoms, self.settings.symprec_A)
        idealise(self.atoms, self.operations)
        self.atoms.set_constraint(KeepSymmetry(self.atoms, self.operations))

    def energy(self) -> float:
        """Energy, eV/atom."""
        return float(self.atoms.get_potential_energy()) / len(self.atoms)

    def work(self) -> float:
        """The pV of the pressure, eV/atom."""
        return self.settings.pressure_eV_A3 * float(self.atoms.get_volume()) / len(self.atoms)

    def result(self) -> Relaxed:
        """Relax and judge."""
        try:
            first = self.energy()
        except (RuntimeError, ValueError, NotImplementedError, ArithmeticError) as error:
            text = f"{type(error).__name__}: {str(error)[:150]}"
            raise CrystalError("potential-refused", f"the potential has no energy for it ({text})") from error
        begun = first + self.work()
        s = self.settings
        watch = Watch(self.start, begun, s.max_volume_change, s.patience, self.reach)
        trouble = watch.look(self.atoms, begun) or self._optimise(watch)
        if not trouble and self.converged:
            trouble = self._judge(begun)
        # Given up, but at a geometry that means something: it is kept, as when the steps are used up.
        if trouble and not trouble.startswith("hopeless"):
            return self._made(self.given, np.nan, np.nan, first, trouble)
        energy = self.energy()
        if not trouble and not self.converged:
            trouble = f"steps: {self.fmax:.3f} eV/A left after {self.steps} steps"
        return self._made(_structure(self.atoms), energy, energy + self.work(), first, trouble)

    def _optimise(self, watch: Watch) -> str:
        """Run the optimiser; says what stopped it before its time."""
        from ase.filters import FrechetCellFilter
        from ase.optimize import LBFGS

        cell: Any = FrechetCellFilter(self.atoms, scalar_pressure=self.settings.pressure_eV_A3)
        optimiser = LBFGS(cell, logfile=io.StringIO(), maxstep=self.settings.max_step_A)
        try:
            for done in optimiser.irun(fmax=self.settings.fmax_eV_A, steps=self.settings.max_steps):
                self.converged, self.steps = bool(done), optimiser.nsteps
                gradient = optimiser.optimizable.get_gradient().reshape(-1, 3)
                self.fmax = float(np.linalg.norm(gradient, axis=1).max())
                trouble = watch.step(self.atoms, self.energy() + self.work(), self.fmax)
                if trouble and not (self.converged and trouble.startswith("hopeless")):
                    self.converged = False
                    return trouble
        except (ArithmeticError, ValueError, np.linalg.LinAlgError, RuntimeError) as error:
            # ASE or the neighbour list stop with errors of their own when a step makes the cell singular.
            return f"exploded: the optimiser broke off ({type(error).__name__})"
        return ""

    def _judge(self, begun: float) -> str:
        """What is wrong with a converged geometry."""
        risen = self.energy() + self.work() - begun
        if risen > ENERGY_RISE_EV_ATOM:
            self.converged = False
            return f"energy: it rose by {risen:.2f} eV/atom"
        if self.operations is None:
            return ""
        from onnes.crystal.symmetry import space_group
        from onnes.stability.relax_symmetry import KEPT_A, strayed

        away = strayed(self.atoms, self.operations)
        self.group_after = space_group(_structure(self.atoms), self.settings.symprec_A)[0]
        if away > KEPT_A:
            self.converged = False
            return f"symmetry: {away:.2g} A away from space group {self.group}"
        return ""

    def _made(
        self, structure: Structure, energy: float, enthalpy: float, first: float, reason: str
    ) -> Relaxed:
        stopped = not np.isfinite(energy)
        return Relaxed(
            structure,
            energy,
            first,
            self.steps,
            self.fmax,
            self.converged and not reason,
            float(self.atoms.get_volume() / self.start.get_volume() - 1.0),
            np.nan if stopped else _rmsd(self.atoms, self.start),
            reason,
            enthalpy,
            self.group_after,
            self.group,
            self.docked_steps,
        )


def _rmsd(atoms: Atoms, start: Atoms) -> float:
    # ASE does not wrap positions on the way, so the difference is the path, not its image.
    moved = atoms.get_scaled_positions(wrap=False) - start.get_scaled_positions(wrap=False)
    moved = (moved - moved.mean(axis=0)) @ np.array(atoms.cell)
    return float(np.sqrt((moved**2).sum(axis=1).mean()))


def _structure(atoms: Atoms) -> Structure:
    from pymatgen.core import Lattice, Structure

    frac = np.mod(np.round(atoms.get_scaled_positions(wrap=True), 10), 1.0)
    return Structure(Lattice(np.array(atoms.cell)), atoms.get_chemical_symbols(), frac)

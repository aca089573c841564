"""Relaxation of cell and coordinates: L-BFGS in ASE's Frechet cell filter, with an eye on divergence."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.crystal.geometry import nearest
from onnes.errors import SettingsError
from onnes.stability.potentials import DEFAULT, calculator, require_elements

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

#: A relaxation that leaves this window has left the potential's world, not found a minimum.
VOLUME_WINDOW = (0.25, 4.0)
CLOSEST_A = 0.4
FORCE_LIMIT = 1e3
ENERGY_FALL_EV_ATOM = 25.0
ENERGY_RISE_EV_ATOM = 0.01
#: Cut-off taken for a calculator that does not tell its own.
REACH_A = 6.0


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
    """

    potential: str = DEFAULT
    fmax_eV_A: float = 0.05
    max_steps: int = 200
    max_step_A: float = 0.2

    def __post_init__(self) -> None:
        if not (self.fmax_eV_A > 0 and self.max_steps >= 1 and 0 < self.max_step_A <= 1):
            raise SettingsError(
                "bad-setting", f"fmax > 0, max_steps >= 1 and 0 < max_step <= 1 needed: {self}"
            )


@dataclass(frozen=True)
class Relaxed:
    """Outcome of a relaxation.

    Attributes
    ----------
    structure : pymatgen Structure
        The last geometry, converged or not (the starting one when the run diverged).
    energy_eV_atom : float
        At `structure`; NaN when diverged.
    energy_start_eV_atom : float
        At the starting geometry.
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
        Empty when converged; ``not-converged: ...`` or ``diverged: ...``.
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

    def numbers(self) -> dict[str, Any]:
        """What a ledger keeps."""
        return {
            "energy_eV_atom": self.energy_eV_atom,
            "energy_start_eV_atom": self.energy_start_eV_atom,
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
        ``potential-unknown-element``.
    SettingsError
        ``unknown-potential``.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import LBFGS
    from pymatgen.io.ase import AseAtomsAdaptor

    settings = settings or RelaxSettings()
    if calc is None:
        calc = calculator(settings.potential)
        require_elements(structure, settings.potential)
    atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    atoms.calc = calc
    start = atoms.copy()
    first = float(atoms.get_potential_energy()) / len(atoms)
    steps, fmax, converged = 0, np.inf, False
    trouble = _trouble(atoms, start, first, first)
    cell: Any = FrechetCellFilter(atoms)
    optimiser = LBFGS(cell, logfile=io.StringIO(), maxstep=settings.max_step_A)
    if not trouble:
        try:
            for done in optimiser.irun(fmax=settings.fmax_eV_A, steps=settings.max_steps):
                converged, steps = bool(done), optimiser.nsteps
                fmax = float(
                    np.linalg.norm(optimiser.optimizable.get_gradient().reshape(-1, 3), axis=1).max()
                )
                trouble = _trouble(atoms, start, first, float(atoms.get_potential_energy()) / len(atoms))
                if not trouble and not fmax < FORCE_LIMIT:
                    trouble = f"force of {fmax:.3g} eV/A"
                if trouble:
                    break
        except (ArithmeticError, ValueError, np.linalg.LinAlgError, RuntimeError) as error:
            # ASE or the neighbour list stop with errors of their own when a step makes the cell singular.
            trouble = f"the optimiser broke off ({type(error).__name__})"
    energy = first if trouble else float(atoms.get_potential_energy()) / len(atoms)
    if converged and energy - first > ENERGY_RISE_EV_ATOM:
        trouble = f"the energy rose by {energy - first:.2f} eV/atom"
    if trouble:
        return Relaxed(
            structure,
            np.nan,
            first,
            steps,
            fmax,
            False,
            _volume(atoms, start),
            np.nan,
            f"diverged: {trouble}",
        )
    reason = "" if converged else f"not-converged: {fmax:.3f} eV/A left after {steps} steps"
    return Relaxed(
        _structure(atoms),
        energy,
        first,
        steps,
        fmax,
        converged,
        _volume(atoms, start),
        _rmsd(atoms, start),
        reason,
    )


def _trouble(atoms: Atoms, start: Atoms, first: float, energy: float) -> str:
    """Say what is wrong with a geometry on its way; empty when nothing is."""
    lattice, positions = np.array(atoms.cell), np.array(atoms.positions)
    if not (np.isfinite(energy) and np.isfinite(lattice).all() and np.isfinite(positions).all()):
        return "a number is not finite"
    ratio = 1.0 + _volume(atoms, start)
    if not VOLUME_WINDOW[0] <= ratio <= VOLUME_WINDOW[1]:
        return f"the volume changed {ratio:.3g}-fold"
    if first - energy > ENERGY_FALL_EV_ATOM:
        return f"the energy fell by {first - energy:.0f} eV/atom"
    reach = float(getattr(atoms.calc, "cutoff", REACH_A))
    closest, _ = nearest(lattice, atoms.get_scaled_positions(wrap=True), reach)
    if closest.min() < CLOSEST_A:
        return f"atoms came within {closest.min():.2f} A"
    # Beyond its cut-off the potential sees nothing: no force, and a false minimum.
    far = np.flatnonzero(~np.isfinite(closest))
    return f"atom {far[0]} has no neighbour within {reach:g} A" if len(far) else ""


def _volume(atoms: Atoms, start: Atoms) -> float:
    return float(atoms.get_volume() / start.get_volume() - 1.0)


def _rmsd(atoms: Atoms, start: Atoms) -> float:
    # ASE does not wrap positions on the way, so the difference is the path, not its image.
    moved = atoms.get_scaled_positions(wrap=False) - start.get_scaled_positions(wrap=False)
    moved = (moved - moved.mean(axis=0)) @ np.array(atoms.cell)
    return float(np.sqrt((moved**2).sum(axis=1).mean()))


def _structure(atoms: Atoms) -> Structure:
    from pymatgen.core import Lattice, Structure

    frac = np.mod(np.round(atoms.get_scaled_positions(wrap=True), 10), 1.0)
    return Structure(Lattice(np.array(atoms.cell)), atoms.get_chemical_symbols(), frac)

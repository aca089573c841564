"""The watch on a relaxation: what has left the physical range, and what is getting nowhere."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from onnes.crystal.geometry import nearest

if TYPE_CHECKING:
    from ase import Atoms

CLOSEST_A = 0.4
FORCE_LIMIT = 1e3
ENERGY_FALL_EV_ATOM = 25.0
#: Cut-off taken for a calculator that does not tell its own.
REACH_A = 6.0
#: A relaxation is getting somewhere while, within its patience, the enthalpy falls by this much ...
PROGRESS_EV_ATOM = 1e-3
#: ... or the smallest force so far falls by this part of itself.
PROGRESS_FORCE = 0.1


class Watch:
    """Looks at every step of a relaxation.

    Parameters
    ----------
    start : ase Atoms
        Where it began.
    first : float
        Enthalpy there, eV/atom.
    largest_change : float
        Factor by which the volume may grow or shrink.
    patience : int
        Steps without progress after which it is hopeless; 0 waits for ever.
    reach_A : float
        Cut-off of the potential.
    """

    def __init__(
        self, start: Atoms, first: float, largest_change: float, patience: int, reach_A: float = REACH_A
    ) -> None:
        self.volume, self.first = float(start.get_volume()), first
        self.largest_change, self.patience, self.reach = largest_change, patience, reach_A
        self.best: deque[tuple[float, float]] = deque(maxlen=patience + 1)

    def look(self, atoms: Atoms, enthalpy: float) -> str:
        """Say what is wrong with a geometry, as ``code: words``; empty when nothing is."""
        lattice, positions = np.array(atoms.cell), np.array(atoms.positions)
        if not (np.isfinite(enthalpy) and np.isfinite(lattice).all() and np.isfinite(positions).all()):
            return "nan: a number is not finite"
        ratio = float(atoms.get_volume()) / self.volume
        if not 1.0 / self.largest_change <= ratio <= self.largest_change:
            return f"volume: it changed {ratio:.3g}-fold"
        if self.first - enthalpy > ENERGY_FALL_EV_ATOM:
            return f"exploded: the energy fell by {self.first - enthalpy:.0f} eV/atom"
        closest, _ = nearest(lattice, atoms.get_scaled_positions(wrap=True), self.reach)
        if closest.min() < CLOSEST_A:
            return f"close: atoms came within {closest.min():.2f} A"
        # Beyond its cut-off the potential sees nothing: no force, and a false minimum.
        far = np.flatnonzero(~np.isfinite(closest))
        return f"isolated: atom {far[0]} has no neighbour within {self.reach:g} A" if len(far) else ""

    def step(self, atoms: Atoms, enthalpy: float, fmax: float) -> str:
        """Like `look`, after a step of the optimiser."""
        trouble = self.look(atoms, enthalpy)
        if trouble:
            return trouble
        if not np.isfinite(fmax):
            return "nan: a force is not finite"
        if fmax >= FORCE_LIMIT:
            return f"exploded: force of {fmax:.3g} eV/A"
        return self._progress(enthalpy, fmax) if self.patience else ""

    def _progress(self, enthalpy: float, fmax: float) -> str:
        low, small = self.best[-1] if self.best else (np.inf, np.inf)
        self.best.append((min(low, enthalpy), min(small, fmax)))
        if len(self.best) <= self.patience:
            return ""
        (low, small), (now, force) = self.best[0], self.best[-1]
        if low - now > PROGRESS_EV_ATOM or force < (1.0 - PROGRESS_FORCE) * small:
            return ""
        return f"hopeless: neither energy nor forces fell in {self.patience} steps, {fmax:.3g} eV/A left"

"""Symmetry lost in a generator's noise, found again: the highest space group that costs next to nothing.

The space group of a relaxed crystal is searched with a ladder of distance tolerances. Each group found is tried, the
one with the most operations for its primitive cell first: the crystal is moved onto it, relaxed within it, and compared
in enthalpy an atom with the crystal as it was. The first that costs less than `COST_EV_ATOM` is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnes.crystal.symmetry import analyse, space_group, standardise
from onnes.errors import CrystalError
from onnes.stability.relax import Relaxed, RelaxSettings, relax

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Distance tolerances in A. The first is that of the group a relaxed crystal is said to have.
LADDER_A = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
COST_EV_ATOM = 1e-3
#: A tolerance above this part of the shortest distance would merge atoms.
OF_SHORTEST = 0.2


@dataclass(frozen=True)
class Tried:
    """A space group that was tried.

    Attributes
    ----------
    space_group : int
    tolerance_A : float
        With which it was found.
    cost_eV_atom : float
        Enthalpy within it minus that of the crystal as it was; NaN when it did not converge.
    """

    space_group: int
    tolerance_A: float
    cost_eV_atom: float


@dataclass(frozen=True)
class Symmetrised:
    """Outcome.

    Attributes
    ----------
    before : int
        Space group of the relaxed crystal at the first tolerance of the ladder.
    after : int
        Space group of `relaxed`; equal to `before` where no higher one is cheap enough.
    relaxed : Relaxed
        The crystal within the group `after` (primitive standard cell), or the one given.
    tolerance_A : float
        With which the group was found.
    cost_eV_atom : float
        What it costs; negative where the symmetric crystal lies lower.
    tried : tuple of Tried
        All groups tried, in order.
    """

    before: int
    after: int
    relaxed: Relaxed
    tolerance_A: float
    cost_eV_atom: float
    tried: tuple[Tried, ...]

    def numbers(self) -> dict[str, Any]:
        """Columns of a table."""
        return {
            "space_group_relaxed": self.before,
            "space_group_symmetrised": self.after,
            "energy_symmetrised_eV_atom": self.relaxed.energy_eV_atom,
            "symmetrise_tolerance_A": self.tolerance_A,
            "symmetrise_cost_meV_atom": 1e3 * self.cost_eV_atom,
        }


def symmetrise(done: Relaxed, settings: RelaxSettings | None = None, calc: Any = None) -> Symmetrised:
    """Find the highest space group of a relaxed crystal that costs less than 1 meV/atom.

    Parameters
    ----------
    done : Relaxed
        Converged.
    settings : RelaxSettings, optional
        Those of its relaxation: potential, forces left, pressure.
    calc : ASE calculator, optional
        Instead of the potential named in the settings.

    Returns
    -------
    Symmetrised

    Raises
    ------
    CrystalError
        ``not-relaxed``; ``symmetry-failed``.
    """
    if not done.converged:
        raise CrystalError("not-relaxed", "only a converged relaxation can be symmetrised")
    within = replace(settings or RelaxSettings(), symmetry=True, symprec_A=LADDER_A[0], dock=False)
    before = space_group(done.structure, LADDER_A[0])[0]
    tried: list[Tried] = []
    for tolerance, number, cell in _candidates(done.structure):
        try:
            found = relax(cell, within, calc)
        except CrystalError:
            tried.append(Tried(number, tolerance, float("nan")))
            continue
        cost = found.enthalpy_eV_atom - done.enthalpy_eV_atom if found.converged else float("nan")
        tried.append(Tried(number, tolerance, cost))
        if cost < COST_EV_ATOM:
            return Symmetrised(before, found.space_group, found, tolerance, cost, tuple(tried))
    return Symmetrised(before, before, done, LADDER_A[0], 0.0, tuple(tried))


def _candidates(structure: Structure) -> list[tuple[float, int, Structure]]:
    """Groups with more symmetry than at the first tolerance: (tolerance, number, cell on it), highest first."""
    from onnes.crystal.geometry import min_distance

    shortest = min_distance(structure.lattice.matrix, structure.frac_coords)
    known: dict[tuple[int, int], tuple[float, Structure]] = {}
    start = _order(structure, LADDER_A[0])
    for tolerance in LADDER_A[1:]:
        if tolerance > OF_SHORTEST * shortest:
            break
        try:
            found = analyse(structure, tolerance)
            cell = standardise(structure, tolerance)
            # Moved onto its symmetry, it must show it at the first tolerance, too: nothing else is kept.
            if space_group(cell, LADDER_A[0])[0] == found.number:
                known.setdefault((found.number, found.n_primitive), (tolerance, cell))
        except CrystalError:
            continue
    ranked = [
        (_order(cell, LADDER_A[0]), tolerance, key[0], cell) for key, (tolerance, cell) in known.items()
    ]
    higher = sorted((r for r in ranked if r[0] > start), key=lambda r: (-r[0], r[1]))
    return [(tolerance, number, cell) for _, tolerance, number, cell in higher]


def _order(structure: Structure, tolerance: float) -> float:
    """Operations of the point group for each atom of the primitive cell: grows with every symmetry gained."""
    import moyopy

    found = analyse(structure, tolerance)
    operations = moyopy.operations_from_number(found.number, primitive=True)
    return len(operations) / found.n_primitive

"""One door to stability: structures in, a table with relaxed energies, hull distances and novelty out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from onnes.crystal.formula import reduced_formula
from onnes.crystal.read import Crystal, Refused
from onnes.crystal.symmetry import space_group
from onnes.errors import CrystalError
from onnes.stability.hull import HullReferences
from onnes.stability.novelty import KnownCrystals
from onnes.stability.relax import Relaxed, RelaxSettings, relax

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Distance tolerance of the space group of a relaxed crystal, angstrom.
SYMPREC_A = 0.05
RELAX_COLUMNS = (
    "id",
    "formula",
    "converged",
    "steps",
    "energy_eV_atom",
    "energy_start_eV_atom",
    "fmax_eV_A",
    "volume_change",
    "rmsd_A",
    "status",
    "reason",
)
STABILITY_COLUMNS = (
    "id",
    "formula",
    "space_group",
    "formation_energy_eV_atom",
    "e_hull_eV_atom",
    "decomposition",
    "unknown_references",
    "novelty",
    "known_id",
    "known_distance",
    *RELAX_COLUMNS[2:],
)


class Assessed(NamedTuple):
    """A row of the table and the relaxed structure (None when there is none)."""

    row: dict[str, Any]
    structure: Structure | None


def relax_all(items: Iterable[Crystal | Refused], settings: RelaxSettings) -> Iterator[Assessed]:
    """Relax crystals one by one; refused and failed ones keep their row.

    Parameters
    ----------
    items : iterable of Crystal or Refused
        As `onnes.crystal.read.read` yields them.
    settings : RelaxSettings
    """
    for item in items:
        row, done = _relaxed(item, settings)
        yield Assessed(row, done.structure if done is not None and done.converged else None)


def assess(items: Iterable[Crystal | Refused], settings: RelaxSettings) -> Iterator[Assessed]:
    """Relax crystals and place them among the known phases and crystals.

    Parameters
    ----------
    items : iterable of Crystal or Refused
    settings : RelaxSettings
        Only the potential the hull table was made with gives meaningful distances.
    """
    table, index = HullReferences.load(), KnownCrystals.load()
    for item in items:
        row, done = _relaxed(item, settings)
        if done is None or not done.converged:
            yield Assessed(row, None)
            continue
        found = table.evaluate(done.structure, done.energy_eV_atom).numbers()
        found["unknown_references"] = " ".join(found["unknown_references"])
        row.update(found)
        row.update(index.find(done.structure).numbers())
        row["space_group"] = space_group(done.structure, SYMPREC_A)[1]
        yield Assessed(row, done.structure)


def _relaxed(item: Crystal | Refused, settings: RelaxSettings) -> tuple[dict[str, Any], Relaxed | None]:
    row: dict[str, Any] = {"id": item.id, "formula": "", "status": "refused", "reason": ""}
    if isinstance(item, Refused):
        row.update(formula=item.formula, reason=item.code)
        return row, None
    row["formula"] = reduced_formula(item.structure)
    try:
        done = relax(item.structure, settings)
    except CrystalError as error:
        row["reason"] = error.code
        return row, None
    row.update(done.numbers(), status="ok" if done.converged else "failed", reason=done.reason)
    return row, done

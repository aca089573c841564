"""Relaxation of many crystals: structures in, a table of energies and steps out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from onnes.crystal.formula import reduced_formula
from onnes.crystal.read import Crystal, Refused
from onnes.errors import CrystalError
from onnes.stability.relax import Relaxed, RelaxSettings, relax

if TYPE_CHECKING:
    from pymatgen.core import Structure

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
        row, done = relaxed_row(item, settings)
        yield Assessed(row, done.structure if done is not None and done.converged else None)


def relaxed_row(item: Crystal | Refused, settings: RelaxSettings) -> tuple[dict[str, Any], Relaxed | None]:
    """Relax a crystal; its row of the table, and the outcome where there is one."""
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

"""Relaxation of many crystals: structures in, a table of energies and steps out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from onnes.crystal.formula import reduced_formula
from onnes.crystal.read import Crystal, Refused
from onnes.errors import CrystalError
from onnes.parallel import each
from onnes.stability.relax import Relaxed, RelaxSettings, relax
from onnes.stability.relax_journal import Journal, crystal_key

if TYPE_CHECKING:
    from pymatgen.core import Structure

RELAX_COLUMNS = (
    "id",
    "formula",
    "converged",
    "steps",
    "energy_eV_atom",
    "energy_start_eV_atom",
    "enthalpy_eV_atom",
    "fmax_eV_A",
    "volume_change",
    "rmsd_A",
    "status",
    "reason",
)
#: Only where asked for.
SYMMETRISE_COLUMNS = (
    "space_group_relaxed",
    "space_group_symmetrised",
    "energy_symmetrised_eV_atom",
    "symmetrise_tolerance_A",
    "symmetrise_cost_meV_atom",
)


def columns(settings: RelaxSettings, symmetrise: bool) -> tuple[str, ...]:
    """Columns of the table of ``onnes relax``."""
    kept = ("start_space_group", "space_group") if settings.symmetry else ()
    docked = ("docked_steps",) if settings.dock else ()
    found = SYMMETRISE_COLUMNS if symmetrise else ()
    return (*RELAX_COLUMNS[:-2], *docked, *kept, *found, "flags", *RELAX_COLUMNS[-2:])


class Assessed(NamedTuple):
    """A row of the table and the relaxed structure (None when there is none)."""

    row: dict[str, Any]
    structure: Structure | None


def relax_all(
    items: Iterable[Crystal | Refused],
    settings: RelaxSettings,
    *,
    workers: int = 1,
    symmetrise: bool = False,
    journal: Journal | None = None,
) -> Iterator[Assessed]:
    """Relax crystals; refused and failed ones keep their row.

    Parameters
    ----------
    items : iterable of Crystal or Refused
        As `onnes.crystal.read.read` yields them.
    settings : RelaxSettings
    workers : int
        Processes, one thread each. The rows are the same to the last digit for any number, when this process keeps to
        one thread, too (`onnes.parallel.single_thread`).
    symmetrise : bool
        Look for the highest space group that costs less than 1 meV/atom (`onnes.stability.symmetrise`).
    journal : Journal, optional
        What it holds is not computed again; what is computed is kept in it, with the relaxed structure.

    Yields
    ------
    Assessed
        In the order of the input.
    """
    waiting: dict[int, Assessed] = {}
    todo: list[tuple[int, Crystal | Refused]] = []

    def pending() -> Iterator[Crystal | Refused]:
        for place, item in enumerate(items):
            held = _held(journal, item)
            if held is None:
                todo.append((place, item))
                yield item
            else:
                waiting[place] = held

    following = 0
    for k, done in relax_each(pending(), settings, workers=workers, symmetrise=symmetrise):
        place, item = todo[k]
        if journal is not None and isinstance(item, Crystal):
            journal.add(item, done.row, done.structure)
        waiting[place] = done
        while following in waiting:
            yield waiting.pop(following)
            following += 1
    # Held rows behind the last one computed.
    yield from (waiting[place] for place in sorted(waiting))


def relax_each(
    items: Iterable[Crystal | Refused],
    settings: RelaxSettings,
    *,
    workers: int = 1,
    symmetrise: bool = False,
) -> Iterator[tuple[int, Assessed]]:
    """Like `relax_all`, in the order in which they are finished, each with its place in the input."""
    yield from each(partial(_assessed, settings, symmetrise), items, workers, _died)


def _held(journal: Journal | None, item: Crystal | Refused) -> Assessed | None:
    """What an earlier run has left of a crystal."""
    if journal is None or not isinstance(item, Crystal):
        return None
    key = crystal_key(item)
    if key not in journal.rows:
        return None
    return Assessed(dict(journal.rows[key]), journal.structures.get(key))


def _assessed(settings: RelaxSettings, symmetrise: bool, item: Crystal | Refused) -> Assessed:
    row, done = relaxed_row(item, settings)
    if done is None or not done.converged:
        return Assessed(row, None)
    if symmetrise:
        from onnes.stability.symmetrise import symmetrise as search

        try:
            found = search(done, settings)
        except CrystalError:  # no symmetry can be told: the columns stay empty, the relaxation stands
            return Assessed(row, done.structure)
        row.update(found.numbers())
        done = found.relaxed
    return Assessed(row, done.structure)


def _died(item: Crystal | Refused) -> Assessed:
    row: dict[str, Any] = {"id": item.id, "formula": "", "status": "failed", "converged": False}
    if isinstance(item, Crystal):
        row["formula"] = reduced_formula(item.structure)
    row["reason"] = "worker-died: its process was killed, perhaps out of memory"
    return Assessed(row, None)


def relaxed_row(item: Crystal | Refused, settings: RelaxSettings) -> tuple[dict[str, Any], Relaxed | None]:
    """Relax a crystal; its row of the table, and the outcome where there is one."""
    row: dict[str, Any] = {"id": item.id, "formula": "", "status": "refused", "reason": ""}
    if isinstance(item, Refused):
        row.update(formula=item.formula, reason=item.code)
        return row, None
    row["formula"] = reduced_formula(item.structure)
    row["flags"] = " ".join(item.meta.get("flags", []))
    try:
        done = relax(item.structure, settings)
    except CrystalError as error:
        row["reason"] = error.code
        return row, None
    row.update(done.numbers(), status="ok" if done.converged else "failed", reason=done.reason)
    if settings.dock:
        row["docked_steps"] = done.docked_steps
    if settings.symmetry:
        row.update(start_space_group=done.start_space_group, space_group=done.space_group or None)
    return row, done

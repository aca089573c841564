"""One door to stability: structures in, a table with relaxed energies, hull distances and novelty out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnes.crystal.formula import reduced_formula
from onnes.crystal.read import Crystal, Refused
from onnes.crystal.symmetry import space_group
from onnes.errors import SettingsError
from onnes.stability.chemistry import Chemistry, charge_balance
from onnes.stability.hull import HullReferences
from onnes.stability.hull_entries import OwnHull
from onnes.stability.novelty import KnownCrystals
from onnes.stability.novelty_given import Collection
from onnes.stability.relax import RelaxSettings
from onnes.stability.relax_journal import Journal
from onnes.stability.relax_table import RELAX_COLUMNS, Assessed, relax_all

#: Distance tolerance of the space group of a relaxed crystal, angstrom.
SYMPREC_A = 0.05
STABILITY_COLUMNS = (
    "id",
    "formula",
    "space_group",
    "formation_energy_eV_atom",
    "e_hull_eV_atom",
    "decomposition",
    "unknown_references",
    "formation_energy_model_eV_atom",
    "formation_energy_unexplained_eV_atom",
    "formation_energy_flag",
    "novelty",
    "known_id",
    "known_source",
    "known_nearness",
    "known_distance",
    "same_as",
    "charge_balance",
    "flags",
    *RELAX_COLUMNS[2:],
)


@dataclass(frozen=True)
class Assessment:
    """What crystals are measured against.

    Attributes
    ----------
    hull : OwnHull, optional
        The shipped table by default.
    known : Collection, optional
        A user's crystals beside the shipped index.
    chemistry : Chemistry
        Elements that are not wanted; refused before anything is computed.
    """

    hull: OwnHull | None = None
    known: Collection | None = None
    chemistry: Chemistry = field(default_factory=Chemistry)


def assess(
    items: Iterable[Crystal | Refused],
    settings: RelaxSettings,
    against: Assessment | None = None,
    *,
    workers: int = 1,
    journal: Journal | None = None,
) -> Iterator[Assessed]:
    """Relax crystals and place them among the known phases and crystals.

    Parameters
    ----------
    items : iterable of Crystal or Refused
    settings : RelaxSettings
        With the potential that the hull table was made with.
    against : Assessment, optional
    workers : int
        Processes that relax; places among the known are found here, in the order of the input, so that the rows are
        the same for any number.
    journal : Journal, optional
        Relaxations that an earlier run has left, and those of this one.

    Yields
    ------
    Assessed
        One an input, in order. Where the hull holds energies of another method the crystals are taken as they are,
        with the energies given for them; otherwise relaxed.

    Raises
    ------
    SettingsError
        ``no-hull-table``: the hull holds energies of another method than the potential's.
    """
    against = against or Assessment()
    own = against.hull or OwnHull(HullReferences.load())
    if own.energies is None and settings.potential != own.table.method:
        raise SettingsError(
            "no-hull-table",
            f"the hull table holds energies of {own.table.method or 'no named method'}, not of {settings.potential}",
        )
    wanted = against.chemistry.screen(items)
    if own.energies is None:
        return _placed(relax_all(wanted, settings, workers=workers, journal=journal), against, own)
    return _placed(_as_given(wanted, own.energies), against, own)


def _placed(done: Iterable[Assessed], against: Assessment, own: OwnHull) -> Iterator[Assessed]:
    """Rows with their place among known phases and crystals, and among those before them."""
    index, seen = KnownCrystals.load(), Collection()
    for row, structure in done:
        if structure is None:
            yield Assessed(row, None)
            continue
        found = own.table.evaluate(structure, row["energy_eV_atom"]).numbers()
        found["unknown_references"] = " ".join(found["unknown_references"])
        row.update(found)
        novelty = index.find(structure)
        row.update((against.known.judge(structure, novelty) if against.known else novelty).numbers())
        twin = seen.nearest(structure)
        row["same_as"] = twin.id if twin is not None and twin.same else ""
        if not row["same_as"]:
            seen.add(row["id"], structure)
        row["charge_balance"] = charge_balance(structure)
        row["space_group"] = space_group(structure, SYMPREC_A)[1]
        yield Assessed(row, structure)


def _as_given(items: Iterable[Crystal | Refused], energies: Mapping[str, float]) -> Iterator[Assessed]:
    """Rows of crystals as they are, with the energies given for them."""
    for item in items:
        row: dict[str, Any] = {"id": item.id, "formula": "", "status": "refused", "reason": ""}
        if isinstance(item, Refused):
            row.update(formula=item.formula, reason=item.code)
            yield Assessed(row, None)
            continue
        row["formula"] = reduced_formula(item.structure)
        row["flags"] = " ".join(item.meta.get("flags", []))
        if item.id not in energies:
            row["reason"] = "no-energy"
            yield Assessed(row, None)
            continue
        row.update(energy_eV_atom=energies[item.id], status="ok")
        yield Assessed(row, item.structure)

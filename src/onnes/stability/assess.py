"""One door to stability: structures in, a table with relaxed energies, hull distances and novelty out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnes.crystal.read import Crystal, Refused
from onnes.crystal.symmetry import space_group
from onnes.stability.hull import HullReferences
from onnes.stability.novelty import KnownCrystals
from onnes.stability.relax import RelaxSettings
from onnes.stability.relax_table import RELAX_COLUMNS, Assessed, relaxed_row

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
    "novelty",
    "known_id",
    "known_distance",
    *RELAX_COLUMNS[2:],
)


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
        row, done = relaxed_row(item, settings)
        if done is None or not done.converged:
            yield Assessed(row, None)
            continue
        found = table.evaluate(done.structure, done.energy_eV_atom).numbers()
        found["unknown_references"] = " ".join(found["unknown_references"])
        row.update(found)
        row.update(index.find(done.structure).numbers())
        row["space_group"] = space_group(done.structure, SYMPREC_A)[1]
        yield Assessed(row, done.structure)

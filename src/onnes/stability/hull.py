"""Formation energy and energy above the convex hull, from references computed with the same potential.

The shipped table holds, for every composition of the Materials Project crystals the project has at hand, the
lowest energy per atom that the potential gives. Total energies of two methods are never mixed: an energy
from another potential or from DFT must not be compared with this table. Tables carry the name of their method;
`onnes.stability.hull_entries` makes them of a user's own phases.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from onnes.errors import DataError

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Structure

TABLE = "hull_references.csv.gz"
#: Potential whose energies the shipped table holds.
METHOD = "7net-0"


class Reference(NamedTuple):
    """A known phase: reduced formula, energy in eV/atom, id."""

    formula: str
    energy_eV_atom: float
    id: str


@dataclass(frozen=True)
class HullResult:
    """Where a crystal stands.

    Attributes
    ----------
    formation_energy_eV_atom : float or None
        Relative to the elements; None when a reference is unknown.
    e_hull_eV_atom : float or None
        Above the convex hull of the known phases; negative below it; None when a reference is unknown.
    decomposition : str
        The phases it would fall into, atomic shares first: ``0.75 MgB2 + 0.25 Mg``.
    unknown_references : tuple of str
        Elements without a reference energy.
    """

    formation_energy_eV_atom: float | None
    e_hull_eV_atom: float | None
    decomposition: str = ""
    unknown_references: tuple[str, ...] = ()

    def numbers(self) -> dict[str, Any]:
        """What a ledger keeps."""
        return {
            "formation_energy_eV_atom": self.formation_energy_eV_atom,
            "e_hull_eV_atom": self.e_hull_eV_atom,
            "decomposition": self.decomposition,
            "unknown_references": list(self.unknown_references),
        }


@dataclass
class HullReferences:
    """Known phases, searchable by chemical system.

    Parameters
    ----------
    references : iterable of Reference
    digest : str
        Hash of the table, part of the key of what is computed from it.
    method : str
        Whose energies these are.
    source : str
        Where they come from, in words.
    """

    references: Iterable[Reference]
    digest: str = ""
    method: str = ""
    source: str = ""
    elements: dict[str, float] = field(init=False, default_factory=dict)
    _systems: dict[frozenset[str], list[Reference]] = field(init=False, default_factory=dict)
    _diagrams: dict[frozenset[str], PhaseDiagram] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._add(self.references)
        self.references = ()

    def __len__(self) -> int:
        return sum(map(len, self._systems.values()))

    def _add(self, references: Iterable[Reference]) -> None:
        from pymatgen.core import Composition

        for reference in references:
            parts = frozenset(e.symbol for e in Composition(reference.formula).elements)
            self._systems.setdefault(parts, []).append(reference)
            if len(parts) == 1:
                (symbol,) = parts
                held = self.elements.get(symbol, float("inf"))
                self.elements[symbol] = min(held, reference.energy_eV_atom)

    @classmethod
    def load(cls) -> HullReferences:
        """Read the shipped table.

        Raises
        ------
        DataError
            ``damaged-table``.
        """
        return _shipped()

    def joined(self, references: Iterable[Reference], source: str) -> HullReferences:
        """A table with more phases, computed with the same method; this one stays as it is.

        Parameters
        ----------
        references : iterable of Reference
        source : str
            Where they come from, in words.
        """
        more = list(references)
        lines = "".join(f"{r.formula} {r.energy_eV_atom!r} {r.id}\n" for r in more)
        digest = hashlib.sha256((self.digest + lines).encode()).hexdigest()[:16]
        made = HullReferences((), digest, self.method, f"{self.source} and {source}")
        made.elements = dict(self.elements)
        made._systems = {k: list(v) for k, v in self._systems.items()}
        made._add(more)
        return made

    def describe(self) -> str:
        """The table in words: ``21,743 phases of the shipped table, energies of 7net-0``."""
        return f"{len(self):,} phases ({self.source}), energies of {self.method}"

    def phases(self, symbols: Iterable[str]) -> list[Reference]:
        """Return the known phases made of these elements only."""
        names = sorted(set(symbols))
        found: list[Reference] = []
        for size in range(1, len(names) + 1):
            for part in combinations(names, size):
                found += self._systems.get(frozenset(part), [])
        return found

    def evaluate(self, structure: Structure, energy_eV_atom: float) -> HullResult:
        """Place a crystal of known energy.

        Parameters
        ----------
        structure : pymatgen Structure
            Only its composition is used.
        energy_eV_atom : float
            From the potential of the table.
        """
        amounts = structure.composition.element_composition.get_el_amt_dict()
        unknown = tuple(sorted(set(amounts) - self.elements.keys()))
        if unknown:
            return HullResult(None, None, "", unknown)
        total = sum(amounts.values())
        formation = energy_eV_atom - sum(n * self.elements[s] for s, n in amounts.items()) / total
        phases, hull = self._diagram(frozenset(amounts)).get_decomp_and_hull_energy_per_atom(
            structure.composition.element_composition
        )
        shares = sorted(
            ((share, entry.composition.reduced_formula) for entry, share in phases.items()), reverse=True
        )
        words = " + ".join(f"{share:.3g} {formula}" for share, formula in shares)
        return HullResult(float(formation), float(energy_eV_atom - hull), words)

    def hull_energy(self, formula: str) -> float:
        """Energy per atom of the hull at a composition whose elements are all known, eV/atom."""
        from pymatgen.core import Composition

        composition = Composition(formula)
        parts = frozenset(e.symbol for e in composition.elements)
        return float(self._diagram(parts).get_hull_energy_per_atom(composition))

    def _diagram(self, symbols: frozenset[str]) -> PhaseDiagram:
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
        from pymatgen.core import Composition

        if symbols not in self._diagrams:
            entries = []
            for phase in self.phases(symbols):
                composition = Composition(phase.formula)
                entries.append(PDEntry(composition, phase.energy_eV_atom * composition.num_atoms, phase.id))
            if len(self._diagrams) > 200:  # a long campaign meets thousands of systems; each may hold MBs
                self._diagrams.clear()
            self._diagrams[symbols] = PhaseDiagram(entries)
        return self._diagrams[symbols]


@lru_cache(maxsize=1)
def _shipped() -> HullReferences:
    data = files("onnes.pretrained").joinpath(TABLE).read_bytes()
    try:
        rows = list(csv.DictReader(io.StringIO(gzip.decompress(data).decode())))
        references = [Reference(r["formula"], float(r["energy_eV_atom"]), r["id"]) for r in rows]
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise DataError("damaged-table", f"{TABLE} cannot be read: {error}; reinstall onnes") from None
    digest = hashlib.sha256(data).hexdigest()[:16]
    return HullReferences(references, digest, METHOD, "shipped table")

"""Phases of the Materials Project by its public interface, with a user's key and the standard library only.

Two uses, which do not mix. Its crystals may complete the potential's hull: then structures are fetched and their
energies computed here with the potential, at the geometry given there, as for the shipped table. Or its own (corrected
DFT) energies make the whole hull; then the candidates' energies have to be of that kind, too.
"""

from __future__ import annotations

import json
import math
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from onnes.crystal.read import Refused
from onnes.errors import CrystalError, DataError, InputError, SettingsError
from onnes.stability.hull_entries import Entry, _reference

if TYPE_CHECKING:
    from pymatgen.core import Structure

BASE = "https://api.materialsproject.org"
KEY, ADDRESS = "MP_API_KEY", "MP_API_ENDPOINT"
#: Phases further above the Materials Project's own hull are not asked for (eV/atom): they cannot reach the potential's.
NEAR_eV_ATOM = 0.1
#: Answers a request.
PAGE = 500
#: Name of the Materials Project's own energies as a method.
METHOD = "Materials Project GGA/GGA+U, corrected"


@dataclass(frozen=True)
class MaterialsProject:
    """Access to the Materials Project.

    Parameters
    ----------
    key : str
        The user's key; never written anywhere.
    base : str
        Address of the interface.
    timeout_s : float
    """

    key: str
    base: str = BASE
    timeout_s: float = 30.0

    @classmethod
    def from_environment(cls, key: str = "") -> MaterialsProject:
        """With the key given or that of ``MP_API_KEY``, at ``MP_API_ENDPOINT`` or the public address.

        Raises
        ------
        SettingsError
            ``no-key``.
        """
        found = key or os.environ.get(KEY, "")
        if not found:
            raise SettingsError(
                "no-key", f"give a key of the Materials Project (--mp-key, or {KEY} in the environment)"
            )
        return cls(found, os.environ.get(ADDRESS) or BASE)

    def structures(self, systems: Iterable[frozenset[str]]) -> Iterator[tuple[str, Structure]]:
        """Ids and structures of the phases near the Materials Project's hull, subsystems included.

        Parameters
        ----------
        systems : iterable of sets of str
            Chemical systems.
        """
        from pymatgen.core import Structure

        wanted = {
            "_fields": "material_id,structure",
            "energy_above_hull_max": NEAR_eV_ATOM,
            "deprecated": "false",
        }
        for row in self._rows("materials/summary/", systems, wanted):
            try:
                yield str(row["material_id"]), Structure.from_dict(row["structure"])
            except (KeyError, TypeError, ValueError) as error:
                raise DataError("bad-answer", f"the Materials Project sent no structure: {error!r}") from None

    def entries(self, systems: Iterable[frozenset[str]]) -> list[Entry]:
        """The Materials Project's own corrected energies, subsystems included."""
        wanted = {"_fields": "material_id,formula_pretty,energy_per_atom", "thermo_types": "GGA_GGA+U"}
        found = []
        for row in self._rows("materials/thermo/", systems, wanted):
            where = f"Materials Project, {row.get('material_id')}"
            formula, energy = row.get("formula_pretty"), row.get("energy_per_atom")
            found.append(Entry(_reference(formula, energy, str(row.get("material_id")), where), "GGA"))
        return found

    def _rows(
        self, path: str, systems: Iterable[frozenset[str]], wanted: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        for part in _subsystems(systems):
            start = 0
            while True:
                query = {**wanted, "chemsys": part, "_limit": PAGE, "_skip": start}
                rows = self._get(path, query)
                yield from rows
                if len(rows) < PAGE:
                    break
                start += PAGE

    def _get(self, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        url = f"{self.base.rstrip('/')}/{path}?{urllib.parse.urlencode(query)}"
        if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
            raise SettingsError("bad-address", f"{self.base!r} is no http address")
        request = urllib.request.Request(url, headers={"X-API-KEY": self.key, "User-Agent": "onnes"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise _refused(error.code) from None
        except TimeoutError:
            raise InputError(
                "timeout", f"the Materials Project did not answer in {self.timeout_s:g} s"
            ) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise InputError(
                    "timeout", f"the Materials Project did not answer in {self.timeout_s:g} s"
                ) from None
            raise InputError("offline", f"the Materials Project cannot be reached: {error.reason}") from None
        except (OSError, ValueError) as error:
            raise DataError("bad-answer", f"the Materials Project's answer cannot be read: {error}") from None
        rows = found.get("data") if isinstance(found, dict) else None
        if not isinstance(rows, list):
            raise DataError("bad-answer", "the Materials Project's answer holds no data")
        return rows


def _refused(code: int) -> InputError:
    if code in (401, 403):
        return InputError("bad-key", f"the Materials Project refuses the key (HTTP {code})")
    if code == 429:
        return InputError("too-many-requests", "the Materials Project asks to wait (HTTP 429)")
    return InputError("server-error", f"the Materials Project answers with HTTP {code}")


def _subsystems(systems: Iterable[frozenset[str]]) -> list[str]:
    """Names of all chemical systems inside the given ones: of {B, Mg} ``B``, ``Mg`` and ``B-Mg``."""
    found = {
        part
        for system in systems
        for size in range(1, len(system) + 1)
        for part in combinations(sorted(system), size)
    }
    return ["-".join(part) for part in sorted(found, key=lambda p: (len(p), p))]


def computed(
    structures: Iterable[tuple[str, Structure]],
    potential: str,
    *,
    refused: Callable[[Refused], None] | None = None,
) -> list[Entry]:
    """Energies of structures with the potential, at their own geometry.

    Parameters
    ----------
    structures : iterable of (id, Structure)
    potential : str
        As for `onnes.stability.potentials`.
    refused : callable, optional
        Told of every phase that gets no energy: ``potential-unknown-element``, ``partial-occupancy``, ``no-energy``.
        The others go on.
    """
    from onnes.stability.potentials import calculator, require_elements

    calc, found = calculator(potential), []
    for id, structure in structures:
        formula = structure.composition.reduced_formula
        try:
            require_elements(structure, potential)
            energy = _energy(structure, calc)
        except CrystalError as error:
            if refused is not None:
                refused(Refused(id, "Materials Project", error.code, error.message, formula))
            continue
        found.append(Entry(_reference(structure.composition.formula, energy, id, id)))
    return found


def _energy(structure: Structure, calc: Any) -> float:
    """Energy per atom, eV; whatever the conversion or the calculator says against one structure is its refusal."""
    from pymatgen.io.ase import AseAtomsAdaptor

    if not structure.is_ordered:
        raise CrystalError("partial-occupancy", "a site is shared or partly empty")
    structure.remove_oxidation_states()
    try:
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.calc = calc
        energy = float(atoms.get_potential_energy()) / len(atoms)
    except Exception as error:  # calculators of other packages raise what they like
        raise CrystalError("no-energy", f"{type(error).__name__}: {str(error)[:200]}") from None
    if not math.isfinite(energy):
        raise CrystalError("no-energy", f"the potential gives {energy}")
    return energy

"""Two opinions on a formation energy: that of the hull of the potential, and that of the shipped property heads.

The heads answer in the Materials Project's convention (corrected PBE and PBE+U), the hull in the potential's own. What
an element shifts between the two is known (fitted on Materials Project crystals) and taken off; what is left is small
for crystals like those. Where it is not, one of the two numbers is wrong, and the row is flagged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from onnes.crystal.formula import symbols
from onnes.errors import DataError, OnnesError
from onnes.heads import predicted
from onnes.stability.relax_table import Assessed

if TYPE_CHECKING:
    from pymatgen.core import Structure

TABLE = "formation_check.json"
#: Value of the column ``formation_energy_flag`` where the two disagree.
DISAGREES = "disagrees"
#: Elements that the Materials Project computes with +U, and corrects for it, in oxides and fluorides only.
PLUS_U = frozenset(("Co", "Cr", "Fe", "Mn", "Mo", "Ni", "V", "W"))


def shift_names(elements: Iterable[str]) -> list[str]:
    """Name under which each site's shift is kept: the symbol, or ``V+U`` for vanadium beside O or F.

    Parameters
    ----------
    elements : iterable of str
        Symbol of every site.
    """
    every = list(elements)
    ionic = "O" in every or "F" in every
    return [f"{s}+U" if ionic and s in PLUS_U else s for s in every]


@dataclass(frozen=True)
class Expected:
    """What the two formation energies differ by, and by how much they may.

    Attributes
    ----------
    shift_eV : mapping of str to float
        Potential minus heads for an atom of an element; see `shift_names`.
    threshold_eV_atom : float
        95 % of unseen Materials Project crystals are left with less.
    potential : str
    """

    shift_eV: Mapping[str, float]
    threshold_eV_atom: float
    potential: str

    @classmethod
    def load(cls) -> Expected:
        """Read the shipped table (training/stability/formation_mp.py).

        Raises
        ------
        DataError
            ``damaged-table``.
        """
        try:
            found = json.loads(files("onnes.pretrained").joinpath(TABLE).read_text())
            return cls(found["shift_eV"], float(found["threshold_eV_atom"]), found["potential"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise DataError("damaged-table", f"{TABLE} cannot be read: {error}; reinstall onnes") from None

    def unexplained(self, elements: Iterable[str], hull_eV_atom: float, model_eV_atom: float) -> float:
        """Hull minus heads minus the expected shift, eV/atom; NaN where an element has no shift.

        Parameters
        ----------
        elements : iterable of str
            Symbol of every site.
        hull_eV_atom, model_eV_atom : float
        """
        shifts = [self.shift_eV.get(s, math.nan) for s in shift_names(elements)]
        return hull_eV_atom - model_eV_atom - sum(shifts) / len(shifts)


def cross_checked(assessed: Iterable[Assessed]) -> Iterator[Assessed]:
    """Add the heads' formation energy, what is left unexplained, and the flag to rows of `assess`.

    Parameters
    ----------
    assessed : iterable of Assessed
        Of the hull of the potential.
    """
    for row, structure in assessed:
        if structure is not None and row.get("formation_energy_eV_atom") is not None:
            row.update(_columns(structure, row["formation_energy_eV_atom"]))
        yield Assessed(row, structure)


def _columns(structure: Structure, hull_eV_atom: float) -> dict[str, Any]:
    expected = _expected()
    model = model_formation_energy(structure)
    if not math.isfinite(model):
        return {}
    left = expected.unexplained(symbols(structure), hull_eV_atom, model)
    flag = DISAGREES if math.isfinite(left) and abs(left) > expected.threshold_eV_atom else ""
    return {
        "formation_energy_model_eV_atom": model,
        "formation_energy_unexplained_eV_atom": left if math.isfinite(left) else None,
        "formation_energy_flag": flag,
    }


def model_formation_energy(structure: Structure) -> float:
    """Formation energy by the shipped property heads, eV/atom; NaN where they do not know an element.

    Parameters
    ----------
    structure : pymatgen Structure
    """
    try:
        return float(predicted(structure).formation_energy_eV_atom[0])
    except OnnesError:
        return math.nan


@lru_cache(maxsize=1)
def _expected() -> Expected:
    return Expected.load()

"""What every format parser hands over: sites as written in the file, before the gate."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from onnes.crystal.formula import atomic_numbers
from onnes.errors import CrystalError, OnnesError

#: Atomic masses (u, AME2020) of the hydrogen isotopes with symbols of their own.
ISOTOPE_MASS = {"D": 2.014101778, "T": 3.016049281}

_SPECIES = re.compile(r"^([A-Za-z]{1,3})\s*(?:(\d*\.?\d*)([+-])|([+-])(\d*\.?\d*))?$")


@dataclass(frozen=True)
class Species:
    """An element as chemistry sees it.

    Attributes
    ----------
    symbol : str
        Element symbol; D and T are H.
    oxidation : float or None
        Oxidation state, where written.
    mass : float or None
        Isotope mass in u, where it differs from the natural mixture.
    """

    symbol: str
    oxidation: float | None = None
    mass: float | None = None


def parse_species(text: object) -> Species:
    """Read ``Cs``, ``Cs+``, ``Fe3+``, ``O-2``, ``D``.

    Parameters
    ----------
    text : object
        What the file holds; anything but such a string is refused.

    Returns
    -------
    Species

    Raises
    ------
    CrystalError
        ``unknown-element``.
    """
    found = _SPECIES.match(text.strip()) if isinstance(text, str) else None
    if not found:
        raise CrystalError("unknown-element", f"{str(text)[:40]!r} is no element symbol H to Og")
    name = found[1][0].upper() + found[1][1:].lower()
    mass = ISOTOPE_MASS.get(name)
    symbol = "H" if mass else name
    if symbol not in atomic_numbers():
        raise CrystalError("unknown-element", f"{str(text)[:40]!r} is no element symbol H to Og")
    sign = found[3] or found[4]
    if not sign:
        return Species(symbol, None, mass)
    size = found[2] if found[3] else found[5]
    try:
        oxidation = float(size) if size else 1.0
    except ValueError as error:
        raise CrystalError("unknown-element", f"{str(text)[:40]!r} holds no readable charge") from error
    return Species(symbol, oxidation if sign == "+" else -oxidation, mass)


@dataclass
class Site:
    """One position and what sits on it.

    Attributes
    ----------
    frac : sequence of 3 floats
        Fractional coordinates.
    content : list of (Species, float)
        Species with their occupancies.
    label : str
        Name in the file, for messages.
    """

    frac: np.ndarray
    content: list[tuple[Species, float]]
    label: str = ""

    def occupancies(self) -> dict[str, float]:
        """Return the occupancy by element (isotopes of one element are added up)."""
        total: dict[str, float] = {}
        for species, amount in self.content:
            total[species.symbol] = total.get(species.symbol, 0.0) + amount
        return total

    def describe(self) -> str:
        """Return ``Nb1 (Nb 0.8, Zr 0.2)``."""
        inside = ", ".join(f"{s} {x:g}" for s, x in self.occupancies().items())
        return f"{self.label} ({inside})" if self.label else f"({inside})"


@dataclass
class Parsed:
    """One crystal as its file describes it.

    Attributes
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    sites : list of Site
    block : str
        Part of the file: CIF block, frame or row; empty when the file holds one crystal.
    labels : dict
        Numbers by name from a record.
    record_id : str
        The id the file gives.
    flags : list of str
        Remarks of the parser.
    data_set : str
        Where the file says that the crystal comes from (``source`` of a record).
    """

    lattice: np.ndarray
    sites: list[Site]
    block: str = ""
    labels: dict[str, float] = field(default_factory=dict)
    record_id: str = ""
    flags: list[str] = field(default_factory=list)
    data_set: str = ""


@dataclass
class Problem:
    """A part of a file that could not be read; the other parts go on.

    Attributes
    ----------
    error : OnnesError
        Why.
    block : str
        Part of the file.
    record_id : str
        The id the file gives, where known.
    """

    error: OnnesError
    block: str = ""
    record_id: str = ""


def full_sites(species: list[Species], frac: np.ndarray) -> list[Site]:
    """Return fully occupied sites.

    Parameters
    ----------
    species : list of Species, length n
    frac : ndarray, shape (n, 3)

    Returns
    -------
    list of Site
    """
    return [Site(f, [(s, 1.0)], f"{s.symbol}{k}") for k, (s, f) in enumerate(zip(species, frac, strict=True))]

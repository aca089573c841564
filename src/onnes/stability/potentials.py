"""Interatomic potentials by name, as ASE calculators."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.errors import CrystalError, SettingsError

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Potential:
    """A universal potential.

    Attributes
    ----------
    name : str
        Name in settings and on the command line.
    title, citation : str
        For reports.
    """

    name: str
    title: str
    citation: str


POTENTIALS: dict[str, Potential] = {
    "7net-0": Potential(
        "7net-0",
        "SevenNet-0 (11 July 2024), trained on MPtrj (PBE and PBE+U relaxations of Materials Project)",
        "Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024)",
    ),
}
DEFAULT = "7net-0"


def potential(name: str) -> Potential:
    """Return the potential of this name.

    Raises
    ------
    SettingsError
        ``unknown-potential``.
    """
    if name not in POTENTIALS:
        raise SettingsError(
            "unknown-potential", f"unknown potential {name!r}; use one of {', '.join(POTENTIALS)}"
        )
    return POTENTIALS[name]


@lru_cache(maxsize=2)
def calculator(name: str = DEFAULT) -> Calculator:
    """Load the potential as an ASE calculator (on the CPU, once a process).

    Raises
    ------
    SettingsError
        ``unknown-potential``.
    """
    potential(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator(name, device="cpu")


@lru_cache(maxsize=2)
def elements(name: str = DEFAULT) -> frozenset[int]:
    """Atomic numbers the potential was trained on."""
    loaded: Any = calculator(name)
    return frozenset(int(z) for z in loaded.type_map)


def require_elements(structure: Structure, name: str = DEFAULT) -> None:
    """Refuse elements the potential does not know.

    Raises
    ------
    CrystalError
        ``potential-unknown-element``.
    """
    known = elements(name)
    unknown = sorted({e.symbol for e in structure.elements if e.Z not in known})
    if unknown:
        raise CrystalError("potential-unknown-element", f"{name} does not know {', '.join(unknown)}")


@lru_cache(maxsize=2)
def potential_hash(name: str = DEFAULT) -> str:
    """Hash of the weights file: part of the key of every relaxation in a ledger."""
    potential(name)
    from sevenn.util import pretrained_name_to_path

    return hashlib.sha256(Path(pretrained_name_to_path(name)).read_bytes()).hexdigest()[:16]

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
    weights : str
        Name of the weights in the package that ships them.
    modal : str
        Which of the theories a potential of several was trained on; empty for one.
    """

    name: str
    title: str
    citation: str
    weights: str
    modal: str = ""


_SEVENNET = "Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024)"
_MULTI = "J. Kim et al., J. Am. Chem. Soc. 147, 1042 (2025)"


POTENTIALS: dict[str, Potential] = {
    each.name: each
    for each in (
        Potential(
            "7net-0",
            "SevenNet-0 (11 July 2024), trained on MPtrj (PBE and PBE+U relaxations of Materials Project)",
            _SEVENNET,
            "7net-0",
        ),
        Potential(
            "7net-l3i5",
            "SevenNet-l3i5, angular momenta to 3 and 5 layers, trained on MPtrj (PBE and PBE+U)",
            _SEVENNET,
            "7net-l3i5",
        ),
        Potential(
            "7net-mf-0",
            "SevenNet-MF-0, trained on MPtrj and r2SCAN relaxations of Materials Project; its PBE side",
            _MULTI,
            "7net-mf-0",
            "PBE",
        ),
        Potential(
            "7net-mf-0-r2scan",
            "SevenNet-MF-0, trained on MPtrj and r2SCAN relaxations of Materials Project; its r2SCAN side",
            _MULTI,
            "7net-mf-0",
            "R2SCAN",
        ),
    )
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


@lru_cache(maxsize=4)
def calculator(name: str = DEFAULT) -> Calculator:
    """Load the potential as an ASE calculator (on the CPU, once a process).

    Raises
    ------
    SettingsError
        ``unknown-potential``.
    """
    chosen = potential(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator(chosen.weights, device="cpu", modal=chosen.modal or None)


@lru_cache(maxsize=4)
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


@lru_cache(maxsize=4)
def potential_hash(name: str = DEFAULT) -> str:
    """Hash of the weights file (and the side of it that is used): part of the key of every relaxation in a ledger."""
    chosen = potential(name)
    from sevenn.util import pretrained_name_to_path

    weights = Path(pretrained_name_to_path(chosen.weights)).read_bytes()
    return hashlib.sha256(weights + chosen.modal.encode()).hexdigest()[:16]

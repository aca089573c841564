"""The shipped property heads for one crystal at a time.

A door of its own, because `onnes.stability` imports nothing that learns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from onnes.crystal.formula import numbers
from onnes.errors import OnnesError

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.crystal.read import Crystal
    from onnes.learn.properties import PropertyPrediction


def predicted(structure: Structure) -> PropertyPrediction:
    """Formation energy, gap, moduli and stability of one crystal, as arrays of length 1.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered.

    Raises
    ------
    OnnesError
        ``unknown-element``, ``out-of-memory``: of the potential whose features the heads read.
    """
    heads, potential = _heads()
    (features,) = potential.attempt([structure])
    if isinstance(features, OnnesError):
        raise features
    found: PropertyPrediction = heads.predict(
        [(features, numbers(structure), structure.volume / len(structure))]
    )
    return found


def learned_moduli(item: Crystal) -> tuple[float, float]:
    """Bulk and shear modulus in GPa, as learned from DFT.

    Raises
    ------
    OnnesError
        Those of `predicted`.
    """
    found = predicted(item.structure)
    return float(found.bulk_GPa[0]), float(found.shear_GPa[0])


@lru_cache(maxsize=1)
def _heads() -> tuple[Any, Any]:
    from onnes.learn.features import FrozenPotential
    from onnes.learn.properties import PropertyEnsemble

    heads = PropertyEnsemble()
    return heads, FrozenPotential(potential=heads.potential)

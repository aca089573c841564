"""Reading, checking and standardising crystals. Never imports torch."""

from onnes.crystal.amd import amd, same_crystal
from onnes.crystal.check import Limits, check, flags
from onnes.crystal.formula import formula_of, reduced_formula
from onnes.crystal.geometry import geometry
from onnes.crystal.read import Crystal, Refused, as_crystal, read
from onnes.crystal.symmetry import fingerprint, space_group, standardise

__all__ = [
    "Crystal",
    "Limits",
    "Refused",
    "amd",
    "as_crystal",
    "check",
    "fingerprint",
    "flags",
    "formula_of",
    "geometry",
    "read",
    "reduced_formula",
    "same_crystal",
    "space_group",
    "standardise",
]

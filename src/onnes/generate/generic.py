"""Space group that letters and elements have in general, whatever the free parameters are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from ase.data import chemical_symbols

from onnes.crystal.families import constrain
from onnes.crystal.wyckoff import LETTERS, Described, Site, describe
from onnes.crystal.wyckoff_table import wyckoff_positions
from onnes.generate.orbits import Frame

#: A cell of no special shape, in A and degrees; what the family fixes is set.
CELL = (5.0, 5.7, 6.6, 81.0, 86.0, 97.0)
#: Distance tolerance in A: parameters are drawn, so that nothing is nearly special.
SYMPREC = 1e-4


@lru_cache(maxsize=65536)
def generic(frame: Frame) -> tuple[int, int]:
    """Space group, and atoms of the primitive cell, of a frame with arbitrary free parameters and cell.

    Niobium alone on 1a and 3c of 221 is fcc, 225: no parameter is free to make it anything less.

    Parameters
    ----------
    frame : Frame

    Returns
    -------
    number : int
        1 to 230; ``frame.number`` unless the occupied orbits have more symmetry than their group.
    n_atoms : int
    """
    rng = np.random.default_rng(0)
    sites = tuple(
        Site(
            LETTERS[letter],
            chemical_symbols[kind],
            tuple(float(x) for x in rng.random(wyckoff_positions(frame.number)[letter].freedom)),
        )
        for letter, kind in zip(frame.letters, frame.kinds, strict=True)
    )
    crystal = Described(frame.number, sites, constrain(frame.number, CELL))
    found = describe(crystal.primitive(), SYMPREC, canonical=False)
    return found.number, found.n_primitive

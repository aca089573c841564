"""What the spectral network takes beside the structure: vibrational spectra of the atoms in its cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnes.errors import PhysicsError
from onnes.nets.spectrum import PHONON_EDGES_MEV

FloatArray = NDArray[np.float64]

#: Deviation of the Gaussian that widens every mode, meV: force constants are no better known than this.
SMEAR_MEV = 0.75


def phonon_cells(edges_meV: FloatArray, weight: FloatArray) -> FloatArray:
    """Shares of each atom's modes in the network's cells.

    Parameters
    ----------
    edges_meV : ndarray, shape (m + 1,)
        Cells of the given spectra; imaginary modes below zero.
    weight : ndarray, shape (N, m)
        Modes in each cell, in any unit.

    Returns
    -------
    ndarray, shape (N, P)
        Rows of sum 1. Imaginary modes count in the lowest cell, modes above the last edge in the highest.

    Raises
    ------
    PhysicsError
        ``no-modes``.
    """
    from scipy.special import ndtr

    middle = (np.asarray(edges_meV)[1:] + np.asarray(edges_meV)[:-1]) / 2.0
    share = np.diff(ndtr((PHONON_EDGES_MEV[:, None] - middle) / SMEAR_MEV), axis=0)
    share[0] += ndtr((PHONON_EDGES_MEV[0] - middle) / SMEAR_MEV)
    share[-1] += 1.0 - ndtr((PHONON_EDGES_MEV[-1] - middle) / SMEAR_MEV)
    if not (np.asarray(weight).sum(1) > 0.0).all():
        raise PhysicsError("no-modes", "an atom has no vibrational modes")
    cells = np.maximum(np.asarray(weight, dtype=float), 0.0) @ share.T
    return np.asarray(cells / cells.sum(1, keepdims=True))

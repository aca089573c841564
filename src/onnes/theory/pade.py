"""Analytic continuation from Matsubara frequencies to the real axis by Pade approximants."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ComplexArray = NDArray[np.complex128]


def pade(points: ArrayLike, values: ArrayLike, at: ArrayLike) -> ComplexArray:
    """Evaluate the N-point Pade approximant through given values (Thiele's continued fraction).

    Vidberg and Serene, J. Low Temp. Phys. 29, 179 (1977).

    Parameters
    ----------
    points : array_like of complex, shape (n,)
        Distinct points, here i omega_n.
    values : array_like of complex, shape (n,)
    at : array_like of complex, shape (m,)

    Returns
    -------
    ndarray of complex, shape (m,)
    """
    z = np.asarray(points, dtype=complex)
    x = np.asarray(at, dtype=complex)
    coefficients = _coefficients(z, np.asarray(values, dtype=complex))
    # A_k/B_k by forward recursion, rescaled at every step: the two grow beyond all bounds together.
    a0, a1 = np.zeros_like(x), np.full_like(x, coefficients[0])
    b0, b1 = np.ones_like(x), np.ones_like(x)
    for k in range(1, len(coefficients)):
        factor = (x - z[k - 1]) * coefficients[k]
        a0, a1 = a1, a1 + factor * a0
        b0, b1 = b1, b1 + factor * b0
        size = np.maximum(np.abs(b1), 1e-300)
        a0, a1, b0, b1 = a0 / size, a1 / size, b0 / size, b1 / size
    return np.asarray(a1 / b1)


def _coefficients(z: ComplexArray, values: ComplexArray) -> ComplexArray:
    """Coefficients of the continued fraction; it ends where the data are reproduced."""
    g = values.copy()
    found = [g[0]]
    for k in range(1, len(z)):
        rest = g[k:]
        with np.errstate(divide="ignore", invalid="ignore"):
            g[k:] = (found[-1] - rest) / ((z[k:] - z[k - 1]) * rest)
        if not np.isfinite(g[k]) or abs(g[k]) < 1e-14 * abs(found[0]):
            break
        found.append(g[k])
    return np.array(found)

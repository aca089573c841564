"""Compressed Matsubara sums and the electron-phonon kernel for the Eliashberg equations.

Fermionic frequencies are omega_m = (2m + 1) pi T with m >= 0 (negative ones by symmetry). All m below `DENSE` are
kept; above, indices grow geometrically and each carries the weight with which piecewise cubic interpolation
sums the integers between. The number of points then grows with the logarithm of cut-off over temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from onnes.errors import PhysicsError
from onnes.theory.spectral import Spectrum

FloatArray = NDArray[Any]

#: Indices kept one by one, and the growth of the spacing above them.
DENSE, GROWTH = 96, 1.02


@dataclass(frozen=True)
class Mesh:
    """Points and weights with sum_j w_j f(m_j) = sum_{m=0}^{N-1} f(m) for smooth f.

    Attributes
    ----------
    index : ndarray of int, shape (J,)
        Matsubara indices, increasing, from 0 to N - 1.
    weight : ndarray of float, shape (J,)
        They add up to N.
    """

    index: NDArray[np.int64]
    weight: FloatArray

    @property
    def size(self) -> int:
        """Number of frequencies represented, N."""
        return int(self.index[-1]) + 1


@lru_cache(maxsize=64)
def mesh(size: int) -> Mesh:
    """Build the mesh for the indices 0 .. size - 1."""
    if size <= DENSE + 8:
        return Mesh(np.arange(size), np.ones(size))
    index = list(range(DENSE))
    while index[-1] < size - 1:
        index.append(min(size - 1, max(index[-1] + 1, round(index[-1] * GROWTH))))
    # A short last interval behind a long one would be extrapolated across it, with negative weights: of the ways
    # to end the mesh the one with the most even weights is taken.
    ends = [index, [*index[:-2], index[-1]], [*index[:-3], *index[-2:]], [*index[:-3], index[-1]]]
    made = [Mesh(points, _weights(points)) for points in (np.array(e, dtype=np.int64) for e in ends)]
    return max(made, key=lambda m: float(m.weight.min()))


def _weights(points: NDArray[np.int64]) -> FloatArray:
    """Weights of the sum over all integers of the piecewise cubic interpolant through the points.

    Between two neighbours the cubic through the two on either side is summed exactly; a sum over integers of
    a cubic is that of its values at 4 Gauss-like nodes, here by closed power sums.
    """
    weight = np.ones(len(points))
    for k in np.flatnonzero(np.diff(points) > 1):
        low = min(max(int(k) - 1, 0), len(points) - 4)
        support = points[low : low + 4]
        a, b = int(points[k]), int(points[k + 1])
        # Power sums of t = (m - a)/(b - a) over the integers strictly between a and b.
        scale = b - a
        n = scale - 1
        sums = np.array(
            [n, n * (n + 1) / 2, n * (n + 1) * (2 * n + 1) / 6, (n * (n + 1) / 2) ** 2], dtype=float
        ) / scale ** np.arange(4.0)
        t = (support - a) / scale
        weight[low : low + 4] += np.linalg.solve(np.vander(t, 4, increasing=True).T, sums)
    return weight


class Kernel:
    """lambda(nu) = int 2 omega alpha2F / (omega^2 + nu^2) d omega as a fast function of nu.

    Parameters
    ----------
    spectrum : Spectrum

    Notes
    -----
    lambda(nu) (1 + nu^2/omega_2^2) changes slowly with asinh(nu/omega_s) and is interpolated by a cubic spline,
    built once; the relative error is below 1e-6 (tested).
    """

    def __init__(self, spectrum: Spectrum) -> None:
        self.lam = spectrum.lam
        self.omega_2 = spectrum.omega_2_meV
        self.top = spectrum.omega_max_meV
        self._nodes, self._weights = spectrum.quadrature()

    @cached_property
    def _scale(self) -> float:
        # Soft modes bend lambda(nu) at small nu: resolve well below the lowest frequency that couples.
        measure = np.cumsum(self._weights / self._nodes)
        return float(self._nodes[np.searchsorted(measure, 0.01 * measure[-1])])

    @cached_property
    def _spline(self) -> CubicSpline:
        end = np.arcsinh(1e7 * self.top / self._scale)
        x = np.linspace(0.0, end, 700)
        nu = self._scale * np.sinh(x)
        return CubicSpline(x, self.exact(nu) * (1.0 + (nu / self.omega_2) ** 2))

    def exact(self, nu: FloatArray) -> FloatArray:
        """Evaluate by quadrature, nu in meV."""
        out = np.empty(len(nu))
        for start in range(0, len(nu), 64):
            part = nu[start : start + 64, None]
            out[start : start + 64] = np.sum(
                2.0 * self._weights * self._nodes / (self._nodes**2 + part**2), axis=1
            )
        return out

    def __call__(self, nu: FloatArray) -> FloatArray:
        """Evaluate by interpolation, nu >= 0 in meV, any shape."""
        nu = np.asarray(nu, dtype=float)
        return np.asarray(self._spline(np.arcsinh(nu / self._scale)) / (1.0 + (nu / self.omega_2) ** 2))


def convert_mu_star(mu_star: float, from_meV: float, to_meV: float) -> float:
    """Return the pseudopotential at another cut-off: 1/mu*(b) = 1/mu*(a) + ln(a/b).

    Morel and Anderson, Phys. Rev. 125, 1263 (1962). The bare Coulomb repulsion does not change.

    Raises
    ------
    PhysicsError
        ``bad-cutoff`` at and beyond the energy where mu* diverges.
    """
    if mu_star == 0.0:
        return 0.0
    inverse = 1.0 / mu_star + float(np.log(from_meV / to_meV))
    if not inverse > 0.0:
        raise PhysicsError(
            "bad-cutoff",
            f"mu* = {mu_star:g} at {from_meV:.4g} meV has no value at {to_meV:.4g} meV: it diverges",
        )
    return 1.0 / inverse

"""A fixed frequency grid on which the moments of alpha2F are weighted sums of its values.

alpha2F is linear between the points, as in `onnes.theory.spectral`, so lambda, ln omega_log and omega_2^2 of the
values v_k are exactly sums over k. A curve is brought onto the grid so that its lambda stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import PhysicsError, SettingsError
from onnes.theory.hygiene import Hygiene
from onnes.theory.quadrature import linear_rule
from onnes.theory.spectral import Spectrum

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SpectralGrid:
    """Frequencies of a predicted alpha2F; it goes linearly to zero at omega = 0.

    Attributes
    ----------
    omega_meV : ndarray, shape (K,)
        Strictly increasing, > 0.
    """

    omega_meV: FloatArray

    def __post_init__(self) -> None:
        omega = np.asarray(self.omega_meV, dtype=float)
        if omega.ndim != 1 or omega.size < 2 or omega[0] <= 0.0 or (np.diff(omega) <= 0.0).any():
            raise SettingsError(
                "bad-grid", "a spectral grid needs at least two rising frequencies above zero"
            )
        object.__setattr__(self, "omega_meV", omega)

    @classmethod
    def quadratic(cls, points: int = 100, top_meV: float = 250.0, bottom_meV: float = 0.5) -> SpectralGrid:
        """Points equally spaced in the root of the frequency: fine where heavy atoms are, wide for hydrogen."""
        return cls(np.linspace(np.sqrt(bottom_meV), np.sqrt(top_meV), points) ** 2)

    @classmethod
    def linear(cls, points: int = 51, bottom_meV: float = 0.25, top_meV: float = 100.25) -> SpectralGrid:
        """Equally spaced points; the defaults are those of Gibson et al. (arXiv:2401.16611)."""
        return cls(np.linspace(bottom_meV, top_meV, points))

    def _functional(self, power: float, *, log: bool = False) -> FloatArray:
        """2 int hat_k(omega) omega^power [ln omega] d omega of each point's hat function, meV."""
        out = np.zeros(self.omega_meV.size)
        for k in range(out.size):
            values = np.zeros_like(out)
            values[k] = 1.0
            x, w, _ = linear_rule(self.omega_meV, values, from_zero=True)
            out[k] = 2.0 * float(np.sum(w * x**power * (np.log(x) if log else 1.0)))
        return out

    @cached_property
    def coupling(self) -> FloatArray:
        """Lambda = sum(coupling * values), shape (K,)."""
        return self._functional(-1.0)

    @cached_property
    def log_omega(self) -> FloatArray:
        """ln(omega_log/meV) = sum(q * log_omega) with the shares q_k = coupling_k v_k / lambda, shape (K,)."""
        return np.asarray(self._functional(-1.0, log=True) / self.coupling)

    @cached_property
    def square_omega(self) -> FloatArray:
        """(omega_2/meV)^2 = sum(q * square_omega), shape (K,)."""
        return np.asarray(self._functional(1.0) / self.coupling)

    @cached_property
    def width_meV(self) -> FloatArray:
        """Area under each hat function: int alpha2F d omega = sum(width * values), shape (K,)."""
        return self._functional(0.0) / 2.0

    def shares(self, spectrum: Spectrum, *, tolerance: float = 1e-3) -> FloatArray:
        """Share of lambda at each point, shape (K,), sum 1; a frequency between two points goes to both.

        Parameters
        ----------
        spectrum : Spectrum
        tolerance : float
            Largest share of lambda that may lie above the grid (it goes to the last point).

        Raises
        ------
        PhysicsError
            ``beyond-grid``, ``no-coupling``.
        """
        nodes, weights = spectrum.quadrature()
        measure = weights / nodes
        total = measure.sum()
        if not total > 0.0:
            raise PhysicsError("no-coupling", f"{spectrum.source}: alpha2F is zero everywhere")
        beyond = float(measure[nodes > self.omega_meV[-1]].sum() / total)
        if beyond > tolerance:
            raise PhysicsError(
                "beyond-grid",
                f"{spectrum.source}: {100 * beyond:.1f} % of lambda lies above the grid's end at "
                f"{self.omega_meV[-1]:.0f} meV",
            )
        # Split in the middles that the moments see, so that omega_log stays too.
        place = np.clip(np.log(nodes), self.log_omega[0], self.log_omega[-1])
        above = np.clip(np.searchsorted(self.log_omega, place), 1, self.omega_meV.size - 1)
        low, high = self.log_omega[above - 1], self.log_omega[above]
        part = (place - low) / (high - low)
        size = self.omega_meV.size
        shares = np.bincount(above - 1, measure * (1.0 - part), size) + np.bincount(
            above, measure * part, size
        )
        return np.asarray(shares / total)

    def smoothed(self, spectrum: Spectrum, *, step_meV: float = 0.1, window: int = 101) -> FloatArray:
        """alpha2F at the points after a Savitzky-Golay filter of third order, shape (K,).

        The preparation of Gibson et al. (arXiv:2401.16611): filter on a grid of `step_meV`, then interpolate. Negative
        overshoots are cut.

        Raises
        ------
        PhysicsError
            ``beyond-grid``.
        """
        from scipy.signal import savgol_filter

        spectrum.on_grid(self.omega_meV)  # refuses a curve that leaves the grid
        x = np.arange(step_meV, self.omega_meV[-1] + window * step_meV, step_meV)
        smooth = savgol_filter(spectrum.on_grid(x), window, 3)
        return np.maximum(np.interp(self.omega_meV, x, smooth), 0.0)

    def values(self, shares: ArrayLike, lam: ArrayLike) -> FloatArray:
        """alpha2F at the points of shares (..., K) and lambda (...)."""
        return np.asarray(np.asarray(lam)[..., None] * np.asarray(shares) / self.coupling)

    def spectrum(self, values: FloatArray, source: str) -> Spectrum:
        """The curve through values at the points, as an object with moments."""
        return Spectrum(self.omega_meV, values, source, Hygiene(from_zero=True))

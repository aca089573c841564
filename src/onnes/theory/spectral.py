"""The Eliashberg function alpha2F(omega) as an immutable object, and its moments.

Between grid points alpha2F is taken as linear; above the last point it is 0. Below the first point it is 0 too,
unless omega = 0 is just the point missing in front of the grid (see `quadrature.reaches_zero`) or the input had
points at omega <= 0: then it goes linearly to alpha2F(0) = 0, which adds 2 alpha2F(omega_1) to lambda.

All integrals are done for that function: a quadrature rule built once per spectrum (Gauss-Legendre on pieces no
wider than a factor sqrt(2) in omega) integrates 1/omega, ln(omega)/omega and the Matsubara kernels alike, also
where a trapezoid fails, near omega = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import InputError, PhysicsError
from onnes.theory.hygiene import WARN_REMOVED, Hygiene, clean
from onnes.theory.quadrature import linear_rule, reaches_zero
from onnes.units import TO_KELVIN

FloatArray = NDArray[np.float64]

#: Stretching of the hydrogen molecule, 4,400 cm-1, the stiffest vibration there is, and a little.
HIGHEST_PHONON_MEV = 600.0
#: Grids that end outside this range (meV) are not phonon spectra in any unit.
_TOP_RANGE_MEV = (1e-3, 1e6)


def unit_factor(unit: str | None) -> float:
    """Return the factor from `unit` to meV; raise InputError ``no-unit`` or ``unknown-unit``."""
    allowed = ", ".join(TO_KELVIN)
    if unit is None or not str(unit).strip():
        raise InputError("no-unit", f"the frequency unit is not stated; give one of {allowed}")
    if unit not in TO_KELVIN:
        raise InputError("unknown-unit", f"unknown frequency unit {unit!r}; use one of {allowed}")
    return TO_KELVIN[unit] / TO_KELVIN["meV"]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """alpha2F on a grid of real, positive frequencies. Build it with `from_arrays` or `from_file`.

    Attributes
    ----------
    omega_meV : ndarray of float, shape (n,)
        Strictly increasing frequencies > 0 in meV, read-only.
    alpha2F : ndarray of float, shape (n,)
        Dimensionless, >= 0, read-only.
    source : str
        Where it came from.
    hygiene : Hygiene
        What was removed from the input, and how much of lambda that was.
    meta : dict
        What the file says about itself (format, smearing, the code's own lambda), for cross-checks.
    """

    omega_meV: FloatArray
    alpha2F: FloatArray
    source: str = "array"
    hygiene: Hygiene = field(default_factory=Hygiene)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        omega, values = _grid(self.omega_meV, self.alpha2F, self.source)
        if omega[0] <= 0.0 or (values < 0.0).any():
            raise InputError(
                "not-clean", f"{self.source}: Spectrum holds omega > 0 and alpha2F >= 0; use from_arrays"
            )
        for name, array in (("omega_meV", omega), ("alpha2F", values)):
            array = array.copy()
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def from_arrays(
        cls,
        omega: ArrayLike,
        alpha2F: ArrayLike,
        unit: str,
        *,
        source: str = "array",
        meta: dict[str, Any] | None = None,
    ) -> Spectrum:
        """Clean a raw alpha2F and state its unit.

        Parameters
        ----------
        omega : array_like, shape (n,)
            Strictly increasing frequencies in `unit`; negative ones are imaginary modes.
        alpha2F : array_like, shape (n,)
            Dimensionless.
        unit : str
            A key of `onnes.units.TO_KELVIN`: meV, THz, cm-1, Ry, Ha, K, eV.
        source : str
            Name used in messages.
        meta : dict, optional
            Kept as it is.

        Raises
        ------
        InputError
            ``no-unit``, ``unknown-unit``, ``shape``, ``too-few-points``, ``not-finite``,
            ``grid-not-increasing``, ``out-of-range``.
        PhysicsError
            ``negative-weight``: more than 10 % of lambda would have to be removed (see `hygiene`).
        """
        factor = unit_factor(unit)
        raw_omega, raw_values = _grid(omega, alpha2F, source)
        top = float(raw_omega[-1]) * factor
        if top > 0.0 and not _TOP_RANGE_MEV[0] <= top <= _TOP_RANGE_MEV[1]:
            raise InputError(
                "out-of-range", f"{source}: omega ends at {top:.3g} meV; is the unit {unit} right?"
            )
        kept_omega, kept_values, hygiene = clean(raw_omega * factor, raw_values, source)
        return cls(kept_omega, kept_values, source, hygiene, dict(meta or {}))

    @classmethod
    def from_file(cls, path: str | Path, unit: str | None = None, **options: Any) -> Spectrum:
        """Read any alpha2F file `onnes.theory.readers` knows; see `readers.read_a2f` for the options."""
        from onnes.theory.readers import read_a2f

        return read_a2f(path, unit=unit, **options)

    @cached_property
    def from_zero(self) -> bool:
        """Whether alpha2F goes linearly to 0 at omega = 0 below the first point; it is 0 there otherwise."""
        stated = self.hygiene.from_zero
        return reaches_zero(self.omega_meV) if stated is None else stated

    @property
    def notes(self) -> list[str]:
        """What a reader must know about this input, one line each; serious ones start with ``warning``."""
        lines = [*self.meta.get("notes", []), *self.hygiene.notes]
        # Continued to zero or not, the first value is worth 2 alpha2F(omega_1) in lambda.
        if not self.from_zero and 2.0 * self.alpha2F[0] > WARN_REMOVED * self.lam:
            lines.append(
                f"warning: alpha2F starts at {self.alpha2F[0]:.3g} at {self.omega_meV[0]:.3g} meV and is taken "
                "as 0 below; a curve cut off at low frequency lacks coupling"
            )
        if self.omega_max_meV > HIGHEST_PHONON_MEV:
            lines.append(
                f"warning: alpha2F reaches {self.omega_max_meV:.0f} meV, above any phonon known "
                f"({HIGHEST_PHONON_MEV:.0f} meV); is the unit right?"
            )
        return lines

    @cached_property
    def _rule(self) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
        return linear_rule(self.omega_meV, self.alpha2F, from_zero=self.from_zero)

    def quadrature(self) -> tuple[FloatArray, FloatArray]:
        """Return nodes (meV) and weights (meV) with sum(weight f(node)) = int alpha2F f d omega.

        Exact for the piecewise-linear alpha2F to about 1e-9 for f = 1/omega, ln(omega)/omega,
        omega/(omega^2 + nu^2) at any nu, and smoother functions.
        """
        nodes, weights, _ = self._rule
        return nodes, weights

    @cached_property
    def lam(self) -> float:
        """Coupling lambda = 2 int alpha2F/omega d omega (0 for a spectrum without weight)."""
        nodes, weights, _ = self._rule
        return _finite(2.0 * float(np.sum(weights / nodes)), self.source)

    def _mean(self, power: float) -> float:
        """Mean of omega^power over the measure (2/lambda) alpha2F/omega, in units of the top frequency."""
        nodes, weights, _ = self._rule
        x = nodes / self.omega_meV[-1]
        measure = weights / nodes
        return float(np.sum(measure * x**power) / np.sum(measure))

    @cached_property
    def omega_log_meV(self) -> float:
        """Logarithmic frequency exp[(2/lambda) int alpha2F ln(omega)/omega d omega], meV; 0 if lambda = 0."""
        if self.lam <= 0.0:
            return 0.0
        nodes, weights, _ = self._rule
        top = self.omega_meV[-1]
        measure = weights / nodes
        return float(top * np.exp(np.sum(measure * np.log(nodes / top)) / np.sum(measure)))

    @cached_property
    def omega_1_meV(self) -> float:
        """Mean frequency (2/lambda) int alpha2F d omega in meV; 0 if lambda = 0."""
        return float(self.omega_meV[-1]) * self._mean(1.0) if self.lam > 0.0 else 0.0

    @cached_property
    def omega_2_meV(self) -> float:
        """Root-mean-square frequency sqrt[(2/lambda) int alpha2F omega d omega] in meV; 0 if lambda = 0."""
        return float(self.omega_meV[-1] * np.sqrt(self._mean(2.0))) if self.lam > 0.0 else 0.0

    @property
    def omega_log_K(self) -> float:
        """`omega_log_meV` in kelvin."""
        return self.omega_log_meV * TO_KELVIN["meV"]

    @property
    def omega_1_K(self) -> float:
        """`omega_1_meV` in kelvin."""
        return self.omega_1_meV * TO_KELVIN["meV"]

    @property
    def omega_2_K(self) -> float:
        """`omega_2_meV` in kelvin."""
        return self.omega_2_meV * TO_KELVIN["meV"]

    @property
    def omega_max_meV(self) -> float:
        """Highest frequency with non-zero alpha2F on it, in meV (0 if there is none)."""
        filled = np.flatnonzero(self.alpha2F > 0.0)
        return float(self.omega_meV[filled[-1]]) if filled.size else 0.0

    def cumulative_lambda(self) -> FloatArray:
        """Return lambda(omega) = 2 int_0^omega alpha2F/omega' d omega' on the grid, shape (n,)."""
        nodes, weights, owner = self._rule
        steps = np.bincount(owner, weights=2.0 * weights / nodes, minlength=self.omega_meV.size)
        return np.cumsum(steps)

    def on_grid(self, grid_meV: ArrayLike, *, tolerance: float = 1e-3) -> FloatArray:
        """Interpolate onto another grid, refusing to cut the spectrum off.

        Parameters
        ----------
        grid_meV : array_like, shape (m,)
            Increasing frequencies in meV.
        tolerance : float
            Largest fraction of int alpha2F d omega that may lie above the grid.

        Returns
        -------
        ndarray of float, shape (m,)

        Raises
        ------
        PhysicsError
            ``beyond-grid``: the spectrum leaves the grid; cutting it would lower omega_log silently.
        """
        grid = np.asarray(grid_meV, dtype=float)
        nodes, weights, _ = self._rule
        total = float(np.sum(weights))
        beyond = float(np.sum(weights[nodes > grid[-1]]))
        if total > 0.0 and beyond > tolerance * total:
            raise PhysicsError(
                "beyond-grid",
                f"{self.source}: the spectrum reaches {self.omega_max_meV:.1f} meV, beyond the grid's end at "
                f"{grid[-1]:.1f} meV ({100 * beyond / total:.1f} % of its area)",
            )
        start = [0.0] if self.from_zero else []
        x, y = np.r_[start, self.omega_meV], np.r_[start, self.alpha2F]
        return np.asarray(np.interp(grid, x, y, left=0.0, right=0.0))

    def scaled(self, *, coupling: float = 1.0, frequency: float = 1.0) -> Spectrum:
        """Return a spectrum with lambda multiplied by `coupling` and all frequencies by `frequency`."""
        if not (coupling >= 0.0 and frequency > 0.0):
            raise InputError("bad-scale", f"coupling {coupling} must be >= 0 and frequency {frequency} > 0")
        return Spectrum(
            self.omega_meV * frequency, self.alpha2F * coupling, self.source, self.hygiene, dict(self.meta)
        )


def _grid(omega: ArrayLike, alpha2F: ArrayLike, source: str) -> tuple[FloatArray, FloatArray]:
    try:
        x, y = np.array(omega, dtype=float), np.array(alpha2F, dtype=float)
    except (TypeError, ValueError):
        raise InputError("not-a-number", f"{source}: omega and alpha2F must be numbers") from None
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError("shape", f"{source}: omega {x.shape} and alpha2F {y.shape} must be equal 1-D shapes")
    if x.size < 2:
        raise InputError("too-few-points", f"{source}: {x.size} point(s); a spectrum needs at least 2")
    for name, array in (("omega", x), ("alpha2F", y)):
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            raise InputError(
                "not-finite", f"{source}: {name} is {array[bad[0]]} at point {bad[0] + 1} ({bad.size} in all)"
            )
    down = np.flatnonzero(np.diff(x) <= 0.0)
    if down.size:
        i = down[0]
        raise InputError(
            "grid-not-increasing",
            f"{source}: omega must increase; point {i + 2} is {x[i + 1]:g} after {x[i]:g}",
        )
    return x, y


def _finite(value: float, source: str) -> float:
    if not np.isfinite(value):
        raise PhysicsError("out-of-range", f"{source}: the spectrum's coupling is not a finite number")
    return value

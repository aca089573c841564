"""BCS weak-coupling Tc and the pre-screen on Debye temperature and density of states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import InputError, PhysicsError, SettingsError

FloatArray = NDArray[np.float64]

#: 2 Delta_0/(k Tc) in the weak-coupling limit, 2 pi exp(-gamma).
GAP_RATIO = 2.0 * np.pi * np.exp(-np.euler_gamma)


def bcs_tc(debye_K: ArrayLike, coupling: ArrayLike) -> FloatArray:
    """Return Tc = 1.14 theta_D exp(-1/(N(0) V)) in kelvin.

    Parameters
    ----------
    debye_K : array_like, shape (...)
        Debye temperature in kelvin, >= 0.
    coupling : array_like, shape (...)
        N(0) V, dimensionless; Tc = 0 where it is not attractive (<= 0).

    Raises
    ------
    InputError
        ``not-finite``.
    PhysicsError
        ``negative-frequency``.
    """
    theta, strength = np.broadcast_arrays(np.asarray(debye_K, dtype=float), np.asarray(coupling, dtype=float))
    if not (np.isfinite(theta).all() and np.isfinite(strength).all()):
        raise InputError("not-finite", "theta_D or N(0)V holds NaN or inf")
    if (theta < 0.0).any():
        raise PhysicsError("negative-frequency", f"theta_D is {theta.min():g} K; it cannot be negative")
    attractive = strength > 0.0
    with np.errstate(over="ignore", under="ignore"):
        weight = np.exp(-1.0 / np.where(attractive, strength, 1.0))
    return np.where(attractive, 1.14 * theta * weight, 0.0)


@dataclass(frozen=True)
class Screen:
    """Thresholds of the BCS pre-screen.

    Attributes
    ----------
    min_debye_K : float
        Debye temperature that must be exceeded.
    min_dos : float
        N(EF) in states/eV/electron (valence electrons of the cell) that must be exceeded; 0 asks for a metal
        only.
    """

    min_debye_K: float = 300.0
    min_dos: float = 1.0

    def __post_init__(self) -> None:
        if not (
            np.isfinite([self.min_debye_K, self.min_dos]).all() and self.min_debye_K >= 0 <= self.min_dos
        ):
            raise SettingsError(
                "bad-threshold",
                f"thresholds must be finite and >= 0, got theta_D {self.min_debye_K}, N(EF) {self.min_dos}",
            )


@dataclass(frozen=True)
class ScreenResult:
    """Outcome for one crystal: `passed`, and the gate that stopped it (code and sentence) otherwise."""

    passed: bool
    reason: str = ""


def prescreen(debye_K: float | None, dos: float | None, screen: Screen | None = None) -> ScreenResult:
    """Apply the pre-screen; a quantity that is not known stops the crystal by name, it never passes.

    Parameters
    ----------
    debye_K : float or None
        Debye temperature in kelvin.
    dos : float or None
        N(EF) in states/eV/electron.
    screen : Screen, optional
        Thresholds.
    """
    limits = screen or Screen()
    if debye_K is None or not np.isfinite(debye_K):
        return ScreenResult(False, "debye-unknown: no Debye temperature")
    if debye_K <= limits.min_debye_K:
        return ScreenResult(False, f"debye-low: theta_D {debye_K:.0f} K <= {limits.min_debye_K:.0f} K")
    if dos is None or not np.isfinite(dos):
        return ScreenResult(False, "dos-unknown: no N(EF)")
    if dos <= limits.min_dos:
        return ScreenResult(False, f"dos-low: N(EF) {dos:.3g} <= {limits.min_dos:.3g} states/eV/electron")
    return ScreenResult(True)

"""The formulas turned round: omega_2 from a published lambda, omega_log and Allen-Dynes Tc."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from onnes.errors import InputError
from onnes.theory.tc import (
    DEFAULT_MU_STAR,
    FloatArray,
    Formula,
    tc_array,
)

#: Largest uncertainty of omega_2/omega_log, from the rounding of Tc, with which a ratio is given.
TOLERANCE = 0.05


def omega_2_from_tc(
    lam: ArrayLike,
    omega_log_K: ArrayLike,
    tc_K: ArrayLike,
    *,
    mu_star: ArrayLike = DEFAULT_MU_STAR,
    tc_step_K: float = 1e-3,
) -> FloatArray:
    """Infer omega_2 from a Tc that was computed by the Allen-Dynes formula with both factors.

    Tables of electron-phonon calculations often give lambda, omega_log and Tc but not omega_2. With
    c = 1.82 (1 + 6.3 mu*) and r = omega_2/omega_log the shape factor reads
    f2 = 1 + (r - 1) lambda^2 / (lambda^2 + c^2 r^2) (P. B. Allen and R. C. Dynes, Phys. Rev. B 12, 905 (1975),
    eq. 38), a quadratic in r whose smaller root continues f2 = 1 at r = 1.

    Parameters
    ----------
    lam, omega_log_K, tc_K, mu_star : numbers, shape (...)
        As published; omega_log and Tc in kelvin.
    tc_step_K : float
        Last digit of the published Tc.

    Returns
    -------
    ndarray, shape (...)
        omega_2 in kelvin; NaN where Tc does not determine it: r would be below 1, no r gives this Tc, or half a
        digit of Tc moves r by more than `TOLERANCE`.

    Raises
    ------
    InputError, SettingsError
        As `onnes.theory.tc.tc_table`; ``bad-step`` for a step that is not positive.
    """
    if not (np.isfinite(tc_step_K) and tc_step_K > 0.0):
        raise InputError("bad-step", f"the last digit of Tc must be a positive number, not {tc_step_K}")
    lam, wlog, tc, mu = np.broadcast_arrays(
        *(np.asarray(v, dtype=float) for v in (lam, omega_log_K, tc_K, mu_star))
    )
    # With omega_2 = omega_log the factor f2 is 1; what is left of Tc is f1 times the exponential.
    unshaped = tc_array(lam, wlog, wlog, mu_star=mu, formula=Formula.ALLEN_DYNES)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        f2 = tc / unshaped
        step = 0.5 * tc_step_K / unshaped
        ratio, moved = _ratio(f2, lam, mu), _ratio(f2 + step, lam, mu)
        # NaN in `moved` (beyond the largest f2) compares as not determined.
        sure = (unshaped > 0.0) & (ratio >= 1.0) & (np.abs(moved - ratio) <= TOLERANCE)
    return np.where(sure, ratio * wlog, np.nan)


def _ratio(f2: FloatArray, lam: FloatArray, mu: FloatArray) -> FloatArray:
    """Smaller root of c^2 (f2 - 1) r^2 - lambda^2 r + lambda^2 f2 = 0, written without cancellation."""
    c2 = (1.82 * (1.0 + 6.3 * mu)) ** 2
    root = np.sqrt(lam**4 - 4.0 * c2 * (f2 - 1.0) * lam**2 * f2)
    return np.asarray(2.0 * lam**2 * f2 / (lam**2 + root))

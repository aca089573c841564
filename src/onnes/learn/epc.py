"""What every electron-phonon predictor gives: lambda, omega_log, omega_2, N(EF) and Tc with calibrated intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnes.learn.calibrate import Conformal
from onnes.theory.tc import tc_array

FloatArray = NDArray[np.float64]

#: Label conventions the heads were trained on; predictions are given in the first one.
SOURCES = ("alexandria", "jarvis")
#: What a head puts out: ln lambda, ln omega_log/K, ln N(EF)/(states/eV/atom), ln omega_2/omega_log.
TARGETS = ("lambda", "omega_log_K", "dos_ef", "omega_2_ratio")
#: Tc enters the interval as ln(Tc + FLOOR): relative errors where superconductivity is strong, absolute near 0.
FLOOR_K = 0.3


@dataclass(frozen=True)
class EpcPrediction:
    """Predicted electron-phonon quantities, one entry a crystal.

    Attributes
    ----------
    lam, lam_std : ndarray, shape (n,)
        lambda and its calibrated standard deviation (half the 68.3 % interval).
    omega_log_K, omega_log_K_std, omega_2_K : ndarray, shape (n,)
        Frequencies in kelvin.
    tc_K, tc_low_K, tc_high_K : ndarray, shape (n,)
        Tc by the formula asked for and its conformal interval (coverage in the card).
    dos_ef : ndarray, shape (n,)
        N(EF), states/eV/atom.
    tc_spread : ndarray, shape (n,), or None
        Deviation of ln(Tc + FLOOR_K) over the members.
    """

    lam: FloatArray
    lam_std: FloatArray
    omega_log_K: FloatArray
    omega_log_K_std: FloatArray
    omega_2_K: FloatArray
    tc_K: FloatArray
    tc_low_K: FloatArray
    tc_high_K: FloatArray
    dos_ef: FloatArray
    tc_spread: FloatArray | None = None


def tc_spread(log_outputs: FloatArray, mu_star: float, formula: str) -> tuple[FloatArray, FloatArray]:
    """Tc of the ensemble mean and the deviation of ln(Tc + FLOOR_K) over its members.

    Parameters
    ----------
    log_outputs : ndarray, shape (members, n, 4)
        Outputs of every member in the order of `TARGETS`.
    """
    each = tc_of(log_outputs, mu_star, formula)
    return tc_of(log_outputs.mean(0), mu_star, formula), np.log(each + FLOOR_K).std(0)


def tc_of(log_outputs: FloatArray, mu_star: float, formula: str) -> FloatArray:
    """Tc in kelvin of outputs of shape (..., 4); a ratio omega_2/omega_log below 1 counts as 1 (Jensen)."""
    lam, wlog = np.exp(log_outputs[..., 0]), np.exp(log_outputs[..., 1])
    return tc_array(lam, wlog, omega_2(log_outputs), mu_star=mu_star, formula=formula)


def omega_2(log_outputs: FloatArray) -> FloatArray:
    """omega_2 in kelvin of outputs of shape (..., 4)."""
    return np.asarray(np.exp(log_outputs[..., 1] + np.maximum(log_outputs[..., 3], 0.0)))


def calibrated(
    log_outputs: FloatArray,
    calibration: Mapping[str, Conformal],
    mu_star: float,
    formula: str,
    width_limits: Mapping[str, float],
) -> EpcPrediction:
    """Mean, deviation and intervals of members' outputs.

    Parameters
    ----------
    log_outputs : ndarray, shape (members, n, 4)
        In the order of `TARGETS`.
    calibration : mapping
        ``lambda`` and ``omega_log_K`` (68.3 %) and ``tc_K``.
    mu_star, formula
        For Tc.
    width_limits : mapping
        For the same names, the deviation of ln lambda, ln omega_log and ln(Tc + FLOOR_K) over the members beyond
        which an interval grows no wider: errors do not grow with it either.
    """
    mean, std = log_outputs.mean(0), log_outputs.std(0)
    lam, wlog = np.exp(mean[:, 0]), np.exp(mean[:, 1])
    tc, spread = tc_spread(log_outputs, mu_star, formula)
    low, high = calibration["tc_K"].interval(tc, np.minimum(spread, width_limits["tc_K"]))
    half = [
        np.subtract(*calibration[name].interval(middle, np.minimum(std[:, k], width_limits[name]))[::-1])
        / 2.0
        for k, (name, middle) in enumerate((("lambda", lam), ("omega_log_K", wlog)))
    ]
    return EpcPrediction(
        lam, half[0], wlog, half[1], omega_2(mean), tc, low, high, np.exp(mean[:, 2]), spread
    )

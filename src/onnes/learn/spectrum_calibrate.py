"""Intervals and bands of a spectral ensemble, from crystals that its members had not seen."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnes.learn.calibrate import Space, coverage_report, enough
from onnes.learn.calibrate import fit as conformal
from onnes.learn.epc import FLOOR_K, tc_of
from onnes.learn.spectrum import band_scale, log_moments
from onnes.theory.spectral_grid import SpectralGrid
from onnes.units import TO_KELVIN

FloatArray = NDArray[np.float64]
MEV = TO_KELVIN["meV"]

TC_EDGES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
#: Quantile of the members' deviation beyond which an interval grows no wider.
WIDEST = 0.95
#: Share of the crystals whose members disagree more than the limit of the domain.
BEYOND = 0.01
#: omega_2/omega_log where it is unknown (median of Alexandria).
USUAL_RATIO = 1.18
FLOORS = (0.05, 0.1, 0.2, 0.4, 0.8)


def intervals(
    values: FloatArray,
    moments: FloatArray,
    group: NDArray[Any],
    grid: SpectralGrid,
    *,
    mu_star: float = 0.10,
    formula: str = "allen-dynes",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Calibrate the intervals of lambda, omega_log (68.3 %) and Tc (90 %).

    Parameters
    ----------
    values : ndarray, shape (members, n, K)
        alpha2F; NaN where the member has seen the crystal.
    moments : ndarray, shape (n, 3)
        ln lambda, ln(omega_log/meV), ln(omega_2/omega_log); the last NaN where unknown.
    group : ndarray, shape (n,)
        Crystals that are not independent share one.
    grid : SpectralGrid
    mu_star, formula
        For Tc.

    Returns
    -------
    settings : dict
        What `onnes.learn.spectrum.SpectrumEnsemble` reads.
    card : dict
        How often the intervals of Tc hold, range by range, each row by a calibration of the other groups.
    """
    with np.errstate(all="ignore"):
        mean = np.nanmean(values, axis=0)
    logs = log_moments(values, mean, grid)
    middle = np.nanmean(logs, axis=0)
    found, widest = {}, {}
    actual = (np.exp(moments[:, 0]), np.exp(moments[:, 1]) * MEV)
    for k, (name, floor_) in enumerate((("lambda", 0.05), ("omega_log_K", 10.0))):
        std = np.nanstd(logs[:, :, k], axis=0)
        widest[name] = float(np.quantile(std, WIDEST))
        std = np.minimum(std, widest[name])
        found[name] = conformal(
            actual[k], np.exp(middle[:, k]), group, level=0.683, space=Space(floor_), std=std
        )
    ratio = np.where(np.isfinite(moments[:, 2]), moments[:, 2], np.log(USUAL_RATIO))
    labels = np.column_stack([moments[:, 0], moments[:, 1] + np.log(MEV), np.zeros(len(ratio)), ratio])
    tc_true, tc = tc_of(labels, mu_star, formula), tc_of(middle, mu_star, formula)
    each = np.full(logs.shape[:2], np.nan)
    unseen = np.isfinite(logs[:, :, 0])
    each[unseen] = tc_of(logs[unseen], mu_star, formula)
    spread = np.nanstd(np.log(each + FLOOR_K), axis=0)
    widest["tc_K"] = float(np.quantile(spread, WIDEST))
    limit = float(np.quantile(spread, 1.0 - BEYOND))
    spread = np.minimum(spread, widest["tc_K"])
    # The floor that suits crystals without a Tc would make the others' intervals too narrow.
    some = tc > 0.5 if (tc > 0.5).sum() >= 10 else np.ones(len(tc), dtype=bool)
    space = Space(FLOOR_K)
    floor = conformal(tc_true[some], tc[some], group[some], space=space, std=spread[some]).std_floor
    how: dict[str, Any] = {
        "level": 0.9,
        "space": space,
        "std": spread,
        "std_floor": floor,
        "edges": enough(tc, group, TC_EDGES),
    }
    found["tc_K"] = conformal(tc_true, tc, group, **how)
    report = coverage_report(tc_true, tc, group, ranges=(-1e-9, *how["edges"], np.inf), **how)
    plain = [{k: round(v, 4) if np.isfinite(v) else None for k, v in asdict(row).items()} for row in report]
    settings = {
        "intervals": {k: v.to_dict() for k, v in found.items()},
        "width_limits": widest,
        "spread_limit": limit,
    }
    return settings, {"tc_interval_coverage": plain, "unseen_members": float(unseen.sum(0).mean())}


def band(
    values: FloatArray,
    truth: FloatArray,
    fold: NDArray[Any],
    *,
    level: float = 0.683,
) -> dict[str, Any]:
    """Half width of the band over `onnes.learn.spectrum.band_scale`: factor and floor of the narrowest band.

    Parameters
    ----------
    values : ndarray, shape (members, n, K)
        alpha2F; NaN where the member has seen the crystal.
    truth : ndarray, shape (n, K)
    fold : ndarray of int, shape (n,)
        The coverage in the answer is that of each fold by a factor of the others.
    level : float
        Share of the points that the band holds, where there is something to predict.
    """
    mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    # Points where there is something to predict: beyond both curves everything is right.
    inside = np.maximum(mean, truth) > 0.02 * mean.max(1, keepdims=True)
    best: tuple[float, float, float] | None = None
    for floor in FLOORS:
        width = np.maximum(band_scale(mean, deviation, floor), 1e-9)
        factor = float(np.quantile((np.abs(mean - truth) / width)[inside], level))
        mean_width = float((factor * width)[inside].mean())
        if best is None or mean_width < best[0]:
            best = (mean_width, factor, floor)
    assert best is not None
    held = []
    ratio = np.abs(mean - truth) / np.maximum(band_scale(mean, deviation, best[2]), 1e-9)
    for k in np.unique(fold):
        own = fold == k
        if own.all():
            continue
        factor = float(np.quantile(ratio[~own][inside[~own]], level))
        held.append((ratio[own] <= factor)[inside[own]])
    coverage = float(np.concatenate(held).mean()) if held else float("nan")
    return {
        "factor": best[1],
        "floor": best[2],
        "level": level,
        "n": len(truth),
        "held_out_coverage": round(coverage, 3),
    }

"""How an uncertain alpha2F makes lambda, omega_log, omega_2 and Tc uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import SettingsError
from onnes.theory.spectral import Spectrum
from onnes.theory.tc import tc_array
from onnes.units import TO_KELVIN

FloatArray = NDArray[Any]


@dataclass(frozen=True)
class Spread:
    """Distribution of a quantity: mean, standard deviation, and central 90 % interval."""

    mean: float
    std: float
    low: float
    high: float

    @classmethod
    def of(cls, values: FloatArray) -> Spread:
        """Summarise samples."""
        low, high = np.quantile(values, [0.05, 0.95])
        return cls(float(values.mean()), float(values.std()), float(low), float(high))


def propagate(
    spectrum: Spectrum,
    sigma: ArrayLike,
    *,
    correlation_meV: float | None = None,
    mu_star: float = 0.10,
    mu_star_std: float = 0.0,
    formula: str = "allen-dynes",
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Spread]:
    """Propagate errors of alpha2F (and mu*) to the moments and Tc by sampling.

    Each sample multiplies alpha2F by 1 + sigma(omega) g(omega), g a normal process with correlation
    exp(-(omega - omega')^2/(2 c^2)); negative values are cut at 0.

    Parameters
    ----------
    spectrum : Spectrum
    sigma : float or array_like, shape (n_points,)
        Relative standard deviation, one or a value for each grid point.
    correlation_meV : float, optional
        Correlation length c; without it all frequencies move together (an error of scale).
    mu_star, mu_star_std : float
        Mean and standard deviation of the pseudopotential, kept in [0, 0.5].
    formula : str
        Closed Tc formula.
    n, seed : int
        Samples, and the seed they are drawn with.

    Returns
    -------
    dict of str to Spread
        ``lambda``, ``omega_log_K``, ``omega_2_K``, ``tc_K``.

    Raises
    ------
    SettingsError
        ``bad-sigma``.
    """
    relative = np.broadcast_to(np.asarray(sigma, dtype=float), spectrum.omega_meV.shape)
    bad_length = correlation_meV is not None and not correlation_meV > 0
    if not (np.isfinite(relative).all() and (relative >= 0).all()) or bad_length or n < 2 or mu_star_std < 0:
        raise SettingsError("bad-sigma", "sigma and mu_star_std >= 0, correlation > 0 and n >= 2 are needed")
    rng = np.random.default_rng(seed)
    nodes, weights = spectrum.quadrature()
    scale = _factors(spectrum, relative, correlation_meV, nodes, n, rng)
    measure = 2.0 * weights / nodes * scale
    lam = measure.sum(axis=1)
    safe = np.where(lam > 0.0, lam, 1.0)
    log_meV = np.exp(measure @ np.log(nodes) / safe)
    rms_meV = np.sqrt(measure @ nodes**2 / safe)
    mu = np.clip(mu_star + mu_star_std * rng.standard_normal(n), 0.0, 0.5)
    kelvin = TO_KELVIN["meV"]
    tc = tc_array(lam, log_meV * kelvin, rms_meV * kelvin, mu_star=mu, formula=formula)
    values = {"lambda": lam, "omega_log_K": log_meV * kelvin, "omega_2_K": rms_meV * kelvin, "tc_K": tc}
    return {name: Spread.of(value) for name, value in values.items()}


def _factors(
    spectrum: Spectrum,
    relative: FloatArray,
    correlation: float | None,
    nodes: FloatArray,
    n: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Random factors of alpha2F at the quadrature nodes, shape (n, nodes), not negative."""
    here = np.interp(nodes, spectrum.omega_meV, relative)
    if correlation is None:
        return np.maximum(1.0 + here * rng.standard_normal((n, 1)), 0.0)
    # A stationary process on a grid of a third of the correlation length, by its Cholesky factor.
    count = int(min(max(np.ceil(3.0 * spectrum.omega_meV[-1] / correlation) + 1, 2), 2000))
    grid = np.linspace(0.0, spectrum.omega_meV[-1], count)
    covariance = np.exp(-((grid[:, None] - grid[None, :]) ** 2) / (2.0 * correlation**2))
    root = np.linalg.cholesky(covariance + 1e-8 * np.eye(count))
    drawn = rng.standard_normal((n, count)) @ root.T
    at = np.array([np.interp(nodes, grid, row) for row in drawn])
    return np.maximum(1.0 + here * at, 0.0)

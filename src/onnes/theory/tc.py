"""Closed formulas for Tc from the moments of alpha2F, guarded so that no input gives inf or NaN.

Every formula maps (lambda, omega_log, omega_2, mu*) to kelvin and is vectorised; `tc` is the scalar door,
`tc_array` the one for ensembles and `tc_table` the one that also says, per element, what was done and why.

References: McMillan, Phys. Rev. 167, 331 (1968); Allen and Dynes, Phys. Rev. B 12, 905 (1975);
Xie et al., npj Comput. Mater. 8, 14 (2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import InputError, SettingsError

if TYPE_CHECKING:
    from onnes.theory.spectral import Spectrum

FloatArray = NDArray[np.float64]
_Evaluate = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], tuple[FloatArray, NDArray[np.int8]]]

#: mu* used wherever the caller does not choose one; always printed with the result.
DEFAULT_MU_STAR = 0.10

#: Xie's f_mu is a correction of order one (0.9 to 1.3 over the data it was fitted to). Outside this window
#: it is the pole at 1/lambda - mu* - omega_log/omega_2 = 0 speaking, not the physics.
F_MU_WINDOW = (0.5, 1.5)
#: Distance from that pole (dimensionless) below which f_mu is not trusted whatever its value.
POLE_DISTANCE = 1e-3


class Formula(StrEnum):
    """Names of the closed formulas, as accepted on the command line."""

    MCMILLAN_ALLEN_DYNES = "mcmillan-allen-dynes"
    ALLEN_DYNES = "allen-dynes"
    XIE = "xie"


class Why(IntEnum):
    """What, if anything, was done besides evaluating the formula (one code per element)."""

    OK = 0
    BELOW_GUARD = 1
    NO_PHONONS = 2
    VANISHING = 3
    XIE_POLE = 4
    XIE_NEGATIVE = 5
    OMEGA2_BELOW_LOG = 6


REASONS: dict[Why, str] = {
    Why.OK: "",
    Why.BELOW_GUARD: "below-guard: lambda <= mu*/(1 - 0.62 mu*), repulsion outweighs attraction, Tc = 0",
    Why.NO_PHONONS: "no-phonons: omega_log is zero, Tc = 0",
    Why.VANISHING: "vanishing: lambda is so close to the guard mu*/(1 - 0.62 mu*) that Tc underflows to 0",
    Why.XIE_POLE: "xie-pole: f_mu is at its pole 1/lambda = mu* + omega_log/omega_2; Allen-Dynes used",
    Why.XIE_NEGATIVE: "xie-negative: the factor f_omega f_mu is not positive here; Allen-Dynes used",
    Why.OMEGA2_BELOW_LOG: "omega2-below-log: omega_2 < omega_log is impossible; omega_2 = omega_log used",
}
_FALLBACKS = (Why.XIE_POLE, Why.XIE_NEGATIVE, Why.OMEGA2_BELOW_LOG)


@dataclass(frozen=True)
class TcResult:
    """One critical temperature and how it was obtained.

    Attributes
    ----------
    tc_K : float
        Critical temperature in kelvin, finite and >= 0.
    formula : Formula
        The formula asked for.
    mu_star : float
        Coulomb pseudopotential used.
    reason : str
        Empty, or ``"code: sentence"`` when a guard acted.
    fallback : bool
        True when the number does not come from `formula` as it stands.
    """

    tc_K: float
    formula: Formula
    mu_star: float
    reason: str = ""
    fallback: bool = False


@dataclass(frozen=True)
class TcTable:
    """Vectorised result: Tc with a reason code per element, all of one shape.

    Attributes
    ----------
    tc_K : ndarray of float, shape (...)
        Critical temperatures in kelvin.
    why : ndarray of int8, shape (...)
        Codes of `Why`; ``REASONS[Why(code)]`` is the sentence.
    """

    tc_K: FloatArray
    why: NDArray[np.int8]

    @property
    def fallback(self) -> NDArray[np.bool_]:
        """Boolean array: the formula asked for was replaced or its input corrected."""
        return np.isin(self.why, [int(code) for code in _FALLBACKS])


def guard_lambda(mu_star: ArrayLike) -> FloatArray:
    """Return the coupling mu*/(1 - 0.62 mu*) at and below which the formulas have no solution (Tc = 0)."""
    mu = _checked_mu(mu_star)
    return np.asarray(mu / (1.0 - 0.62 * mu))


def _mcmillan_allen_dynes(
    lam: FloatArray, wlog: FloatArray, w2: FloatArray, mu: FloatArray
) -> tuple[FloatArray, NDArray[np.int8]]:
    # The denominator is positive: tc_table only passes elements above the guard.
    exponent = -1.04 * (1.0 + lam) / (lam - mu * (1.0 + 0.62 * lam))
    tc_K = wlog / 1.2 * np.exp(exponent)
    return tc_K, np.where(tc_K > 0.0, Why.OK, Why.VANISHING).astype(np.int8)


def _allen_dynes(
    lam: FloatArray, wlog: FloatArray, w2: FloatArray, mu: FloatArray
) -> tuple[FloatArray, NDArray[np.int8]]:
    base, why = _mcmillan_allen_dynes(lam, wlog, w2, mu)
    ratio = w2 / wlog
    l1 = 2.46 * (1.0 + 3.8 * mu)
    l2 = 1.82 * (1.0 + 6.3 * mu) * ratio
    f1 = np.cbrt(1.0 + (lam / l1) ** 1.5)
    f2 = 1.0 + (ratio - 1.0) / (1.0 + (l2 / lam) ** 2)
    return base * f1 * f2, why


def xie_factors(
    lam: ArrayLike, omega_log_K: ArrayLike, omega_2_K: ArrayLike, mu_star: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return Xie's f_omega, f_mu and the distance 1/lambda - mu* - omega_log/omega_2 from the pole of f_mu.

    f_mu may be infinite at the pole itself; `tc` never uses it there.
    """
    lam, wlog, w2, mu = (np.asarray(x, dtype=float) for x in (lam, omega_log_K, omega_2_K, mu_star))
    ratio = wlog / w2
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        f_omega = 1.92 * (lam + ratio - np.cbrt(mu)) / (np.sqrt(lam) * np.exp(ratio)) - 0.08
        distance = 1.0 / lam - mu - ratio
        # exp(-lambda/mu*) -> 0 for mu* -> 0: there is no Coulomb correction left.
        screening = np.where(mu > 0.0, np.exp(-lam / np.where(mu > 0.0, mu, 1.0)), 0.0)
        f_mu = 1.0 + np.where(screening > 0.0, 6.86 * screening / distance, 0.0)
    return f_omega, f_mu, distance


def _xie(
    lam: FloatArray, wlog: FloatArray, w2: FloatArray, mu: FloatArray
) -> tuple[FloatArray, NDArray[np.int8]]:
    base, why = _mcmillan_allen_dynes(lam, wlog, w2, mu)
    f_omega, f_mu, distance = xie_factors(lam, wlog, w2, mu)
    # Without repulsion f_mu is 1 everywhere and there is no pole.
    near = (np.abs(distance) < POLE_DISTANCE) & (mu > 0.0)
    pole = near | (f_mu < F_MU_WINDOW[0]) | (f_mu > F_MU_WINDOW[1])
    negative = ~pole & (f_omega <= 0.0)
    safe = ~(pole | negative)
    factor = np.where(safe, f_omega * np.where(safe, f_mu, 1.0), 1.0)
    fallback, _ = _allen_dynes(lam, wlog, w2, mu)
    codes = np.where(pole, Why.XIE_POLE, np.where(negative, Why.XIE_NEGATIVE, why)).astype(np.int8)
    return np.where(safe, base * factor, fallback), codes


#: Formula name -> vectorised function of (lambda, omega_log, omega_2, mu*), defined above the guard.
FORMULAS: dict[Formula, _Evaluate] = {
    Formula.MCMILLAN_ALLEN_DYNES: _mcmillan_allen_dynes,
    Formula.ALLEN_DYNES: _allen_dynes,
    Formula.XIE: _xie,
}


def formula_named(name: str | Formula) -> Formula:
    """Return the `Formula` of that name; raise SettingsError ``unknown-formula`` otherwise."""
    try:
        return Formula(name)
    except ValueError:
        allowed = ", ".join(FORMULAS)
        raise SettingsError("unknown-formula", f"unknown formula {name!r}; use one of {allowed}") from None


def tc_table(
    lam: ArrayLike,
    omega_log_K: ArrayLike,
    omega_2_K: ArrayLike | None = None,
    *,
    mu_star: ArrayLike = DEFAULT_MU_STAR,
    formula: str | Formula = Formula.ALLEN_DYNES,
) -> TcTable:
    """Evaluate one closed formula element by element, with the reason for every guarded element.

    Parameters
    ----------
    lam : array_like, shape (...)
        Coupling lambda, dimensionless. Values at or below the guard (negative ones too) give Tc = 0.
    omega_log_K, omega_2_K : array_like, shape (...)
        Logarithmic and root-mean-square frequency in kelvin. `omega_2_K` may be omitted for
        McMillan-Allen-Dynes only.
    mu_star : array_like, shape (...)
        Coulomb pseudopotential, in [0, 1). Broadcast against the other arguments, so a band of mu*
        is an extra leading axis.
    formula : Formula or str
        Which formula.

    Returns
    -------
    TcTable
        Tc in kelvin (finite, >= 0) and reason codes, of the broadcast shape.

    Raises
    ------
    InputError
        ``not-finite`` for NaN or inf; ``negative-frequency``; ``missing-omega-2``.
    SettingsError
        ``bad-mu-star`` or ``unknown-formula``.
    """
    chosen = formula_named(formula)
    if omega_2_K is None:
        if chosen is not Formula.MCMILLAN_ALLEN_DYNES:
            raise InputError("missing-omega-2", f"the {chosen} formula needs omega_2; give omega_2_K")
        omega_2_K = omega_log_K
    lam, wlog, w2, mu = np.broadcast_arrays(
        _finite("lambda", lam),
        _frequency("omega_log", omega_log_K),
        _frequency("omega_2", omega_2_K),
        _checked_mu(mu_star),
    )
    tc_K, why = np.zeros(lam.shape), np.full(lam.shape, Why.BELOW_GUARD, dtype=np.int8)
    alive = lam > guard_lambda(mu)
    why[alive & (wlog <= 0.0)] = Why.NO_PHONONS
    alive = alive & (wlog > 0.0)
    # Moments of a real spectrum obey omega_2 >= omega_log (Jensen); the tolerance is for rounding.
    impossible = alive & (w2 < wlog * (1.0 - 1e-6)) & (chosen is not Formula.MCMILLAN_ALLEN_DYNES)
    with np.errstate(under="ignore", over="ignore"):
        tc_K[alive], why[alive] = FORMULAS[chosen](
            lam[alive], wlog[alive], np.maximum(w2[alive], wlog[alive]), mu[alive]
        )
    why[impossible & (why == Why.OK)] = Why.OMEGA2_BELOW_LOG
    if not np.isfinite(tc_K).all():
        raise InputError("out-of-range", "lambda or the frequencies are too large for a finite Tc")
    return TcTable(tc_K, why)


def tc_array(
    lam: ArrayLike,
    omega_log_K: ArrayLike,
    omega_2_K: ArrayLike | None = None,
    *,
    mu_star: ArrayLike = DEFAULT_MU_STAR,
    formula: str | Formula = Formula.ALLEN_DYNES,
) -> FloatArray:
    """Return Tc in kelvin as an array of the broadcast shape (...); see `tc_table` for the arguments."""
    return tc_table(lam, omega_log_K, omega_2_K, mu_star=mu_star, formula=formula).tc_K


def tc(
    lam: float | Spectrum,
    omega_log_K: float | None = None,
    omega_2_K: float | None = None,
    *,
    mu_star: float = DEFAULT_MU_STAR,
    formula: str | Formula = Formula.ALLEN_DYNES,
) -> TcResult:
    """Return Tc by one closed formula, from the three moments or from a `Spectrum`.

    Parameters
    ----------
    lam : float or Spectrum
        Coupling lambda, or a spectrum that brings all three moments (then give no other moment).
    omega_log_K, omega_2_K : float, optional
        Moments in kelvin.
    mu_star : float
        Coulomb pseudopotential.
    formula : Formula or str
        ``mcmillan-allen-dynes``, ``allen-dynes`` (default) or ``xie``.

    Returns
    -------
    TcResult
        Tc in kelvin with the formula, mu* and the reason when a guard acted.

    Raises
    ------
    InputError, SettingsError
        As `tc_table`; ``missing-omega-log`` and ``moments-given-twice`` besides.
    """
    from onnes.theory.spectral import Spectrum

    if isinstance(lam, Spectrum):
        if omega_log_K is not None or omega_2_K is not None:
            raise InputError("moments-given-twice", "a spectrum brings its own omega_log and omega_2")
        return tc(lam.lam, lam.omega_log_K, lam.omega_2_K, mu_star=mu_star, formula=formula)
    if omega_log_K is None:
        raise InputError("missing-omega-log", "Tc needs omega_log besides lambda; give omega_log_K")
    table = tc_table(lam, omega_log_K, omega_2_K, mu_star=mu_star, formula=formula)
    why = Why(int(table.why))
    return TcResult(
        float(table.tc_K), formula_named(formula), float(mu_star), REASONS[why], bool(table.fallback)
    )


def tc_all(spectrum: Spectrum, *, mu_star: float = DEFAULT_MU_STAR) -> dict[Formula, TcResult]:
    """Return Tc of a spectrum by every closed formula at one mu*."""
    return {name: tc(spectrum, mu_star=mu_star, formula=name) for name in FORMULAS}


def mcmillan_debye(lam: ArrayLike, debye_K: ArrayLike, *, mu_star: ArrayLike = DEFAULT_MU_STAR) -> FloatArray:
    """Return McMillan's original Tc = theta_D/1.45 exp[-1.04(1+lambda)/(lambda - mu*(1+0.62 lambda))] in K.

    It replaces omega_log/1.2 by theta_D/1.45 and was fitted to spectra shaped like niobium's; use it only
    where a Debye temperature is all there is. Same guard and errors as `tc_table`.
    """
    prefactor = 1.2 / 1.45
    table = tc_table(
        lam,
        prefactor * _frequency("theta_D", debye_K),
        mu_star=mu_star,
        formula=Formula.MCMILLAN_ALLEN_DYNES,
    )
    return table.tc_K


def validity(formula: str | Formula, lam: float, omega_log_K: float, omega_2_K: float) -> list[str]:
    """Return the notes a reader of this Tc must see: where the formula is known to be off."""
    notes: list[str] = []
    chosen = formula_named(formula)
    if chosen is Formula.MCMILLAN_ALLEN_DYNES and lam > 1.5:
        notes.append(f"lambda {lam:.2f} > 1.5: without f1 f2 this formula saturates and is too low")
    if chosen is Formula.ALLEN_DYNES and lam > 4.0:
        notes.append(f"lambda {lam:.2f} is beyond the couplings (up to about 4) it was made for")
    if chosen is Formula.ALLEN_DYNES and omega_log_K > 0 and omega_2_K / omega_log_K > 1.6:
        notes.append(
            f"omega_2/omega_log {omega_2_K / omega_log_K:.2f} > 1.6: f2 was fitted to narrower spectra"
        )
    if chosen is Formula.XIE and lam > 4.0:
        notes.append(f"lambda {lam:.2f} is beyond the couplings (up to about 4) it was fitted to")
    return notes


def _finite(name: str, value: ArrayLike) -> FloatArray:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise InputError("not-a-number", f"{name} is not a number: {value!r:.60}") from None
    if not np.isfinite(array).all():
        bad: Any = array[~np.isfinite(array)].flat[0]
        raise InputError("not-finite", f"{name} contains {bad}; finite numbers are needed")
    return array


def _frequency(name: str, value: ArrayLike) -> FloatArray:
    array = _finite(name, value)
    if (array < 0.0).any():
        raise InputError("negative-frequency", f"{name} is {array.min():g} K; it cannot be negative")
    return array


def _checked_mu(value: ArrayLike) -> FloatArray:
    try:
        mu = _finite("mu*", value)
    except InputError as error:
        raise SettingsError("bad-mu-star", error.message) from None
    bad = mu[(mu < 0.0) | (mu >= 1.0)]
    if bad.size:
        raise SettingsError(
            "bad-mu-star", f"mu* = {bad.flat[0]:g} is outside [0, 1); typical values are 0.08 to 0.15"
        )
    return mu

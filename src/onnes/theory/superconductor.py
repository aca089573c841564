"""What the Eliashberg equations say about the superconducting state: gap, condensation energy, specific heat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import PhysicsError
from onnes.theory.eliashberg import Eliashberg, GapSolution
from onnes.theory.matsubara import convert_mu_star
from onnes.theory.pade import pade
from onnes.theory.spectral import Spectrum
from onnes.units import UNITS

FloatArray = NDArray[Any]

#: Temperature (in Tc) that stands for zero, and those of the thermodynamic functions.
COLD = 0.05
#: Above this the frequencies of Tc are used, so that free energy and gap vanish exactly at Tc.
NEAR = 0.75
GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99)
#: Matsubara frequencies used for the continuation: up to this many highest phonon frequencies.
PADE_REACH, PADE_POINTS = 2.0, 60


@dataclass(frozen=True)
class Superconductor:
    """Result of `eliashberg`.

    Attributes
    ----------
    tc_K : float
        0.0 when there is no solution, with `reason`.
    gap_meV : float
        Edge of the gap on the real axis at 0.05 Tc: Re Delta(omega = gap) = gap.
    gap_ratio : float
        2 gap / (k Tc); 3.53 at weak coupling.
    z : float
        Renormalisation Z at the lowest frequency, 1 + lambda in the normal state.
    jump_ratio : float
        Specific-heat jump over the normal specific heat, (C_s - C_n)/(gamma Tc) at Tc; 1.43 at weak coupling.
    condensation_ratio : float
        gamma Tc^2 / Hc(0)^2 (cgs); 0.168 at weak coupling.
    mu_star, cutoff_meV : float
        The pseudopotential and the cut-off it belongs to.
    reason : str
        Empty, or why there is no superconductivity.
    gap_at_zero : GapSolution or None
        Solution at 0.05 Tc.
    temperatures_K, gaps_meV : ndarray
        Gap function at the lowest Matsubara frequency against temperature.
    """

    tc_K: float
    gap_meV: float
    gap_ratio: float
    z: float
    jump_ratio: float
    condensation_ratio: float
    mu_star: float
    cutoff_meV: float
    reason: str = ""
    gap_at_zero: GapSolution | None = field(default=None, repr=False)
    temperatures_K: FloatArray = field(default_factory=lambda: np.zeros(0), repr=False)
    gaps_meV: FloatArray = field(default_factory=lambda: np.zeros(0), repr=False)


def eliashberg(
    spectrum: Spectrum,
    *,
    mu_star: float = 0.10,
    mu_star_at_meV: float | None = None,
    cutoff_meV: float | None = None,
    gap: bool = True,
) -> Superconductor:
    """Solve the isotropic Migdal-Eliashberg equations for a spectrum.

    Parameters
    ----------
    spectrum : Spectrum
    mu_star : float
        Coulomb pseudopotential.
    mu_star_at_meV : float, optional
        Energy the given `mu_star` belongs to; it is converted to the cut-off. By default it is the cut-off's.
        Values fitted with the Allen-Dynes formula belong to the phonon frequencies: give
        ``spectrum.omega_max_meV`` for those.
    cutoff_meV : float, optional
        Cut-off of the Coulomb term; 10 times the highest phonon frequency by default. With another cut-off the
        same metal has another mu* (`onnes.theory.matsubara.convert_mu_star`).
    gap : bool
        Also solve the non-linear equations. Without, only Tc is computed (a few ms).

    Returns
    -------
    Superconductor

    Raises
    ------
    PhysicsError
        ``not-converged``, ``empty-spectrum``, ``bad-cutoff``.
    SettingsError
        ``bad-mu-star``.
    """
    equations = Eliashberg(spectrum, mu_star, cutoff_meV)
    if mu_star_at_meV is not None:
        if not mu_star_at_meV > 0.0:
            raise PhysicsError("bad-cutoff", f"mu* cannot belong to an energy of {mu_star_at_meV:g} meV")
        converted = convert_mu_star(mu_star, mu_star_at_meV, equations.cutoff)
        equations = Eliashberg(spectrum, converted, cutoff_meV)
    tc = equations.tc()
    nothing = (np.nan,) * 5
    if tc == 0.0 or not gap:
        reason = "" if tc else "the repulsion mu* outweighs the attraction at every temperature"
        return Superconductor(tc, *nothing, equations.mu_star, equations.cutoff, reason)
    cold = equations.gap(COLD * tc)
    edge = gap_edge(cold, spectrum)
    solutions = [cold]
    for t in GRID:
        sizes = equations.tc_sizes if t > NEAR else None
        solutions.append(equations.gap(t * tc, solutions[-1], sizes))
    gaps = np.array([s.delta_meV[0] for s in solutions])
    jump, condensation = _thermodynamics(solutions, tc, spectrum.lam)
    return Superconductor(
        tc,
        edge,
        2.0 * edge / (UNITS.kB_meV * tc),
        float(cold.z[0]),
        jump,
        condensation,
        equations.mu_star,
        equations.cutoff,
        "",
        cold,
        np.array([s.temperature_K for s in solutions] + [tc]),
        np.append(gaps, 0.0),
    )


def real_axis(solution: GapSolution, omega_meV: ArrayLike, top_meV: float) -> NDArray[np.complex128]:
    """Continue the gap function to omega + i0.

    Parameters
    ----------
    solution : GapSolution
    omega_meV : array_like, shape (m,)
        Real frequencies.
    top_meV : float
        Highest phonon frequency; Matsubara points up to twice that are used.

    Returns
    -------
    ndarray of complex, shape (m,)
    """
    points = np.flatnonzero(solution.omega_meV <= max(PADE_REACH * top_meV, solution.omega_meV[3]))
    if len(points) > PADE_POINTS:
        points = points[np.unique(np.linspace(0, len(points) - 1, PADE_POINTS).round().astype(int))]
    x = np.asarray(omega_meV, dtype=float)
    return pade(1j * solution.omega_meV[points], solution.delta_meV[points], x + 1e-6j * top_meV)


def gap_edge(solution: GapSolution, spectrum: Spectrum) -> float:
    """Frequency at which Re Delta(omega) = omega, meV: the edge of the excitation spectrum.

    Raises
    ------
    PhysicsError
        ``not-converged`` when the continuation has no edge near the Matsubara gap.
    """
    guess = float(solution.delta_meV[0])
    x = np.linspace(0.2 * guess, 1.6 * guess, 800)
    y = real_axis(solution, x, spectrum.omega_max_meV).real - x
    crossing = np.flatnonzero((y[:-1] > 0.0) & (y[1:] <= 0.0))
    if not len(crossing):
        raise PhysicsError("not-converged", f"{spectrum.source}: the continued gap function has no edge")
    k = crossing[0]
    return float(x[k] + (x[k + 1] - x[k]) * y[k] / (y[k] - y[k + 1]))


def free_energy(solution: GapSolution) -> float:
    """Free energy of the superconducting minus the normal state over N(0) (one spin), meV^2.

    Bardeen and Stephen, Phys. Rev. 136, A1485 (1964), positive frequencies counted twice:

        Delta F/N(0) = -2 pi T sum_{n >= 0} (s_n - omega_n) (Z_n - Z^N_n omega_n/s_n)

    In the BCS limit at T = 0 this is -Delta^2/2.
    """
    kT = solution.temperature_K * UNITS.kB_meV
    root = np.sqrt(solution.omega_meV**2 + solution.delta_meV**2)
    terms = (root - solution.omega_meV) * (solution.z - solution.normal_z * solution.omega_meV / root)
    return -2.0 * np.pi * kT * float(np.sum(solution.weight * terms))


def _thermodynamics(solutions: list[GapSolution], tc: float, lam: float) -> tuple[float, float]:
    """Specific-heat jump and condensation energy from the free energy on a grid of temperatures."""
    t = np.array([s.temperature_K / tc for s in solutions] + [1.0])
    f = np.array([free_energy(s) for s in solutions] + [0.0])
    kTc = tc * UNITS.kB_meV
    # Normal state: C_n = gamma T, gamma = (2 pi^2/3) k^2 N(0) (1 + lambda), N(0) of one spin.
    gamma = 2.0 * np.pi**2 / 3.0 * (1.0 + lam)
    # f(t)/(1 - t)^2 is smooth and its limit is the jump: Delta C = -T d^2 F/dT^2.
    shape = f[:-1] / ((1.0 - t[:-1]) ** 2 * kTc**2)
    near = t[:-1] > NEAR
    fit = np.polyfit(1.0 - t[:-1][near], shape[near], 2)
    jump = -2.0 * fit[-1] / gamma
    # At T = 0 the normal state's -gamma T^2/2 is missing from what was computed at t[0].
    energy = f[0] - gamma * (t[0] * kTc) ** 2 / 2.0
    if not (jump > 0.0 and energy < 0.0):
        raise PhysicsError("not-converged", f"the free energy gives a jump of {jump:.3g} gamma Tc")
    return float(jump), float(gamma * kTc**2 / (8.0 * np.pi * -energy))

"""The isotropic Migdal-Eliashberg equations on the imaginary axis.

With omega_n = (2n + 1) pi T, lambda(nu) = int 2 omega alpha2F/(omega^2 + nu^2) d omega and
s_m = sqrt(omega_m^2 + Delta_m^2)

    Z_n = 1 + (pi T/omega_n) sum_m lambda(omega_n - omega_m) omega_m/s_m
    Z_n Delta_n = pi T sum_m [lambda(omega_n - omega_m) - mu* theta(omega_c - |omega_m|)] Delta_m/s_m

(Allen and Mitrovic, Solid State Physics 37, 1 (1982)). Tc is where the largest eigenvalue of the linearised gap
equation is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnes.errors import PhysicsError
from onnes.theory.matsubara import Kernel, Mesh, mesh
from onnes.theory.spectral import Spectrum
from onnes.theory.tc import guard_lambda
from onnes.units import UNITS

FloatArray = NDArray[Any]

#: Default cut-off in units of the highest phonon frequency; mu* is understood at this cut-off.
CUTOFF = 10.0
LARGEST_CUTOFF = 1e4
#: No Eliashberg Tc exceeds this times omega_2 sqrt(lambda): the strong-coupling limit without repulsion.
CEILING = 0.1827
#: Frequencies kept at least, however high the temperature.
FEWEST = 128
#: Below this fraction of omega_log a Tc is not searched for.
LOWEST = 1e-7
TOLERANCE = 1e-7
GAP_TOLERANCE = 1e-8
GAP_STEPS = 5000


@dataclass(frozen=True)
class GapSolution:
    """Solution of the non-linear equations at one temperature.

    Attributes
    ----------
    temperature_K : float
    omega_meV, delta_meV, z, normal_z : ndarray, shape (J,)
        Positive Matsubara frequencies of the mesh; gap function, renormalisation, and renormalisation of the
        normal state there.
    weight : ndarray, shape (J,)
        Weight of each point in a sum over all positive Matsubara frequencies.
    steps : int
        Iterations used.
    residual : float
        Largest change of the gap in the last one, relative to its maximum.
    """

    temperature_K: float
    omega_meV: FloatArray
    delta_meV: FloatArray
    z: FloatArray
    normal_z: FloatArray = field(repr=False)
    weight: FloatArray = field(repr=False)
    steps: int = 0
    residual: float = 0.0


class Eliashberg:
    """The equations for one spectrum.

    Parameters
    ----------
    spectrum : Spectrum
    mu_star : float
        Coulomb pseudopotential at `cutoff_meV`.
    cutoff_meV : float, optional
        10 times the highest phonon frequency by default.

    Raises
    ------
    SettingsError
        ``bad-mu-star``.
    PhysicsError
        ``empty-spectrum``, ``bad-cutoff``.
    """

    def __init__(self, spectrum: Spectrum, mu_star: float = 0.10, cutoff_meV: float | None = None) -> None:
        guard_lambda(mu_star)  # refuses an impossible mu*
        if spectrum.lam <= 0.0:
            raise PhysicsError("empty-spectrum", f"{spectrum.source}: no coupling, nothing to solve")
        self.spectrum, self.mu_star = spectrum, float(mu_star)
        self.cutoff = CUTOFF * spectrum.omega_max_meV if cutoff_meV is None else float(cutoff_meV)
        if not 2.0 <= self.cutoff / spectrum.omega_max_meV <= LARGEST_CUTOFF:
            raise PhysicsError(
                "bad-cutoff",
                f"cut-off {self.cutoff:g} meV; between 2 and {LARGEST_CUTOFF:g} times the highest phonon "
                f"frequency ({spectrum.omega_max_meV:.4g} meV) is needed",
            )
        self.kernel = Kernel(spectrum)
        self.tc_sizes: tuple[int, int] | None = None

    # -- the linearised equation -----------------------------------------------------------------

    def _sizes(self, kT: float) -> tuple[int, int]:
        """Number of frequencies for the phonon kernel and below the Coulomb cut-off, at kT in meV."""
        below = max(2, round(self.cutoff / (2.0 * np.pi * kT)))
        return max(below, FEWEST), below

    def _matrices(self, kT: float, points: Mesh, below: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return lambda(n-m), lambda(n+m+1) and the Coulomb term of every column, at kT in meV."""
        n = points.index
        step = 2.0 * np.pi * kT
        minus = self.kernel(step * np.abs(n[:, None] - n[None, :]))
        plus = self.kernel(step * (n[:, None] + n[None, :] + 1.0))
        # The edge lies between two frequencies; mu* is converted to where it lies, so that nothing jumps.
        edge = step * below
        return minus, plus, self._repulsion(edge) * self._inside(points, below)

    def _repulsion(self, edge: float) -> float:
        """Pseudopotential at the edge; where it would diverge, large enough to forbid any pairing."""
        if self.mu_star == 0.0:
            return 0.0
        return 1.0 / max(1.0 / self.mu_star + float(np.log(self.cutoff / edge)), 1e-3)

    @staticmethod
    def _inside(points: Mesh, below: int) -> FloatArray:
        """Share of each mesh point's weight that lies below the Coulomb cut-off."""
        if below >= points.size:
            return np.ones(len(points.index))
        inside = mesh(below)
        share = np.zeros(len(points.index))
        if np.array_equal(inside.index, points.index[: len(inside.index)]):
            share[: len(inside.index)] = inside.weight / points.weight[: len(inside.index)]
            return share
        return np.asarray(points.index < below, dtype=float)

    def eigenvalue(self, temperature_K: float, sizes: tuple[int, int] | None = None) -> float:
        """Largest eigenvalue of the linearised gap equation; above 1 the metal superconducts.

        Parameters
        ----------
        temperature_K : float
        sizes : (int, int), optional
            Numbers of frequencies, to keep them fixed while the temperature changes.
        """
        kT = temperature_K * UNITS.kB_meV
        total, below = sizes or self._sizes(kT)
        points = mesh(total)
        minus, plus, coulomb = self._matrices(kT, points, below)
        z = self._normal_z(kT, points, minus, plus)
        matrix = (minus + plus - 2.0 * coulomb) * points.weight
        # Symmetrised by sqrt(weight/z): real eigenvalues, and a symmetric solver.
        root = np.sqrt(points.weight / z)
        symmetric = root[:, None] * (minus + plus - coulomb[None, :] - coulomb[:, None]) * root[None, :]
        if np.ptp(coulomb) == 0.0:
            from scipy.linalg import eigh

            last = len(root) - 1
            return float(eigh(symmetric, eigvals_only=True, subset_by_index=(last, last))[0])
        return _largest(matrix / z[:, None])

    def _normal_z(self, kT: float, points: Mesh, minus: FloatArray, plus: FloatArray) -> FloatArray:
        """(2n + 1) Z_n of the normal state, on the mesh.

        The sum over m is taken on the same mesh as in the gap equation, so that the elastic part (m near n)
        cancels between the two as it does exactly; the frequencies beyond the mesh follow from
        lambda(nu) = lambda omega_2^2/nu^2 there.
        """
        n = points.index
        inner = (minus - plus) @ points.weight
        nu2 = (2.0 * np.pi * kT / self.kernel.omega_2) ** 2
        # sum over l = N-n .. N+n of 1/l^2, by the midpoint rule: 1/(a - 1/2) - 1/(b + 1/2).
        low, high = points.size - n - 0.5, points.size + n + 0.5
        tail = self.kernel.lam / nu2 * (1.0 / low - 1.0 / high)
        tail = np.where(nu2 * low**2 > 1.0, tail, 0.0)
        return 2.0 * n + 1.0 + inner + tail

    def tc(self) -> float:
        """Critical temperature in kelvin; 0.0 when there is none above `LOWEST` omega_log.

        Raises
        ------
        PhysicsError
            ``not-converged``.
        """
        lowest = LOWEST * self.spectrum.omega_log_K
        guess = self._guess()
        sizes = self._sizes(guess * UNITS.kB_meV)
        seen: list[tuple[int, int]] = []
        for _ in range(12):
            found = self._root(guess, sizes, lowest)
            if found <= lowest:
                return 0.0
            again = self._sizes(found * UNITS.kB_meV)
            # Two neighbouring numbers can each lead to the other: then either is as good.
            if again == sizes or (again in seen and abs(again[1] - sizes[1]) <= 1):
                self.tc_sizes = sizes
                return found
            seen.append(sizes)
            guess, sizes = found, again
        raise PhysicsError("not-converged", f"{self.spectrum.source}: Tc did not settle near {guess:.4g} K")

    def _guess(self) -> float:
        from onnes.theory.tc import tc as closed

        lam, log_K, rms_K = self.spectrum.lam, self.spectrum.omega_log_K, self.spectrum.omega_2_K
        guess = 0.0
        if lam > guard_lambda(self.mu_star):
            guess = closed(lam, log_K, rms_K, mu_star=self.mu_star).tc_K
        return float(max(guess, 1e-5 * log_K))

    def _root(self, guess: float, sizes: tuple[int, int], lowest: float) -> float:
        """Temperature where the eigenvalue is 1, at fixed numbers of frequencies.

        The eigenvalue falls nearly linearly in ln T: secant steps in ln T, kept inside a bracket.
        """
        ceiling = 1.001 * CEILING * self.spectrum.omega_2_K * np.sqrt(self.spectrum.lam)
        guess = min(guess, ceiling)
        x, value = np.log(guess), self.eigenvalue(guess, sizes) - 1.0
        step = 0.1 if value > 0 else -0.1
        low, high = (x, np.inf) if value > 0 else (-np.inf, x)
        before, before_value = x, value
        x = x + step
        for _ in range(80):
            if x < np.log(lowest):
                return 0.0
            x = min(x, float(np.log(ceiling)))
            here = np.exp(x)
            reach = here * UNITS.kB_meV * 2.0 * np.pi * sizes[1] / self.cutoff
            if reach < 0.25 or (reach > 4.0 and sizes[1] > 2):
                # Far from the guess the fixed number of frequencies ends far from the cut-off: count anew.
                return float(here)
            value = self.eigenvalue(here, sizes) - 1.0
            if abs(value) < TOLERANCE or abs(x - before) < 1e-9:
                return float(here)
            low, high = (max(low, x), high) if value > 0 else (low, min(high, x))
            slope = (value - before_value) / (x - before)
            before, before_value = x, value
            move = -value / slope if slope < 0 else np.sign(value) * 0.5
            x = x + float(np.clip(move, -2.0, 2.0))
            if not low < x < high:
                x = 0.5 * (low + high) if np.isfinite(low + high) else before + np.sign(value) * 0.5
        raise PhysicsError("not-converged", f"{self.spectrum.source}: no Tc found near {guess:.4g} K")

    # -- the non-linear equations ------------------------------------------------------------------

    def gap(
        self,
        temperature_K: float,
        start: GapSolution | None = None,
        sizes: tuple[int, int] | None = None,
    ) -> GapSolution:
        """Solve the non-linear equations at one temperature.

        Parameters
        ----------
        temperature_K : float
        start : GapSolution, optional
            Solution at a nearby temperature.
        sizes : (int, int), optional
            Numbers of frequencies; those of `tc` (attribute ``tc_sizes``) make the gap vanish exactly there.

        Raises
        ------
        PhysicsError
            ``not-converged``: no number is returned instead.
        """
        kT = temperature_K * UNITS.kB_meV
        total, below = sizes or self._sizes(kT)
        points = mesh(total)
        minus, plus, coulomb = self._matrices(kT, points, below)
        omega = (2.0 * points.index + 1.0) * np.pi * kT
        pair = (minus + plus - 2.0 * coulomb) * points.weight
        normal = (minus - plus) * points.weight
        plain = self._normal_z(kT, points, minus, plus)
        rest = plain - (2.0 * points.index + 1.0) - normal.sum(axis=1)
        z_n = plain / (2.0 * points.index + 1.0)
        if start is None:
            size = 1.764 * self.spectrum.omega_log_K * UNITS.kB_meV * 0.1
            delta = size / (1.0 + (omega / self.spectrum.omega_2_meV) ** 2)
        else:
            delta = np.interp(omega, start.omega_meV, start.delta_meV)
        history: list[tuple[FloatArray, FloatArray]] = []
        for step in range(1, GAP_STEPS + 1):
            root = np.sqrt(omega**2 + delta**2)
            z = 1.0 + np.pi * kT / omega * (normal @ (omega / root) + rest)
            new = np.pi * kT * (pair @ (delta / root)) / z
            residual = float(np.abs(new - delta).max() / max(np.abs(new).max(), 1e-300))
            if np.abs(new).max() < 1e-6 * np.pi * kT:
                new, residual = np.zeros_like(omega), 0.0
            if residual < GAP_TOLERANCE:
                return GapSolution(temperature_K, omega, new, z, z_n, points.weight, step, residual)
            delta = _anderson(history, delta, new)
        raise PhysicsError(
            "not-converged",
            f"{self.spectrum.source}: gap at {temperature_K:.4g} K still changes by {residual:.1e}",
        )


def _anderson(
    history: list[tuple[FloatArray, FloatArray]], x: FloatArray, g: FloatArray, depth: int = 6
) -> FloatArray:
    """Next guess of a fixed-point iteration x -> g(x) by Anderson mixing of the last few residuals."""
    history.append((x, g))
    if len(history) > depth:
        history.pop(0)
    if len(history) < 3:
        return g
    residuals = np.array([b - a for a, b in history])
    steps = np.diff(residuals, axis=0).T
    weights, *_ = np.linalg.lstsq(steps, residuals[-1], rcond=1e-10)
    values = np.array([b for _, b in history])
    mixed = values[-1] - np.diff(values, axis=0).T @ weights
    # A jump to the other sign of the gap, or far away, is not trusted.
    if mixed[0] <= 0.0 or np.abs(mixed).max() > 3.0 * np.abs(g).max():
        history.clear()
        return g
    return np.asarray(mixed)


def _largest(matrix: FloatArray) -> float:
    """Largest real eigenvalue of a matrix whose other eigenvalues are real too, by shifted power iteration."""
    shift = 2.0  # above the size of the repulsive, negative eigenvalue
    x = 1.0 / (1.0 + np.arange(len(matrix)))
    value = 0.0
    for _ in range(4000):
        y = matrix @ x + shift * x
        norm = float(np.linalg.norm(y))
        x = y / norm
        if abs(norm - value) < 1e-12 * norm:
            break
        value = norm
    return float(norm - shift)

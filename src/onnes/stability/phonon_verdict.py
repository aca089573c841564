"""What a set of phonon frequencies says about stability, and what several potentials say together.

A negative number stands for an imaginary frequency. Three things make a small one without any instability: the
forces' last digits, the sum rules of a finite supercell near Gamma, and the interpolation between the q-points of
that supercell. Hence one tolerance, printed with every verdict, and the place of the worst mode beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from onnes.errors import InputError, SettingsError

FloatArray = NDArray[np.float64]

STABLE, UNSTABLE, NOISE, SPLIT = "stable", "unstable", "acoustic-noise", "split"
#: Imaginary modes above minus this are no instability; 5 cm-1 is 0.62 meV or 0.15 THz.
TOLERANCE_CM1 = 5.0
#: Frequencies this close to zero are zero.
ZERO_CM1 = 0.1
#: Modes this close to the lowest are as low; one at a named point is preferred among them.
TIE_CM1 = 0.05


@dataclass(frozen=True)
class Modes:
    """Frequencies at some q-points.

    Attributes
    ----------
    q : ndarray, shape (n, 3)
        In units of the reciprocal vectors of the primitive cell.
    omega_cm1 : ndarray, shape (n, b)
        Imaginary frequencies are negative.
    label : sequence of str
        Name of each q-point, empty where it has none.
    exact : bool
        The q-points fit into the supercell, so that nothing is interpolated.
    """

    q: FloatArray
    omega_cm1: FloatArray
    label: Sequence[str] = ()
    exact: bool = False

    def __post_init__(self) -> None:
        if self.omega_cm1.ndim != 2 or self.q.shape != (len(self.omega_cm1), 3) or not self.omega_cm1.size:
            raise InputError("shape", f"q {self.q.shape} and frequencies {self.omega_cm1.shape} do not match")
        if not np.isfinite(self.omega_cm1).all():
            raise InputError("not-finite", "the frequencies hold NaN or inf")


@dataclass(frozen=True)
class Verdict:
    """Verdict on dynamical stability.

    Attributes
    ----------
    verdict : str
        ``stable``, ``unstable`` or ``acoustic-noise`` (imaginary within the tolerance, acoustic, near Gamma).
    tolerance_cm1 : float
    worst_cm1 : float
        Lowest frequency of all, to 0.001 cm-1.
    worst_q : tuple of float
        Where, in units of the reciprocal vectors of the primitive cell.
    worst_label : str
        Name of that point, empty where it has none.
    worst_exact_cm1 : float
        Lowest frequency at the q-points that fit into the supercell.
    note : str
        ``soft-mode: ...`` (imaginary within the tolerance, but not acoustic noise), ``interpolated: ...``
        (imaginary only between the q-points that fit into the supercell), or empty.
    """

    verdict: str
    tolerance_cm1: float
    worst_cm1: float
    worst_q: tuple[float, float, float]
    worst_label: str
    worst_exact_cm1: float
    note: str = field(default="")

    @property
    def interpolated(self) -> bool:
        """Unstable, but not at any q-point that fits into the supercell."""
        return self.verdict == UNSTABLE and self.worst_exact_cm1 >= -self.tolerance_cm1


def judge(modes: Sequence[Modes], near: float, reciprocal: FloatArray, tolerance_cm1: float) -> Verdict:
    """Judge the frequencies of a crystal.

    Below minus the tolerance anywhere: ``unstable``. Otherwise ``acoustic-noise`` where one of the three modes of
    smallest magnitude within `near` of Gamma is imaginary beyond `ZERO_CM1`; otherwise ``stable``.

    Parameters
    ----------
    modes : sequence of Modes
        Named points first; at least one of them exact.
    near : float
        Distance from Gamma, 1/A, within which the sum rules and the interpolation make noise.
    reciprocal : ndarray, shape (3, 3)
        Reciprocal vectors as rows, 1/A (without 2 pi).
    tolerance_cm1 : float

    Raises
    ------
    SettingsError
        ``bad-setting``: a negative tolerance.
    InputError
        ``shape``: no exact q-point.
    """
    require_tolerance(tolerance_cm1)
    if not any(m.exact for m in modes):
        raise InputError("shape", "no q-point that fits into the supercell was given")
    where = [_acoustic(m, near, reciprocal) for m in modes]
    noise = min(_lowest(m.omega_cm1[mask]) for m, mask in zip(modes, where, strict=True))
    other = min(_lowest(m.omega_cm1[~mask]) for m, mask in zip(modes, where, strict=True))
    exact = min(float(m.omega_cm1.min()) for m in modes if m.exact)
    worst, q, label = _worst(modes)
    notes = []
    if worst < -tolerance_cm1:
        verdict = UNSTABLE
        if exact >= -tolerance_cm1:
            notes.append("interpolated: only between the q-points of the supercell, try a larger one")
    else:
        verdict = NOISE if noise < -ZERO_CM1 else STABLE
        if other < -ZERO_CM1:
            notes.append(f"soft-mode: {other:.2f} cm-1 is imaginary within the tolerance")
    return Verdict(verdict, tolerance_cm1, _rounded(worst), q, label, _rounded(exact), "; ".join(notes))


def require_tolerance(tolerance_cm1: float) -> None:
    """Refuse a negative or endless tolerance.

    Raises
    ------
    SettingsError
        ``bad-setting``.
    """
    if not 0.0 <= tolerance_cm1 < np.inf:
        raise SettingsError("bad-setting", f"the tolerance must be >= 0 cm-1, got {tolerance_cm1}")


def commensurate(times: Sequence[int]) -> FloatArray:
    """q-points that fit into a supercell, shape (prod(times), 3), within -1/2 and 1/2."""
    grid = np.array(list(product(*(range(n) for n in times))), dtype=float) / np.asarray(times, dtype=float)
    return np.asarray(np.where(grid > 0.5 + 1e-9, grid - 1.0, grid))


def noise_radius(
    times: Sequence[int], reciprocal: FloatArray, vacuum: Sequence[bool] = (False, False, False)
) -> float:
    """Half the distance from Gamma to the nearest other q-point that fits into the supercell, 1/A.

    Axes through the vacuum do not count: nothing disperses along them.
    """
    steps = [(0,) if empty else (-1, 0, 1) for empty in vacuum]
    images = np.array([g for g in product(*steps) if any(g)], dtype=float)
    return float(np.linalg.norm(images / np.asarray(times, dtype=float) @ reciprocal, axis=1).min() / 2.0)


def vote(verdicts: Mapping[str, str]) -> str:
    """Joint verdict of several potentials.

    Parameters
    ----------
    verdicts : mapping
        Name of the potential -> its verdict. Potentials that failed are left out by the caller.

    Returns
    -------
    str
        The verdict most agree on, ``acoustic-noise`` counting as stable; ``split`` for a tie; empty without any.
    """
    against = sum(v == UNSTABLE for v in verdicts.values())
    if not verdicts:
        return ""
    if 2 * against == len(verdicts):
        return SPLIT
    if 2 * against > len(verdicts):
        return UNSTABLE
    return STABLE if STABLE in verdicts.values() else NOISE


def _acoustic(modes: Modes, near: float, reciprocal: FloatArray) -> NDArray[np.bool_]:
    """Mask, shape (n, b): the three modes of smallest magnitude at every q-point near Gamma."""
    images = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)
    inside = modes.q - np.rint(modes.q)
    distance = np.linalg.norm((inside[:, None] - images) @ reciprocal, axis=2).min(1)
    rank = np.argsort(np.argsort(np.abs(modes.omega_cm1), axis=1), axis=1)
    return np.asarray((rank < 3) & (distance < near)[:, None])


def _rounded(omega: float) -> float:
    return round(omega, 3) + 0.0  # no "-0"


def _lowest(omega: FloatArray) -> float:
    return float(omega.min()) if omega.size else np.inf


def _worst(modes: Sequence[Modes]) -> tuple[float, tuple[float, float, float], str]:
    lowest = min(float(m.omega_cm1.min()) for m in modes)
    found: list[tuple[bool, FloatArray, str]] = []
    for m in modes:
        for k in np.flatnonzero(m.omega_cm1.min(1) <= lowest + TIE_CM1):
            name = m.label[int(k)] if len(m.label) else ""
            found.append((not name, m.q[k], name))
    _, q, name = min(found, key=lambda each: each[0])
    return lowest, (float(q[0]), float(q[1]), float(q[2])), name

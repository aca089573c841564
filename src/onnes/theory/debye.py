"""Debye temperature from elastic moduli and density, or from a phonon density of states."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import InputError, PhysicsError
from onnes.units import UNITS

FloatArray = NDArray[np.float64]


class Moduli(NamedTuple):
    """Bulk and shear modulus in GPa."""

    bulk_GPa: float
    shear_GPa: float


def sound_velocities(
    bulk_GPa: ArrayLike, shear_GPa: ArrayLike, density_g_cm3: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return longitudinal, shear and mean sound velocity in m/s, each of the broadcast shape (...).

    v_l = sqrt((K + 4G/3)/rho), v_s = sqrt(G/rho), v_m = [(2/v_s^3 + 1/v_l^3)/3]^(-1/3).

    Raises
    ------
    InputError
        ``not-finite``.
    PhysicsError
        ``unstable-moduli`` when K or G is not positive, ``bad-density``.
    """
    bulk, shear, rho = (
        _positive(name, value, code)
        for name, value, code in (
            ("bulk modulus", bulk_GPa, "unstable-moduli"),
            ("shear modulus", shear_GPa, "unstable-moduli"),
            ("density", density_g_cm3, "bad-density"),
        )
    )
    rho_si = rho * 1e3
    v_l = np.sqrt((bulk + 4.0 * shear / 3.0) * UNITS.GPa_Pa / rho_si)
    v_s = np.sqrt(shear * UNITS.GPa_Pa / rho_si)
    v_m = ((2.0 / v_s**3 + 1.0 / v_l**3) / 3.0) ** (-1.0 / 3.0)
    return v_l, v_s, v_m


def debye_temperature(
    bulk_GPa: ArrayLike, shear_GPa: ArrayLike, density_g_cm3: ArrayLike, volume_per_atom_A3: ArrayLike
) -> FloatArray:
    """Return theta_D in kelvin from isotropic moduli.

    theta_D = (h/kB) [3/(4 pi V_atom)]^(1/3) v_m, the textbook (h/kB) [3 n N_A rho/(4 pi M)]^(1/3) v_m with
    n N_A rho/M written as atoms per volume.

    Parameters
    ----------
    bulk_GPa, shear_GPa : array_like, shape (...)
        Moduli (Voigt, Reuss or Hill averages; say which where it is reported).
    density_g_cm3, volume_per_atom_A3 : array_like, shape (...)
        Mass density and volume per atom.

    Raises
    ------
    InputError, PhysicsError
        As `sound_velocities`; ``bad-volume``.
    """
    volume = _positive("volume per atom", volume_per_atom_A3, "bad-volume") * UNITS.angstrom_m**3
    v_m = sound_velocities(bulk_GPa, shear_GPa, density_g_cm3)[2]
    return np.asarray(UNITS.h_Js / UNITS.kB_JK * np.cbrt(3.0 / (4.0 * np.pi * volume)) * v_m)


def debye_of_cell(
    bulk_GPa: float, shear_GPa: float, *, cell_mass_u: float, cell_volume_A3: float, n_atoms: int
) -> float:
    """Return theta_D in kelvin for a cell given by its mass, volume and number of atoms."""
    if n_atoms < 1:
        raise InputError("no-atoms", f"a cell needs at least one atom, got {n_atoms}")
    volume = float(_positive("cell volume", cell_volume_A3, "bad-volume"))
    density = cell_mass_u * UNITS.amu_kg / (volume * UNITS.angstrom_m**3) / 1e3
    return float(debye_temperature(bulk_GPa, shear_GPa, density, volume / n_atoms))


def debye_from_dos(omega_K: ArrayLike, dos: ArrayLike) -> float:
    """Return the Debye temperature with the second moment of a phonon density of states.

    A Debye spectrum has <omega^2> = (3/5) theta_D^2, hence theta_D = sqrt(5 <omega^2>/3).

    Parameters
    ----------
    omega_K : array_like, shape (n,)
        Increasing frequencies in kelvin; negative ones (imaginary modes) are left out.
    dos : array_like, shape (n,)
        Density of states >= 0, any normalisation.

    Raises
    ------
    InputError
        ``shape``, ``not-finite``, ``grid-not-increasing``.
    PhysicsError
        ``empty-dos``, ``imaginary-modes`` when more than 1 % of the states lie below zero.
    """
    x, g = np.asarray(omega_K, dtype=float), np.asarray(dos, dtype=float)
    if x.ndim != 1 or x.shape != g.shape or x.size < 2:
        raise InputError("shape", f"omega {x.shape} and dos {g.shape} must be equal 1-D shapes, >= 2 points")
    if not (np.isfinite(x).all() and np.isfinite(g).all()):
        raise InputError("not-finite", "the phonon density of states holds NaN or inf")
    if (np.diff(x) <= 0.0).any():
        raise InputError(
            "grid-not-increasing", "the frequencies of the phonon density of states must increase"
        )
    g = np.maximum(g, 0.0)
    total, below = float(np.trapezoid(g, x)), float(np.trapezoid(np.where(x < 0.0, g, 0.0), x))
    if total <= 0.0:
        raise PhysicsError("empty-dos", "the phonon density of states is zero everywhere")
    if below > 0.01 * total:
        raise PhysicsError(
            "imaginary-modes", f"{100 * below / total:.1f} % of the phonon states are imaginary"
        )
    real = np.where(x > 0.0, g, 0.0)
    return float(np.sqrt(5.0 / 3.0 * np.trapezoid(real * x**2, x) / np.trapezoid(real, x)))


def _voigt(c: FloatArray) -> Moduli:
    axial, mixed, shear = np.trace(c[:3, :3]), c[0, 1] + c[0, 2] + c[1, 2], np.trace(c[3:, 3:])
    return Moduli(float(axial + 2.0 * mixed) / 9.0, float(axial - mixed + 3.0 * shear) / 15.0)


def _reuss(c: FloatArray) -> Moduli:
    s = np.linalg.inv(c)
    axial, mixed, shear = np.trace(s[:3, :3]), s[0, 1] + s[0, 2] + s[1, 2], np.trace(s[3:, 3:])
    return Moduli(1.0 / float(axial + 2.0 * mixed), 15.0 / float(4.0 * axial - 4.0 * mixed + 3.0 * shear))


def _hill(c: FloatArray) -> Moduli:
    upper, lower = _voigt(c), _reuss(c)
    return Moduli((upper.bulk_GPa + lower.bulk_GPa) / 2.0, (upper.shear_GPa + lower.shear_GPa) / 2.0)


#: Name of the average -> function of the 6x6 stiffness.
AVERAGES: dict[str, Callable[[FloatArray], Moduli]] = {"voigt": _voigt, "reuss": _reuss, "hill": _hill}


def moduli_from_stiffness(stiffness_GPa: ArrayLike, *, average: str = "hill") -> Moduli:
    """Return polycrystalline moduli of an elastic tensor.

    Parameters
    ----------
    stiffness_GPa : array_like, shape (6, 6)
        Stiffness in Voigt notation, GPa.
    average : str
        ``voigt`` (upper bound), ``reuss`` (lower bound) or ``hill`` (their mean).

    Raises
    ------
    InputError
        ``shape``, ``not-finite``, ``unknown-average``.
    PhysicsError
        ``unstable-moduli`` when the tensor is not positive definite (Born criterion).
    """
    if average not in AVERAGES:
        raise InputError("unknown-average", f"unknown average {average!r}; use one of {', '.join(AVERAGES)}")
    c = np.asarray(stiffness_GPa, dtype=float)
    if c.shape != (6, 6):
        raise InputError("shape", f"the stiffness must have shape (6, 6), got {c.shape}")
    if not np.isfinite(c).all():
        raise InputError("not-finite", "the stiffness holds NaN or inf")
    c = (c + c.T) / 2.0
    lowest = float(np.linalg.eigvalsh(c)[0])
    if lowest <= 0.0:
        raise PhysicsError(
            "unstable-moduli", f"the stiffness is not positive definite (eigenvalue {lowest:.3g} GPa)"
        )
    return AVERAGES[average](c)


def _positive(name: str, value: ArrayLike, code: str) -> FloatArray:
    array = np.asarray(value, dtype=float)
    if not np.isfinite(array).all():
        raise InputError("not-finite", f"the {name} holds NaN or inf")
    if (array <= 0.0).any():
        raise PhysicsError(code, f"the {name} is {array.min():g}; it must be positive")
    return array

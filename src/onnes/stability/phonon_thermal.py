"""Heat capacity and Debye temperatures of harmonic phonons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import PhysicsError
from onnes.stability.phonon_bands import frequencies
from onnes.units import TO_KELVIN, UNITS

if TYPE_CHECKING:
    from phonopy import Phonopy

FloatArray = NDArray[np.float64]

#: Largest share of imaginary modes with which thermal quantities still mean something.
MOST_IMAGINARY = 0.01
#: Modes below this are zero or imaginary; their classical heat capacity would be k each.
LEAST_K = 1e-3
#: Directions of the long-wave average, and length of q in units of the shortest reciprocal vector.
DIRECTIONS, SHORT = 400, 0.02
GAS_J_MOL_K = UNITS.kB_JK * 6.02214076e23


def heat_capacity(omega_K: ArrayLike, weight: ArrayLike, temperature_K: ArrayLike) -> FloatArray:
    """Harmonic heat capacity at constant volume.

    C = 3R <(x/2)^2 / sinh^2(x/2)>, x = omega/T, averaged over the real modes.

    Parameters
    ----------
    omega_K : array_like, shape (n, b)
        Frequencies at n q-points, in kelvin; imaginary ones are negative and left out.
    weight : array_like, shape (n,)
        Of the q-points.
    temperature_K : array_like, shape (t,)
        Zero gives zero.

    Returns
    -------
    ndarray, shape (t,)
        J/(mol K) per mole of atoms; 3R = 24.94 at high temperature.

    Raises
    ------
    PhysicsError
        ``imaginary-modes`` when more than 1 % of the modes are imaginary.
    """
    omega = np.asarray(omega_K, dtype=float)
    share = np.broadcast_to(np.asarray(weight, dtype=float)[:, None], omega.shape)
    real = omega > LEAST_K
    lost = float(share[omega < -LEAST_K].sum() / share.sum())
    if lost > MOST_IMAGINARY:
        raise PhysicsError("imaginary-modes", f"{100 * lost:.1f} % of the phonon states are imaginary")
    modes, share = omega[real], share[real] / share[real].sum()
    found = []
    for t in np.atleast_1d(np.asarray(temperature_K, dtype=float)):
        if t <= 0.0:
            found.append(0.0)
            continue
        # Beyond x = 200 a mode holds nothing; sinh would overflow.
        half = np.minimum(modes / (2.0 * t), 100.0)
        found.append(3.0 * GAS_J_MOL_K * float((share * (half / np.sinh(half)) ** 2).sum()))
    return np.array(found)


def debye_acoustic(phonon: Phonopy) -> float:
    """Debye temperature of the long waves, which the heat capacity near T = 0 follows.

    theta_D = (hbar/k) (6 pi^2 n)^(1/3) v_D with n atoms per volume and 1/v_D^3 the mean of 1/v^3 over directions and
    the three acoustic branches (G. Grimvall, Thermophysical Properties of Materials, 1999, ch. 6-7).

    Returns
    -------
    float
        Kelvin.

    Raises
    ------
    PhysicsError
        ``imaginary-modes``: an acoustic branch is imaginary near Gamma.
    """
    cell = np.asarray(phonon.primitive.cell)
    reciprocal = np.linalg.inv(cell).T
    # Directions of equal solid angle on a half sphere (Fibonacci); the other half is the same.
    k = np.arange(DIRECTIONS) + 0.5
    height = k / DIRECTIONS
    angle = np.pi * (1.0 + np.sqrt(5.0)) * k
    flat = np.sqrt(1.0 - height**2)
    way = np.stack([flat * np.cos(angle), flat * np.sin(angle), height], axis=1)
    length = SHORT * float(np.linalg.norm(reciprocal, axis=1).min())
    omega = frequencies(phonon, length * way @ np.linalg.inv(reciprocal))
    omega = np.take_along_axis(omega, np.argsort(np.abs(omega), axis=1)[:, :3], axis=1)
    if not omega.min() > 0.0:
        raise PhysicsError("imaginary-modes", "an acoustic branch is imaginary near Gamma")
    velocity = 1e12 * omega / (length / UNITS.angstrom_m)
    mean = float((velocity**-3.0).mean() ** (-1.0 / 3.0))
    density = len(phonon.primitive) / (abs(float(np.linalg.det(cell))) * UNITS.angstrom_m**3)
    return float(UNITS.hbar_Js / UNITS.kB_JK * np.cbrt(6.0 * np.pi**2 * density) * mean)


def kelvin(omega_meV: ArrayLike) -> FloatArray:
    """Frequencies in kelvin."""
    return np.asarray(omega_meV, dtype=float) * TO_KELVIN["meV"]

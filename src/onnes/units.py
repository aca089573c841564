"""Conversion factors, in one place, from CODATA through scipy.constants."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import constants as _c

_EV = _c.physical_constants["electron volt"][0]
_RY = _c.physical_constants["Rydberg constant times hc in J"][0]
_HA = _c.physical_constants["Hartree energy"][0]


@dataclass(frozen=True)
class Units:
    """Energies expressed in kelvin and meV; other factors by name.

    Attributes
    ----------
    meV_to_K, THz_to_K, cm1_to_K, Ry_to_K, Ha_to_K : float
        Energy divided by the Boltzmann constant. THz is an ordinary (not angular) frequency.
    kB_meV : float
        Boltzmann constant in meV/K.
    amu_kg, angstrom_m, GPa_Pa, eV_per_A3_to_GPa, hbar_Js, h_Js, kB_JK : float
        SI values.
    """

    meV_to_K: float = 1e-3 * _EV / _c.k
    THz_to_K: float = 1e12 * _c.h / _c.k
    cm1_to_K: float = 100.0 * _c.c * _c.h / _c.k
    Ry_to_K: float = _RY / _c.k
    Ha_to_K: float = _HA / _c.k
    kB_meV: float = 1e3 * _c.k / _EV
    amu_kg: float = _c.physical_constants["atomic mass constant"][0]
    angstrom_m: float = 1e-10
    GPa_Pa: float = 1e9
    eV_per_A3_to_GPa: float = _EV / 1e-30 / 1e9
    hbar_Js: float = _c.hbar
    h_Js: float = _c.h
    kB_JK: float = _c.k


UNITS = Units()

#: Factor from one unit of energy or frequency to kelvin. Keys are the names accepted everywhere.
TO_KELVIN: dict[str, float] = {
    "K": 1.0,
    "meV": UNITS.meV_to_K,
    "eV": 1e3 * UNITS.meV_to_K,
    "THz": UNITS.THz_to_K,
    "cm-1": UNITS.cm1_to_K,
    "Ry": UNITS.Ry_to_K,
    "Ha": UNITS.Ha_to_K,
}

"""Three sizes of an electron-phonon run: quick for all candidates, standard for survivors, tight for the best."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from onnes.errors import SettingsError


class TierName(StrEnum):
    """Names of the tiers as accepted on the command line."""

    QUICK = "quick"
    STANDARD = "standard"
    TIGHT = "tight"


class Smearing(StrEnum):
    """Smearings of the Fermi surface as ``pw.x`` names them."""

    MARZARI_VANDERBILT = "mv"
    METHFESSEL_PAXTON = "mp"
    GAUSSIAN = "gauss"
    FERMI_DIRAC = "fd"


@dataclass(frozen=True)
class Tier:
    """Settings that decide accuracy and cost.

    Attributes
    ----------
    name : TierName
    k_density_A, q_density_A : float
        Densities of the k and q grids (`onnes.dft.grids.subdivisions`).
    dense_factor : int
        Fermi-surface grid over k grid.
    cutoff : str
        ``normal`` or ``high`` hint of the cut-off table.
    cutoff_factor : float
        Multiplies the hint.
    smearing : Smearing
    degauss_Ry : float
        Width of the smearing in the self-consistent runs.
    sigma_Ry, n_sigma : float, int
        Step and number of the broadenings of the double delta sum: sigma, 2 sigma, ...
    matdyn_factor : int
        Phonon grid of alpha2F and DOS over the q grid.
    dos_points : int
        Frequencies of alpha2F and DOS.
    scf_threshold_Ry, ph_threshold : float
        ``conv_thr`` and ``tr2_ph``.
    """

    name: TierName
    k_density_A: float
    q_density_A: float
    cutoff: str
    cutoff_factor: float = 1.0
    dense_factor: int = 2
    smearing: Smearing = Smearing.MARZARI_VANDERBILT
    degauss_Ry: float = 0.02
    sigma_Ry: float = 0.005
    n_sigma: int = 10
    matdyn_factor: int = 5
    dos_points: int = 200
    scf_threshold_Ry: float = 1e-12
    ph_threshold: float = 1e-14


#: Tier by name. The densities of ``tight`` are those of the BETE-NET data set (40 and 15 A).
TIERS: dict[TierName, Tier] = {
    TierName.QUICK: Tier(TierName.QUICK, 20.0, 7.5, "normal"),
    TierName.STANDARD: Tier(TierName.STANDARD, 30.0, 10.0, "high"),
    TierName.TIGHT: Tier(TierName.TIGHT, 40.0, 15.0, "high", cutoff_factor=1.15),
}


def tier_named(name: str) -> Tier:
    """Tier of a name.

    Raises
    ------
    SettingsError
        ``unknown-tier``.
    """
    try:
        return TIERS[TierName(name)]
    except ValueError:
        raise SettingsError("unknown-tier", f"unknown tier {name!r}; use one of {', '.join(TIERS)}") from None

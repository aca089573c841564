"""Where lambda(sigma) levels off: one broadening with an uncertainty, or the finding that there is none.

Small broadenings sample the Fermi surface with too few points, large ones smear it out; between the two lambda should
not depend on sigma. Criterion, scale-free so that it does not depend on the step of the broadenings:

    a plateau is a run of neighbouring broadenings, `LEAST_POINTS` of them at least, over which sigma grows by a factor
    of `LEAST_RATIO` or more while (max lambda - min lambda)/mean lambda stays within `SPREAD`.

Of all such runs the one over the largest factor of sigma counts, and of equals the flatter one. Quoted is the value at
its smallest sigma, the one nearest to the true Fermi surface; the lowest and highest lambda of the run are its
uncertainty. A short extremum (undersampling bends the curve at small sigma) is thus outweighed by a longer stretch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_POINTS = 3
LEAST_RATIO = 2.0
SPREAD = 0.10
# Rounding of 0.01/0.005 must not cost a plateau.
_HAIR = 1e-9


@dataclass(frozen=True)
class Plateau:
    """A level stretch of lambda(sigma).

    Attributes
    ----------
    first, last : int
        Indices into the curve, both in the stretch; the value quoted is that at `first`.
    sigma_Ry, to_sigma_Ry : float
        Broadenings at `first` and `last`.
    lam : float
        lambda at `first`.
    low, high : float
        Least and largest lambda of the stretch.
    """

    first: int
    last: int
    sigma_Ry: float
    to_sigma_Ry: float
    lam: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """(high - low) over the middle of the two."""
        return 2.0 * (self.high - self.low) / (self.high + self.low) if self.high > 0.0 else 0.0


@dataclass(frozen=True)
class NoPlateau:
    """Why there is none, with the flattest stretch that was seen."""

    detail: str


def find_plateau(sigma_Ry: Sequence[float], lam: Sequence[float | None]) -> Plateau | NoPlateau:
    """Look for the plateau of a curve.

    Parameters
    ----------
    sigma_Ry : sequence of float
        Increasing, positive.
    lam : sequence of float or None
        None where the coupling has no value; a stretch never crosses such a point.

    Raises
    ------
    ValueError
        Lengths differ, or broadenings do not increase.
    """
    if len(sigma_Ry) != len(lam) or any(b <= a for a, b in itertools.pairwise(sigma_Ry)):
        raise ValueError("broadenings must increase, with one value of lambda each")
    if any(not s > 0.0 for s in sigma_Ry):
        raise ValueError("broadenings must be positive")
    found: list[tuple[float, float, Plateau]] = []
    flattest = (math.inf, "")
    for first in range(len(lam)):
        for last in range(first + LEAST_POINTS - 1, len(lam)):
            stretch = _values(lam[first : last + 1])
            ratio = sigma_Ry[last] / sigma_Ry[first]
            if stretch is None or ratio < LEAST_RATIO * (1.0 - _HAIR):
                continue
            low, high, mean = min(stretch), max(stretch), sum(stretch) / len(stretch)
            spread = (high - low) / mean if mean > 0.0 else (math.inf if high > low else 0.0)
            where = f"{sigma_Ry[first]:g} to {sigma_Ry[last]:g} Ry"
            flattest = min(flattest, (spread, f"{low:.3f} to {high:.3f} over {where}"))
            if spread <= SPREAD * (1.0 + _HAIR):
                plateau = Plateau(first, last, sigma_Ry[first], sigma_Ry[last], stretch[0], low, high)
                found.append((-math.log(ratio), spread, plateau))
    if found:
        # A tie of ratios is decided by flatness; rounding must not decide it.
        return min(found, key=lambda row: (round(row[0], 9), row[1]))[2]
    if not flattest[1]:
        return NoPlateau(f"fewer than {LEAST_POINTS} usable broadenings over a factor of {LEAST_RATIO:g}")
    return NoPlateau(
        f"lambda varies by more than {100 * SPREAD:g} % over every factor of {LEAST_RATIO:g} in sigma; "
        f"flattest: {flattest[1]} ({100 * flattest[0]:.0f} %)"
    )


def _values(stretch: Sequence[float | None]) -> list[float] | None:
    values = [x for x in stretch if x is not None and math.isfinite(x) and x >= 0.0]
    return values if len(values) == len(stretch) else None

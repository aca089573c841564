"""What is removed from a raw alpha2F before it is used, and how much of the coupling that was.

The cut: points at omega <= 0 are dropped (negative frequencies are imaginary modes; at omega = 0 the kernel
1/omega has no value) and negative alpha2F is set to 0. A frequency within 1e-6 of the largest one from zero is
zero: it is the rounding error of a grid that was meant to hold zero.

The removed weight is measured where it matters, in lambda: |2 alpha2F/omega| integrated over what was removed,
relative to removed plus kept. Above 1 % it is a warning, above 10 % the spectrum is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnes.errors import PhysicsError
from onnes.theory.quadrature import linear_rule, reaches_zero

FloatArray = NDArray[np.float64]

WARN_REMOVED = 0.01
REFUSE_REMOVED = 0.10
#: Below this fraction of the largest frequency a frequency is zero: rounding, or a stand-in against 1/0.
ZERO = 1e-6


@dataclass(frozen=True)
class Hygiene:
    """The fractions of lambda removed from a raw spectrum, by cause.

    Attributes
    ----------
    imaginary : float
        Weight at omega < 0 (imaginary modes).
    zero : float
        Weight of a non-zero value at omega = 0, counted as the triangle it spans with the next point
        times 2 over that point's frequency.
    negative : float
        Weight of negative alpha2F at omega > 0.
    points_dropped, points_clipped : int
        How many points were dropped (omega <= 0) and set to zero (alpha2F < 0).
    from_zero : bool or None
        Whether alpha2F is continued linearly from its first point to 0 at omega = 0: always when the input had
        points at omega <= 0, else by `quadrature.reaches_zero`. None: not decided (no raw input was seen).
    """

    imaginary: float = 0.0
    zero: float = 0.0
    negative: float = 0.0
    points_dropped: int = 0
    points_clipped: int = 0
    from_zero: bool | None = None

    @property
    def removed(self) -> float:
        """Total removed fraction of lambda, 0 to 1."""
        return self.imaginary + self.zero + self.negative

    @property
    def notes(self) -> list[str]:
        """One line for each thing removed, with its weight; a line starting with ``warning`` above 1 %."""
        causes = (
            (self.imaginary, "imaginary modes (omega < 0)"),
            (self.zero, "a non-zero value at omega = 0"),
            (self.negative, f"{self.points_clipped} negative alpha2F point(s) set to 0"),
        )
        lines = [f"removed {100 * part:.3g} % of lambda: {what}" for part, what in causes if part > 0.0]
        if self.removed > WARN_REMOVED:
            lines.append(
                f"warning: {100 * self.removed:.1f} % of lambda was removed in all; "
                "the phonon calculation may not be converged"
            )
        return lines


def clean(omega: FloatArray, values: FloatArray, source: str) -> tuple[FloatArray, FloatArray, Hygiene]:
    """Return the usable part (omega > 0, alpha2F >= 0) of a raw spectrum and the account of the rest.

    Parameters
    ----------
    omega, values : ndarray, shape (n,)
        Finite, omega strictly increasing, in any one unit.
    source : str
        Name used in messages.

    Raises
    ------
    PhysicsError
        ``negative-weight`` above 10 % removed; ``no-real-frequencies`` when fewer than two points remain.
    """
    omega = np.where(np.abs(omega) <= ZERO * np.abs(omega).max(), 0.0, omega)
    real = omega > 0.0
    if real.sum() < 2:
        raise PhysicsError("no-real-frequencies", f"{source}: fewer than two points at omega > 0")
    x, y = omega[real], values[real]
    imaginary = omega < 0.0
    # A grid that runs through zero says itself what happens between zero and its first positive point.
    through = True if real.sum() < omega.size else None
    from_zero = bool(through or reaches_zero(x))
    weights = {
        "kept": _weight(x, np.maximum(y, 0.0), from_zero),
        "negative": _weight(x, np.maximum(-y, 0.0), from_zero),
        "imaginary": _weight(-omega[imaginary][::-1], np.abs(values[imaginary][::-1]), through),
        "zero": float(np.abs(values[~real & ~imaginary]).sum()),
    }
    total = sum(weights.values())
    share = {name: (weight / total if total > 0.0 else 0.0) for name, weight in weights.items()}
    hygiene = Hygiene(
        share["imaginary"],
        share["zero"],
        share["negative"],
        points_dropped=int((~real).sum()),
        points_clipped=int((y < 0.0).sum()),
        from_zero=from_zero,
    )
    if hygiene.removed > REFUSE_REMOVED:
        raise PhysicsError(
            "negative-weight",
            f"{source}: {100 * hygiene.removed:.1f} % of lambda is unphysical "
            f"(imaginary modes {100 * hygiene.imaginary:.1f} %, omega = 0 {100 * hygiene.zero:.1f} %, "
            f"negative alpha2F {100 * hygiene.negative:.1f} %); at most {100 * REFUSE_REMOVED:.0f} % is cut",
        )
    return x, np.maximum(y, 0.0), hygiene


def _weight(omega: FloatArray, values: FloatArray, from_zero: bool | None) -> float:
    """2 int values/omega d omega, the contribution to lambda."""
    if omega.size == 0:
        return 0.0
    if omega.size == 1:
        # One point alone stands for the triangle it spans with omega = 0.
        return 2.0 * float(values[0])
    nodes, weights, _ = linear_rule(omega, values, from_zero=from_zero)
    return 2.0 * float(np.sum(weights / nodes))

"""When a crystal is unlike everything a model was trained on: rare elements, an unusual volume per atom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Training crystals that must hold an element before predictions for it are trusted.
LEAST = 10
#: Quantiles of the training set between which a volume per atom is usual.
QUANTILES = (0.001, 0.999)


def coverage_of(
    numbers: Sequence[NDArray[np.int64]], volumes: ArrayLike
) -> tuple[dict[str, int], list[float]]:
    """What `outside` needs, as JSON values.

    Parameters
    ----------
    numbers : sequence of int arrays
        Atomic numbers of each training crystal.
    volumes : (n,) numbers
        Volume per atom, cubic angstrom.

    Returns
    -------
    counts : dict
        Crystals by atomic number (a string, as JSON has it).
    volume_range : [float, float]
    """
    counts: dict[str, int] = {}
    for row in numbers:
        for z in np.unique(row):
            counts[str(int(z))] = counts.get(str(int(z)), 0) + 1
    return counts, [float(q) for q in np.quantile(np.asarray(volumes, dtype=float), QUANTILES)]


def outside(
    numbers: NDArray[np.int64], volume: float, counts: Mapping[int, int], volume_range: Sequence[float]
) -> str:
    """Why a crystal is outside the training domain; empty if it is inside.

    Parameters
    ----------
    numbers : int array, shape (n,)
        Atomic numbers.
    volume : float
        Per atom, cubic angstrom.
    counts : mapping of int to int
        Training crystals by atomic number; fewer than `LEAST` are too few.
    volume_range : two numbers
    """
    from onnes.crystal.formula import atomic_numbers

    rare = [int(z) for z in np.unique(numbers) if counts.get(int(z), 0) < LEAST]
    if rare:
        names = {z: symbol for symbol, z in atomic_numbers().items()}
        return f"fewer than {LEAST} training crystals contain {', '.join(names[z] for z in rare)}"
    low, high = volume_range
    if not low <= volume <= high:
        return f"volume per atom {volume:.1f} A^3 outside {low:.1f} to {high:.1f} A^3 of the training set"
    return ""

"""Rates of stable, unique and novel crystals (S.U.N.), as generators of crystals are judged.

After Zeni et al. (MatterGen, Nature 639, 624 (2025)): stable is within 0.1 eV/atom of the hull of the references,
unique is unlike every other crystal of the set for pymatgen's StructureMatcher (one of each group of equals counts),
novel is not among the known crystals. Every crystal given counts in the denominator, refused and failed ones too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from onnes.errors import SettingsError
from onnes.stability.novelty import KNOWN

#: Highest energy above the hull of what counts as stable, eV/atom.
THRESHOLD = 0.1


@dataclass(frozen=True)
class Rate:
    """A share of n with its interval.

    Attributes
    ----------
    count, n : int
    low, high : float
        Wilson's 95 % interval; 0 and 1 where n is 0.
    """

    count: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Count over n; NaN where n is 0."""
        return self.count / self.n if self.n else math.nan


def wilson(count: int, n: int, level: float = 0.95) -> Rate:
    """Share of n with Wilson's score interval (J. Am. Stat. Assoc. 22, 209 (1927)).

    Parameters
    ----------
    count, n : int
    level : float
    """
    if not n:
        return Rate(0, 0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    share = count / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Rate(count, n, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class Sun:
    """Rates over one set of crystals.

    Attributes
    ----------
    stable, unique, novel, sun : Rate
        Over all crystals given. `sun` is all three at once.
    lost : int
        Refused or failed, counted as none of the three.
    unknown : int
        With an element that the hull has no reference for: not stable.
    threshold_eV_atom : float
    hull : str
        The hull in words.
    """

    stable: Rate
    unique: Rate
    novel: Rate
    sun: Rate
    lost: int
    unknown: int
    threshold_eV_atom: float
    hull: str

    def lines(self) -> list[str]:
        """Two lines for a person: the rates, and what they mean."""
        if not self.sun.n:
            return ["S.U.N.: no crystal was given"]
        parts = (f"{name} {rate.count}" for name, rate in self._named())
        return [
            f"S.U.N. {self.sun.count} of {self.sun.n} given: {_percent(self.sun)}; {', '.join(parts)}",
            f"stable: at most {self.threshold_eV_atom:g} eV/atom above the hull of {self.hull}; counted as not stable: "
            f"{self.lost} refused or failed, {self.unknown} without a reference; intervals: Wilson, 95 %",
        ]

    def _named(self) -> list[tuple[str, Rate]]:
        return [("stable", self.stable), ("unique", self.unique), ("novel", self.novel)]


def _percent(rate: Rate) -> str:
    return f"{100 * rate.share:.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def sun(rows: Iterable[Mapping[str, Any]], *, threshold_eV_atom: float = THRESHOLD, hull: str = "") -> Sun:
    """Rates over the rows of `onnes.stability.assess.assess`.

    Parameters
    ----------
    rows : iterable of mappings
        With ``status``, ``e_hull_eV_atom``, ``novelty`` and ``same_as``.
    threshold_eV_atom : float
        Of stability. MatterGen and most others use 0.1; 0 counts only what reaches the hull.
    hull : str
        The hull in words.

    Raises
    ------
    SettingsError
        ``bad-setting`` for a threshold that is not finite.
    """
    if not math.isfinite(threshold_eV_atom):
        raise SettingsError("bad-setting", f"a threshold of {threshold_eV_atom} eV/atom is no number")
    every = list(rows)
    good = [r for r in every if r.get("status") == "ok"]
    marks = [_marks(r, threshold_eV_atom) for r in good]
    count = [sum(column) for column in zip(*marks, strict=True)] if marks else [0, 0, 0, 0]
    stable, unique, novel, all_three = (wilson(c, len(every)) for c in count)
    unknown = sum(_unknown(r) for r in good)
    return Sun(
        stable,
        unique,
        novel,
        all_three,
        len(every) - len(good),
        unknown,
        threshold_eV_atom,
        hull or "the references",
    )


def _unknown(row: Mapping[str, Any]) -> bool:
    value = row.get("e_hull_eV_atom")
    return value is None or not math.isfinite(value)


def _marks(row: Mapping[str, Any], threshold: float) -> tuple[bool, bool, bool, bool]:
    # The table is printed with six digits: a crystal on the threshold is not lost to the last of them.
    stable = not _unknown(row) and row["e_hull_eV_atom"] <= threshold + 1e-9
    unique = not row.get("same_as")
    novel = bool(row.get("novelty")) and row["novelty"] != KNOWN
    return stable, unique, novel, stable and unique and novel

"""The convergence ladder: quick for all crystals, standard for those that survive, tight for the best.

Every rung is a run of its own in ``FOLDER/NAME/TIER`` and goes on where it was cut, so the ladder keeps no state:
climbing again walks over what is done. A crystal climbs from the cell the rung below relaxed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onnes.data.files import atomic_text
from onnes.dft.outcome import COARSE, Outcome, Verdict
from onnes.dft.tiers import TierName
from onnes.errors import SettingsError

if TYPE_CHECKING:
    from pymatgen.core import Structure

COLUMNS = "id,tier,verdict,lambda,omega_log_K,tc_K,lambda_change,climbs,reason"
TIERS_IN_ORDER = (TierName.QUICK, TierName.STANDARD, TierName.TIGHT)


@dataclass(frozen=True)
class Rule:
    """Who climbs.

    Attributes
    ----------
    keep_above_K : float
        From quick to standard: superconductors with at least this Tc, and crystals without a plateau, whose grid was
        too coarse to say anything.
    best : int
        From standard to tight: this many superconductors of the highest Tc.
    soft_cm1 : float
        From quick to standard go also crystals whose deepest imaginary mode is not below minus this: on a coarse k grid
        a strong Kohn anomaly looks like an instability (fcc Pb: -41 cm-1 on 6x6x6 k).
    """

    keep_above_K: float = 1.0
    best: int = 3
    soft_cm1: float = 60.0

    def __post_init__(self) -> None:
        if not (self.keep_above_K >= 0.0 and self.best >= 0):
            raise SettingsError(
                "bad-setting",
                f"keep above {self.keep_above_K:g} K, best {self.best}; neither may be negative",
            )


@dataclass
class Rung:
    """A crystal at one tier: what came out, and whether it goes on."""

    id: str
    tier: TierName
    outcome: Outcome
    structure: Structure
    below: Rung | None = None
    climbs: bool = field(default=False)

    @property
    def lam(self) -> float | None:
        """Lambda at the plateau."""
        return None if self.outcome.spectrum is None else self.outcome.spectrum.lam

    @property
    def lambda_change(self) -> float | None:
        """Lambda over that of the rung below, less one: what the grids and cut-offs still change."""
        lower = None if self.below is None else self.below.lam
        return None if lower is None or self.lam is None else self.lam / lower - 1.0

    def row(self) -> str:
        """Line of the table (`COLUMNS`)."""
        spectrum = self.outcome.spectrum
        numbers = (
            self.lam,
            None if spectrum is None else spectrum.omega_log_K,
            self.outcome.tc_K,
            self.lambda_change,
        )
        cells = ["" if x is None else f"{x:.4g}" for x in numbers]
        climbs = "yes" if self.climbs else "no"
        return ",".join([self.id, self.tier, self.outcome.verdict, *cells, climbs, self.outcome.reason])


#: Runs one crystal at one tier in a folder; gives the outcome and the relaxed cell.
RunOne = Callable[["Structure", str, TierName, Path], tuple[Outcome, "Structure"]]


def climb(
    crystals: Sequence[tuple[str, Structure, Path]],
    run_one: RunOne,
    rule: Rule,
    table: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Rung]:
    """Take crystals up the ladder.

    Parameters
    ----------
    crystals : sequence of (str, Structure, Path)
        Name, structure as read, folder.
    run_one : callable
        Its failures are outcomes, not exceptions.
    rule : Rule
    table : Path, optional
        csv, written again after every run.
    report : callable
        Gets one line at the start of every rung.

    Returns
    -------
    list of Rung
        In the order of the runs.
    """
    done: list[Rung] = []
    places = {name: folder for name, _, folder in crystals}
    below: list[Rung] = []
    for tier in TIERS_IN_ORDER:
        if tier is TierName.QUICK:
            waiting = [(name, structure, None) for name, structure, _ in crystals]
        else:
            chosen = survivors(below, tier, rule)
            for rung in chosen:
                rung.climbs = True
            waiting = [(rung.id, rung.structure, rung) for rung in chosen]  # type: ignore[misc]
        report(f"{tier}: {len(waiting)} of {len(crystals)} crystals")
        below = []
        for name, structure, lower in waiting:
            outcome, relaxed = run_one(structure, name, tier, places[name] / tier)
            below.append(Rung(name, tier, outcome, relaxed, lower))
            done.append(below[-1])
            _write(table, done)
        _write(table, done)
    return done


def survivors(rungs: Sequence[Rung], tier: TierName, rule: Rule) -> list[Rung]:
    """Those that climb to a tier: the highest Tc first, then crystals without a number, then soft ones."""
    good = [r for r in rungs if r.outcome.verdict is Verdict.SUPERCONDUCTOR]
    good.sort(key=lambda r: -(r.outcome.tc_K or 0.0))
    if tier is TierName.TIGHT:
        return good[: rule.best]
    good = [r for r in good if (r.outcome.tc_K or 0.0) >= rule.keep_above_K]
    soft = [
        r for r in rungs if r.outcome.verdict is Verdict.UNSTABLE and r.outcome.lowest_cm1 >= -rule.soft_cm1
    ]
    open_ = [r for r in rungs if r.outcome.verdict is Verdict.NO_PLATEAU or r.outcome.reason == COARSE]
    return good + open_ + soft


def _write(table: Path | None, done: Sequence[Rung]) -> None:
    if table is not None:
        with atomic_text(table) as stream:
            stream.write("\n".join([COLUMNS, *(rung.row() for rung in done)]) + "\n")

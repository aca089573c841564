"""The verdict of a run: superconductor or not, unstable, insulator, magnetic, not converged, no plateau, failed.

At the plateau of lambda(sigma) (`onnes.dft.plateau`) the spectrum gives Tc by every formula and by the isotropic
Eliashberg equations. Without a plateau there is a curve and no number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.data.files import atomic_text
from onnes.dft.elph_file import parse_elph
from onnes.dft.failures import Reason
from onnes.dft.inputs import PREFIX
from onnes.dft.matdyn_files import parse_bands
from onnes.dft.plateau import LEAST_RATIO, SPREAD, NoPlateau, Plateau, find_plateau
from onnes.dft.results import Results, SigmaRow, read_results
from onnes.dft.step_checks import text_of
from onnes.errors import OnnesError
from onnes.units import UNITS

if TYPE_CHECKING:
    from onnes.dft.run import RunState
    from onnes.theory.spectral import Spectrum

#: A critical temperature below this is none that a run can tell from zero, K.
LEAST_TC_K = 0.1
#: Interpolated bands below this between the computed q-points are pointed out, cm-1.
SOFT_CM1 = -5.0
#: Sum over q and interpolation may differ by this fraction before it is pointed out, and before lambda is no number.
Q_AGREEMENT, Q_DISAGREEMENT = 0.10, 0.25
#: Reason of a run whose q grid is too coarse to interpolate on: nothing of it is left to compute, a denser tier is.
COARSE = "coarse-q-grid"
_RY_EV = UNITS.Ry_to_K * UNITS.kB_meV / 1e3


class Verdict(StrEnum):
    """What a run says of a crystal; ``failed`` says nothing of the crystal, and a rerun goes on."""

    SUPERCONDUCTOR = "superconductor"
    NORMAL = "no-superconductor"
    UNSTABLE = "unstable"
    INSULATOR = "insulator"
    MAGNETIC = "magnetic"
    NOT_CONVERGED = "not-converged"
    NO_PLATEAU = "no-plateau"
    FAILED = "failed"


#: Verdicts on the crystal, after which there is nothing left to compute at this tier.
FINAL = frozenset(set(Verdict) - {Verdict.NOT_CONVERGED, Verdict.FAILED})
_STOPPED = {Reason.INSULATOR: Verdict.INSULATOR, Reason.MAGNETIC: Verdict.MAGNETIC}
_UNCONVERGED = (Reason.SCF_NOT_CONVERGED, Reason.PH_NOT_CONVERGED, Reason.RELAX_NOT_CONVERGED)


@dataclass(frozen=True)
class Outcome:
    """Verdict with its reasons and numbers.

    Attributes
    ----------
    verdict : Verdict
    reason : str
        Code of what decided it; empty for a superconductor.
    detail : str
        One line for a person.
    results : Results or None
        The curve; None where the run did not reach it.
    plateau : Plateau or None
    spectrum : Spectrum or None
        alpha2F at the plateau.
    summary : dict
        `onnes.theory.summary.summarise` of it: moments, Tc by every formula, Eliashberg; empty without a plateau.
    dos_ef : float or None
        States a eV and cell, both spins, at the broadening of the plateau.
    notes : tuple of str
    """

    verdict: Verdict
    reason: str
    detail: str
    results: Results | None = None
    plateau: Plateau | None = None
    spectrum: Spectrum | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    dos_ef: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def tc_K(self) -> float | None:
        """Tc of the Eliashberg equations, of Allen and Dynes where those were not solved; None without a plateau."""
        if not self.summary:
            return None
        solved = self.summary.get("eliashberg") or {}
        value = solved.get("tc_K")
        return float(self.summary["tc"]["allen-dynes"]["tc_K"] if value is None else value)

    @property
    def final(self) -> bool:
        """Whether there is nothing left to compute at this tier."""
        return self.verdict in FINAL or self.reason == COARSE

    @property
    def lowest_cm1(self) -> float:
        """Lowest computed frequency, negative for an imaginary mode; minus infinity where none was computed."""
        return float("-inf") if self.results is None else self.results.lowest_cm1

    def as_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        curve = [
            {
                "sigma_Ry": row.sigma_Ry,
                "lambda": row.lam,
                "omega_log_K": row.omega_log_K,
                "omega_2_K": row.omega_2_K,
                "lambda_q_sum": row.lam_q_sum,
                "omega_log_q_sum_K": row.omega_log_q_sum_K,
                "tc_allen_dynes_K": row.tc_K,
                "reason": row.reason,
            }
            for row in (self.results.rows if self.results else ())
        ]
        plateau = None
        if self.plateau is not None:
            p = self.plateau
            plateau = {
                "sigma_Ry": [p.sigma_Ry, p.to_sigma_Ry],
                "lambda_low": p.low,
                "lambda_high": p.high,
                "criterion": f"lambda within {100 * SPREAD:g} % over a factor of {LEAST_RATIO:g} in sigma",
            }
        keys = ("mu_star", "lambda", "omega_log_K", "omega_1_K", "omega_2_K", "tc", "eliashberg")
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "detail": self.detail,
            "tc_K": self.tc_K,
            **{key: self.summary[key] for key in keys if key in self.summary},
            "dos_ef_states_eV_cell": self.dos_ef,
            "plateau": plateau,
            "curve": curve,
            "notes": list(self.notes),
        }


def judge(state: RunState, folder: Path, mu_star: float = 0.10) -> Outcome:
    """Read what a run left and say what it means.

    Parameters
    ----------
    state : RunState
    folder : Path
        Of the run.
    mu_star : float
    """
    if state.status != "done":
        return _stopped(state)
    results = read_results(state.plan, folder, mu_star)
    if results.unstable is not None:
        return Outcome(Verdict.UNSTABLE, str(results.unstable.reason), results.unstable.detail, results)
    found = find_plateau([r.sigma_Ry for r in results.rows], [r.lam for r in results.rows])
    if isinstance(found, NoPlateau):
        return Outcome(Verdict.NO_PLATEAU, "no-plateau", found.detail, results, notes=_soft(folder))
    row = results.rows[found.first]
    if _apart(row) > Q_DISAGREEMENT:
        return Outcome(Verdict.NOT_CONVERGED, COARSE, _both(row), results, found, notes=_soft(folder))
    return _at_plateau(results, found, folder, mu_star)


#: What a run leaves besides the files of its steps.
PRODUCTS = ("result.json", "lambda.csv", "alpha2F.csv")


def write_outcome(outcome: Outcome, folder: Path, settings: dict[str, Any] | None = None) -> Path:
    """Write ``result.json`` and, where there is a spectrum, ``alpha2F.csv`` (meV).

    Parameters
    ----------
    outcome : Outcome
    folder : Path
    settings : dict, optional
        Of the run (`onnes.dft.to_record.settings`): ``plan.json`` beside it may be of a later plan.
    """
    if outcome.spectrum is not None:
        s = outcome.spectrum
        with atomic_text(folder / "alpha2F.csv") as stream:
            stream.write("omega_meV,alpha2F\n")
            stream.writelines(f"{w:.6g},{a:.6g}\n" for w, a in zip(s.omega_meV, s.alpha2F, strict=True))
    else:
        (folder / "alpha2F.csv").unlink(missing_ok=True)
    with atomic_text(folder / "result.json") as stream:
        told = {**outcome.as_dict(), **({"settings": settings} if settings else {})}
        stream.write(json.dumps(told, indent=2, allow_nan=False) + "\n")
    return folder / "result.json"


def _stopped(state: RunState) -> Outcome:
    verdict = _STOPPED.get(state.reason) or (  # type: ignore[call-overload]
        Verdict.NOT_CONVERGED if state.reason in _UNCONVERGED else Verdict.FAILED
    )
    return Outcome(verdict, state.reason, state.detail)


def _at_plateau(results: Results, plateau: Plateau, folder: Path, mu_star: float) -> Outcome:
    from onnes.theory.readers import read_a2f
    from onnes.theory.summary import summarise

    try:
        spectrum = read_a2f(folder / "bands" / f"a2F.dos{plateau.first + 1}")
        summary = summarise(spectrum, mu_star=mu_star)
    except OnnesError as error:
        return Outcome(Verdict.FAILED, error.code, error.message, results, plateau)
    notes = [*_soft(folder), *_grid_note(results.rows[plateau.first]), *summary["notes"]]
    solved = summary["eliashberg"]
    if solved and solved["error"]:
        notes.append(f"Eliashberg equations not solved: {solved['message']}")
    states = _dos_ef(folder, results.rows[plateau.first].sigma_Ry)
    outcome = Outcome(
        Verdict.SUPERCONDUCTOR, "", "", results, plateau, spectrum, summary, states, tuple(notes)
    )
    critical = outcome.tc_K or 0.0
    words = (
        f"lambda {spectrum.lam:.3f} ({plateau.low:.3f} to {plateau.high:.3f} over {plateau.sigma_Ry:g} to "
        f"{plateau.to_sigma_Ry:g} Ry), omega_log {spectrum.omega_log_K:.0f} K, Tc {critical:.3g} K at mu* {mu_star:g}"
    )
    if critical < LEAST_TC_K:
        below = f"{words}: below {LEAST_TC_K:g} K"
        return replace(outcome, verdict=Verdict.NORMAL, reason="tc-below-limit", detail=below)
    return replace(outcome, detail=words)


def _dos_ef(folder: Path, sigma_Ry: float) -> float | None:
    """N(EF) at a broadening, from the first q; QE counts states a spin, Ry and cell."""
    found = parse_elph(text_of(folder / "bands" / "elph_dir" / "elph.inp_lambda.1"))
    near = [c.dos_ef for c in found.coupling if abs(c.sigma_Ry - sigma_Ry) < 1e-6]
    return 2.0 * near[0] / _RY_EV if found.failure is None and near else None


def _grid_note(row: SigmaRow) -> list[str]:
    """A word where interpolation and plain sum over q differ: the q grid is then too coarse."""
    return [_both(row)] if _apart(row) > Q_AGREEMENT else []


def _apart(row: SigmaRow) -> float:
    """Difference of the two lambda as a fraction of the smaller; 0 where one is missing."""
    if row.lam is None or row.lam_q_sum is None:
        return 0.0
    return abs(row.lam_q_sum - row.lam) / max(min(abs(row.lam_q_sum), abs(row.lam)), 1e-6)


def _both(row: SigmaRow) -> str:
    return (
        f"lambda is {row.lam_q_sum:.3f} summed over the q-points, {row.lam:.3f} interpolated: coarse q grid"
    )


def _soft(folder: Path) -> tuple[str, ...]:
    """A word on bands that dip below zero between the computed q-points."""
    bands = parse_bands(text_of(folder / "bands" / f"{PREFIX}.freq.gp"))
    if bands.failure is not None or bands.omega_cm1 is None or float(bands.omega_cm1.min()) >= SOFT_CM1:
        return ()
    return (
        f"interpolated bands reach {float(bands.omega_cm1.min()):.1f} cm-1 between the computed q-points, which are "
        "all stable: a denser q grid tells",
    )

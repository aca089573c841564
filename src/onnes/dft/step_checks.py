"""Whether a step is done, from its output and its files: one check for each kind of step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnes.dft.failures import Failure, Reason
from onnes.dft.inputs import PREFIX, band_path
from onnes.dft.matdyn_files import (
    parse_a2f,
    parse_bands,
    parse_fc,
    parse_matdyn,
    parse_phdos,
    parse_q2r,
)
from onnes.dft.ph_output import parse_ph
from onnes.dft.plan import Plan, Program, Step
from onnes.dft.pw_output import parse_pw
from onnes.dft.scratch import check_a2fsave, check_q, check_scf, parse_scf_record

#: Copy of the dense grid's record: the next scf writes over the original.
DENSE_RECORD = "dense.xml"


def check_step(
    plan: Plan, step: Step, folder: Path, *, exit_code: int | None = None, again: bool = False
) -> Failure | None:
    """Return why a step is not done, or None.

    Parameters
    ----------
    plan : Plan
    step : Step
    folder : Path
        Of the run.
    exit_code : int, optional
        Of the program that has just ended.
    again : bool
        Whether an earlier run did the step: the scf that follows the dense one has since written over its wave
        functions.
    """
    place = folder / step.folder
    output = read_output(folder, step)
    error, crash = (text_of(place / n) for n in (step.output_name.removesuffix(".out") + ".err", "CRASH"))
    # A CRASH file belongs to the program that ended last in its folder.
    crash = "" if again else crash
    named = {"stderr": error, "crash": crash, "exit_code": exit_code}
    if step.program is Program.PW:
        found = parse_pw(output, relax=step.name == "relax", **named)  # type: ignore[arg-type]
        return found.failure or _scratch(step, place, again)
    if step.program is Program.PH:
        number, n_sigma = int(step.name[1:]), plan.tier.n_sigma
        run = parse_ph(output, n_sigma=n_sigma, q_of_run=1, **named)  # type: ignore[arg-type]
        return run.failure or check_q(place, PREFIX, number, n_sigma)
    said = (
        parse_q2r(output, n_sigma=plan.tier.n_sigma, **named)  # type: ignore[arg-type]
        if step.program is Program.Q2R
        else parse_matdyn(output, **named)  # type: ignore[arg-type]
    )
    return said.failure or _FILES[step.name](plan, place)


def read_output(folder: Path, step: Step) -> str:
    """Standard output of a step; empty where there is none."""
    return text_of(folder / step.folder / step.output_name)


def text_of(path: Path) -> str:
    """Content of a file; empty where there is none."""
    try:
        return path.read_text(encoding="latin-1")
    except OSError:
        return ""


def _scratch(step: Step, place: Path, again: bool) -> Failure | None:
    if step.name in ("relax", "spin"):
        return None
    if step.name == "dense" and again:
        kept = parse_scf_record(text_of(place / DENSE_RECORD)).failure
        return kept or check_a2fsave(text_of(place / "tmp" / f"{PREFIX}.a2Fsave"))
    return check_scf(place / "tmp", PREFIX, dense=step.name == "dense")


def _q2r_files(plan: Plan, place: Path) -> Failure | None:
    found = parse_fc(text_of(place / f"{PREFIX}.fc"))
    if found.failure is not None:
        return found.failure
    for s in range(1, plan.tier.n_sigma + 1):
        if not text_of(place / "elph_dir" / f"a2Fmatdyn.{60 + s}").strip():
            return Failure(Reason.FILE, f"a2Fmatdyn of broadening {s} is missing or empty")
    return None


def _bands_files(plan: Plan, place: Path) -> Failure | None:
    return parse_bands(text_of(place / f"{PREFIX}.freq.gp"), len(band_path(plan.cell.structure))).failure


def _a2f_files(plan: Plan, place: Path) -> Failure | None:
    for s in range(1, plan.tier.n_sigma + 1):
        found = parse_a2f(text_of(place / f"a2F.dos{s}"), plan.tier.dos_points)
        if found.failure is not None:
            return Failure(found.failure.reason, f"a2F.dos{s}: {found.failure.detail}")
    return parse_phdos(text_of(place / f"{PREFIX}.phdos"), plan.tier.dos_points).failure


_FILES: dict[str, Callable[[Plan, Path], Failure | None]] = {
    "q2r": _q2r_files,
    "bands": _bands_files,
    "a2f": _a2f_files,
}

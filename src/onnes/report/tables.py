"""The tables of a run: its candidates and its funnel, for csv files, the screen and the page."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from onnes.report.story import LedgerLike, Run, Story, read_run, reason_counts
from onnes.report.words import finite, reason_words, show, stage_title, subscript_text

if TYPE_CHECKING:
    from rich.console import Console

#: Columns taken from the verdicts' numbers, in the order of the table, and how they are read.
_FLOATS = (
    "tc_K",
    "tc_low_K",
    "tc_high_K",
    "lambda",
    "lambda_std",
    "omega_log_K",
    "omega_log_K_std",
    "omega_2_K",
    "formation_energy_eV_atom",
    "e_hull_eV_atom",
)
_TEXTS = ("decomposition", "novelty", "known_id")
_TAIL = ("energy_eV_atom", "density_g_cm3", "packing_fraction", "volume_change", "score")

COLUMNS = (
    "rank",
    "id",
    "formula",
    "space_group",
    "space_group_number",
    "n_atoms",
    *_FLOATS,
    *_TEXTS,
    "in_domain",
    *_TAIL,
    "phonon_verdict",
    "dft_verdict",
    "dft_tc_K",
    "seed",
    "source",
)
FUNNEL_COLUMNS = ("stage", "in", "passed", "failed", "pending", "reasons")


def candidate_rows(ledger: LedgerLike | Run) -> pd.DataFrame:
    """Tabulate the final candidates of a run, best first.

    Parameters
    ----------
    ledger : Ledger
        Ledger of the run.

    Returns
    -------
    DataFrame
        One row per candidate with `COLUMNS`. Energies in eV/atom, temperatures in K; a number the run
        does not know is missing (NaN), never zero. ``attrs["provisional"]`` is True when the run has
        not been ranked yet: then the rows are the crystals no stage has refused so far, by Tc, with an
        empty rank.
    """
    run = read_run(ledger)
    frame = pd.DataFrame([_row(story) for story in run.final], columns=list(COLUMNS))
    for name in ("rank", "space_group_number", "n_atoms", "seed"):
        frame[name] = pd.array([_integer(v) for v in frame[name]], dtype="Int64")
    for name in (*_FLOATS, *_TAIL, "dft_tc_K"):
        frame[name] = frame[name].astype("float64")
    frame.attrs["provisional"] = run.provisional
    return frame


def funnel_rows(ledger: LedgerLike | Run) -> pd.DataFrame:
    """Count what entered, passed and failed at every stage of a run.

    Returns
    -------
    DataFrame
        Columns ``stage, in, passed, failed, pending, reasons``; ``pending`` counts crystals a stopped
        run has not got to; ``reasons`` is a dict from reason code to count, most frequent first.
    """
    run = read_run(ledger)
    refused = run.meta.get("refused_inputs")
    first = "read" if "read" in run.stages or isinstance(refused, list) else "generate"
    stages = [first, *[s for s in run.gates if s != first]]
    alive = run.stories
    rows: list[dict[str, Any]] = []
    for stage in stages:
        verdicts = [(story, story.verdict(stage)) for story in alive]
        failed = [v for _, v in verdicts if v is not None and not v.passed]
        if stage == first and not any(v for _, v in verdicts):
            # Candidates are entries of the ledger, not verdicts: a crystal that exists was generated.
            passed = list(alive)
        else:
            passed = [story for story, v in verdicts if v is not None and v.passed]
        rows.append(
            {
                "stage": stage,
                "in": len(alive),
                "passed": len(passed),
                "failed": len(failed),
                "pending": len(alive) - len(passed) - len(failed),
                "reasons": reason_counts(failed),
            }
        )
        alive = passed
    if isinstance(refused, list) and refused:
        # Inputs that could not be read never became candidates; the run's facts alone know them.
        rows[0]["in"] += len(refused)
        rows[0]["failed"] += len(refused)
        counts = Counter(str(entry[1]) for entry in refused)
        rows[0]["reasons"] = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return pd.DataFrame(rows, columns=list(FUNNEL_COLUMNS))


def formula_of(story: Story) -> str:
    """Reduced formula of a story's last structure (``MgB2``), or the recorded one if it has no atoms."""
    species = story.structure.get("species") or []
    if not species:
        return str(story.numbers.get("formula") or "")
    return _formula(tuple(sorted(map(str, species))))


@lru_cache(maxsize=50_000)
def _formula(species: tuple[str, ...]) -> str:
    from pymatgen.core import Composition

    counts: dict[str, float] = dict(Counter(species))
    try:
        return str(Composition(counts).reduced_formula)
    except (ValueError, TypeError):  # an unknown element is refused by the gate, but is still shown
        return "".join(f"{s}{n:g}" if n > 1 else s for s, n in counts.items())


def print_candidates(ledger: LedgerLike | Run, console: Console, *, limit: int = 20) -> None:
    """Print the best candidates as a table, and one line that says what the table stands for.

    Parameters
    ----------
    ledger : Ledger
        Ledger of the run.
    console : rich.console.Console
        Where to print; narrow consoles drop the less important columns.
    limit : int
        Most rows to print.
    """
    from rich.table import Table
    from rich.text import Text

    run = read_run(ledger)
    frame = candidate_rows(run)
    if frame.empty:
        console.print(Text(headline(run)))
        for row in funnel_rows(run).itertuples():
            for reason, count in row.reasons.items():
                console.print(Text(f"  {count:>6} fell at {stage_title(row.stage)}: {reason_words(reason)}"))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    wide = console.width >= 100
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("Formula", no_wrap=True)
    table.add_column("Space group", no_wrap=True)
    table.add_column("Tc (K)", justify="right", no_wrap=True)
    table.add_column("interval", justify="right", no_wrap=True)
    if wide:
        table.add_column("λ", justify="right", no_wrap=True)
        table.add_column("ω_log (K)", justify="right", no_wrap=True)
        table.add_column("E_form (eV/at)", justify="right", no_wrap=True)
    table.add_column("E_hull (eV/at)", justify="right", no_wrap=True)
    table.add_column("Novelty", overflow="fold")
    for record in frame.head(limit).to_dict("records"):
        cells = [
            show(record["rank"], 0),
            subscript_text(record["formula"]),
            _text(record["space_group"]),
            show(record["tc_K"], 1),
            interval(record["tc_low_K"], record["tc_high_K"]),
        ]
        if wide:
            cells += [show(record["lambda"]), show(record["omega_log_K"], 0)]
            cells += [show(record["formation_energy_eV_atom"], 3)]
        hull = record["e_hull_eV_atom"]
        cells += ["unknown" if finite(hull) is None else show(hull, 3), novelty_words(record)]
        table.add_row(
            *[Text(cell) for cell in cells], style="" if record["in_domain"] is not False else "dim"
        )
    console.print(table)
    if len(frame) > limit:
        console.print(Text(f"and {len(frame) - limit} more; all of them are in candidates.csv"))
    if (frame["in_domain"] == False).any():  # noqa: E712  (None means unknown, not outside)
        console.print(Text("dimmed: outside the predictor's domain, treat its Tc with suspicion"))
    console.print(Text(headline(run)))


def headline(ledger: LedgerLike | Run) -> str:
    """One sentence that sums up a run: how many crystals, how many candidates, which is best."""
    run = read_run(ledger)
    total, left = len(run.stories), run.final
    if not total:
        return "No crystal has entered the funnel" + (" yet." if run.unfinished else ".")
    crystals = f"{total:,} crystal{'' if total == 1 else 's'} entered the funnel"
    if run.provisional:
        waiting = "not finished: no ranking yet"
        return f"{crystals}; the run is {waiting}, {len(left):,} with a predicted Tc are still standing."
    if not left:
        return f"{crystals}; none of them passed every gate."
    best = left[0]
    low, high = best.numbers.get("tc_low_K"), best.numbers.get("tc_high_K")
    text = f"{crystals}, {len(left):,} came out as candidate{'' if len(left) == 1 else 's'}. First in rank: "
    text += (
        f"{subscript_text(formula_of(best))} with a predicted Tc of {show(best.numbers.get('tc_K'), 1, 'K')}"
    )
    if finite(low) is not None and finite(high) is not None:
        text += f" (interval {interval(low, high)} K)"
    hull = finite(best.numbers.get("e_hull_eV_atom"))
    if hull is None:
        return text + "; its energy above the hull is unknown."
    return text + f", {beside_hull(hull)} the hull of known phases."


def beside_hull(hull: float) -> str:
    """Where a crystal lies, in front of "the hull": ``on``, ``0.012 eV/atom above`` or ``0.068 eV/atom below``."""
    if abs(hull) < 0.0005:  # what three digits show as zero
        return "on"
    return f"{show(abs(hull), 3, 'eV/atom')} {'above' if hull > 0 else 'below'}"


def interval(low: Any, high: Any) -> str:
    """Format an interval: ``12.3 to 15.8``; an en dash when either end is missing."""
    if finite(low) is None or finite(high) is None:
        return show(None)
    return f"{show(low, 1)} to {show(high, 1)}"


def novelty_words(record: Any) -> str:
    """Novelty with the nearest known crystal, in words."""
    known = _text(record["known_id"])
    words = {
        "new": "new",
        "new-composition": "new composition",
        "known-composition-new-structure": "new structure of a known composition",
        "known": "known",
    }
    novelty = _text(record["novelty"])
    text = words.get(novelty, novelty) or show(None)
    if not known:
        return text
    return f"{text} ({known})" if novelty == "known" else f"{text} (nearest known: {known})"


def _row(story: Story) -> dict[str, Any]:
    numbers = story.numbers
    row: dict[str, Any] = {name: finite(numbers.get(name)) for name in (*_FLOATS, *_TAIL)}
    row.update({name: _text(numbers.get(name)) or None for name in (*_TEXTS, "space_group")})
    in_domain = numbers.get("in_domain")
    row.update(
        rank=numbers.get("rank") if story.verdict("rank") else None,
        id=story.id,
        formula=formula_of(story),
        space_group_number=numbers.get("space_group_number"),
        n_atoms=len(story.structure.get("species") or []),
        in_domain=None if in_domain is None else bool(in_domain),
        seed=story.seed,
        source=story.source,
        phonon_verdict=_text(numbers.get("phonon_verdict")) or None,
        dft_verdict=_text(numbers.get("verify_verdict")) or None,
        dft_tc_K=finite(numbers.get("verify_tc_K")),
    )
    return row


def _text(value: Any) -> str:
    """Text of a cell; empty for None and NaN (pandas turns a missing text into NaN)."""
    return "" if value is None or value != value else str(value)


def _integer(value: Any) -> int | None:
    number = finite(value)
    return None if number is None else round(number)

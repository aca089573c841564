"""``onnes campaign``: how far a run is, the story of one candidate, and failures done again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from onnes.campaign.status import Status, Story

app = typer.Typer(help="Look into a run of onnes discover, and retry what failed.", no_args_is_help=True)

RUN = typer.Argument(..., help="Folder of the run, or its ledger file.")
ID = typer.Argument(..., help="Id of a candidate, as in candidates.csv.")
JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command()
def status(run: Path = RUN, as_json: bool = JSON) -> None:
    """Funnel of a run, whether it is driven now, what was tried again, and whether its models are those installed."""
    from dataclasses import asdict

    from onnes.campaign.ledger import Ledger
    from onnes.campaign.status import status as read

    with Ledger.open(run, read_only=True) as ledger:
        found = read(ledger)
    if as_json:
        _dump(asdict(found))
        return
    _print_status(found, _console())


@app.command()
def show(run: Path = RUN, id: str = ID, as_json: bool = JSON) -> None:
    """The whole story of one candidate: origin, every verdict, numbers, model hashes, seconds."""
    from onnes.campaign.ledger import Ledger
    from onnes.campaign.status import story

    with Ledger.open(run, read_only=True) as ledger:
        found = story(ledger, id)
    if as_json:
        _dump(found.as_dict())
        return
    _print_story(found, _console())


@app.command()
def why(run: Path = RUN, id: str = ID) -> None:
    """Why a candidate was refused, or where it stands, in a sentence or two."""
    from onnes.campaign.ledger import Ledger
    from onnes.campaign.status import story

    with Ledger.open(run, read_only=True) as ledger:
        typer.echo(sentence(story(ledger, id)))


@app.command()
def retry(
    run: Path = RUN,
    ids: list[str] = typer.Argument(None, help="Candidates; all where none is given."),
    stage: str = typer.Option("", "--stage", help="Only failures at this stage."),
    reason: str = typer.Option("", "--reason", help="Only failures with this reason code."),
) -> None:
    """Take failures out of a run, so that the next --resume does them again; the old verdicts are kept."""
    from collections import Counter

    from onnes.campaign.ledger import MOST_ATTEMPTS, Ledger
    from onnes.campaign.status import retry as take_out

    with Ledger.open(run) as ledger:
        taken, spent = take_out(ledger, ids or (), stage=stage, reason=reason)
    counts = ", ".join(f"{s} {n}" for s, n in Counter(v.stage for v in taken).items())
    if taken:
        typer.echo(
            f"{len(taken)} taken out ({counts}); do them again with: onnes discover --out {run} --resume"
        )
    if spent:
        typer.echo(
            f"onnes: {len(spent)} left as they are, after {MOST_ATTEMPTS} attempts each [retry-limit]",
            err=True,
        )
        raise typer.Exit(1)


def sentence(story: Story) -> str:
    """Where a candidate stands, in plain English."""
    from onnes.report.words import reason_words, show, stage_title

    name = f"{story.candidate.id} ({_formula(story)})"
    refusal, numbers = story.refusal, story.numbers
    if refusal is not None:
        text = f"{name} was refused at the stage {refusal.stage}: {reason_words(refusal.reason)}."
        limit = story.limit()
        if limit is not None:
            text += f" What decides is {limit[0]} = {limit[1]}."
        tries = 1 + sum(e.verdict.key == refusal.key for e in story.earlier)
        return text + (f" It was tried {tries} times." if tries > 1 else "")
    passed = [v.stage for v in story.path]
    if story.waits_for:
        done = f"passed {', '.join(passed)} and " if passed else ""
        ended = "the run is not at its end" if story.state != "finished" else "resume the run to go on"
        return f"{name} has {done}no verdict yet at the stage {story.waits_for}: {ended}."
    if not story.stages:
        return f"{name} has entered the run; no stage has begun."
    text = f"{name} passed all {len(passed)} stages, the last being {stage_title(story.stages[-1])!r}"
    if "rank" in numbers:
        text += f", and is number {numbers['rank']} in rank"
    if "tc_K" in numbers:
        low, high = (show(numbers.get(k), 1) for k in ("tc_low_K", "tc_high_K"))
        text += f": predicted Tc {show(numbers['tc_K'], 1, 'K')} (90 % interval {low} to {high} K)"
        if numbers.get("e_hull_eV_atom") is not None:
            text += f", {show(numbers['e_hull_eV_atom'], 3)} eV/atom above the hull"
        if numbers.get("in_domain") is False:
            text += ". The crystal is unlike those the predictor was trained on: trust the interval less"
    return text + "."


def _formula(story: Story) -> str:
    from onnes.crystal.formula import formula_of

    return formula_of(story.species) or "no atoms"


def _print_status(found: Status, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnes.report.words import show_seconds

    by = f", driven by {found.driver}" if found.driver else ", no driver"
    unread = f", {found.unreadable} inputs unreadable" if found.unreadable else ""
    console.print(Text(f"{found.state}{by}; {found.candidates} candidates{unread}"))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("entered", "passed", "failed", "waiting", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("refused because", overflow="fold")
    for row in found.stages:
        counts = [f"{n:,}" for n in (row.entered, row.passed, row.failed, row.waiting)]
        reasons = ", ".join(f"{code} {n:,}" for code, n in row.reasons.items())
        table.add_row(row.stage, *counts, show_seconds(row.seconds), Text(reasons))
    console.print(table)
    again = sum(found.tried_again.values())
    if again:
        stages = ", ".join(f"{s} {n}" for s, n in found.tried_again.items())
        console.print(Text(f"tried again: {again} ({stages}), {show_seconds(found.seconds_before)}"))
    console.print(Text(f"computing time of what counts: {show_seconds(found.seconds)}"))
    for k in found.rounds:
        console.print(Text(_round(k)))
    for row in found.stages:
        hashes = ", ".join(h for h in row.models if h)
        if hashes:
            console.print(Text(f"model of {row.stage}: {hashes}"), soft_wrap=True)
    for line in found.warnings:
        console.print(Text(f"warning: {line}"), soft_wrap=True)


def _round(entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"round: {entry}"
    best = entry.get("best_tc_K")
    return (
        f"round {entry.get('round')}: {entry.get('n_candidates')} candidates, {entry.get('n_chosen')} chosen, "
        f"{entry.get('n_labelled')} labelled, {entry.get('n_hits')} hits"
        + (f", best Tc {best:.1f} K" if isinstance(best, float) else "")
    )


def _print_story(story: Story, console: Console) -> None:
    from rich.text import Text

    from onnes.report.words import show_seconds

    c = story.candidate
    lines = [sentence(story), f"source {c.source or 'not known'}, index {c.index}, seed {c.seed}"]
    lines += [f"{key}: {_plain(value)}" for key, value in c.meta.items()]
    lines.append(f"computing time: {show_seconds(story.seconds)}")
    for title, verdicts in (
        ("current verdicts", story.path),
        ("beside the funnel, or behind a refusal", story.beside),
        ("of other settings, inputs or models", story.other),
    ):
        if verdicts:
            lines += ["", title]
            lines += [line for v in verdicts for line in _verdict_lines(v)]
    if story.earlier:
        lines += ["", "tried again"]
    for e in story.earlier:
        lines += _verdict_lines(e.verdict)
        lines.append(f"    attempt {e.attempt}, put aside {e.at} by {e.by} ({e.cause})")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _verdict_lines(v: Any) -> list[str]:
    from onnes.report.words import show_seconds

    head = f"  {v.stage}: {'passed' if v.passed else 'refused, ' + v.reason} ({show_seconds(v.seconds)})"
    model = f", model {v.model_hash}" if v.model_hash else ""
    lines = [head, f"    input {v.input_hash}, settings {v.settings_hash}{model}, seed {v.seed}"]
    if v.structure:
        lines.append(f"    new structure of {len(v.structure.get('species', []))} atoms")
    if v.numbers:
        lines.append("    " + ", ".join(f"{k} {_plain(value)}" for k, value in v.numbers.items()))
    return lines


def _plain(value: Any) -> str:
    """A number or text in a line; large tables (bands, spectra) only by their size."""
    import json

    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"({len(text):,} characters; --json has them)"


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _dump(data: Any) -> None:
    import json

    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))

"""``onnes evaluate``: a baseline, the shipped model or a trained one on labelled crystals; generated crystals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from onnes.data.records import Record
    from onnes.learn.evaluate import Evaluation
    from onnes.learn.spectrum_score import SpectralRun
    from onnes.learn.trained import TrainedRun


def evaluate(
    model: str = typer.Argument(
        ...,
        help="shipped, shipped-spectrum, median, trees, boosting, cfid; a folder of onnes train; a csv of predictions; "
        "or generated crystals: a folder or file of structures.",
    ),
    data: Path = typer.Option(None, "--data", help="Records with labels, .jsonl or .jsonl.gz; for models."),
    target: str = typer.Option(
        None, "--target", help="Label to score: lambda (default), omega_log_K, Tc_K, ..."
    ),
    task: str = typer.Option(None, "--task", help="Task that the folder of an onnes train must be of."),
    unseen_only: bool = typer.Option(
        False, "--unseen-only", help="Leave out rows whose formula or database the model was trained on."
    ),
    split: str = typer.Option(None, "--split", help="Field with a stored split (train/val/test)."),
    folds: int = typer.Option(None, "--folds", help="Grouped folds; 5 without --split."),
    repeats: int = typer.Option(1, "--repeats", help="Repeat the folds with other seeds."),
    group_by: str = typer.Option("formula", "--group-by", help="formula or fingerprint."),
    where: list[str] = typer.Option([], "--where", help="Only rows with FIELD=VALUE; may be repeated."),
    by: str = typer.Option("", "--by", help="Table lines for each value of this field."),
    threshold: float = typer.Option(None, "--threshold", help="For precision-recall; 5 K for Tc."),
    level: float = typer.Option(0.9, "--level", help="Level of the prediction intervals."),
    by_range: bool = typer.Option(
        False, "--by-range", help="Intervals calibrated per range (baselines, folds)."
    ),
    seed: int = typer.Option(0, "--seed", help="Of folds, models and bootstrap."),
    mu_star: float = typer.Option(0.10, "--mu-star", help="For Tc of the shipped model."),
    formula: str = typer.Option("allen-dynes", "--formula", help="For Tc of the shipped model."),
    curve: bool = typer.Option(True, "--learning-curve/--no-learning-curve", help="With --out; baselines."),
    curves: Path = typer.Option(
        None,
        "--curves",
        help="Folder of alpha2F files named after the ids; for a run of onnes train spectrum.",
    ),
    unit: str = typer.Option(None, "--curve-unit", help="Unit of curve files that do not state theirs."),
    out: Path = typer.Option(None, "--out", help="Folder for csv files and figures."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    reference: Path = typer.Option(
        None, "--reference", help="Crystals: structures to compare with (coverage, distributions, novelty)."
    ),
    relaxed: Path = typer.Option(None, "--relaxed", help="Crystals: the relaxed ones, same names and sites."),
    truth: Path = typer.Option(
        None, "--truth", help="Crystals: the true ones, same names, for match rate and RMSD."
    ),
    stability: Path = typer.Option(
        None, "--stability", help="Crystals: their table by onnes stability, for S.U.N. on its hull."
    ),
    stable_below: float = typer.Option(
        0.1, "--stable-below", help="Crystals: highest e_hull of S.U.N., eV/atom."
    ),
    symprec: float = typer.Option(0.1, "--symprec", help="Crystals: tolerance of the space groups, A."),
) -> None:
    """Score a model on grouped folds or a stored split, or measure generated crystals: n and 95 % interval each."""
    import json

    if data is None:
        from onnes.cli.evaluate_crystals import run as run_crystals

        run_crystals(
            model,
            reference=reference,
            relaxed=relaxed,
            truth=truth,
            stability=stability,
            stable_below=stable_below,
            symprec=symprec,
            seed=seed,
            out=out,
            as_json=as_json,
        )
        return
    from onnes.errors import InputError, SettingsError
    from onnes.learn.evaluate import Options, labelled
    from onnes.learn.evaluate import evaluate as run
    from onnes.learn.evaluation_files import to_dict, write
    from onnes.learn.plan import folds_plan, named_plan, whole_plan
    from onnes.theory.tc import formula_named

    formula_named(formula)
    if not 0.0 <= mu_star < 1.0:
        raise InputError("bad-mu-star", f"mu* {mu_star} is not allowed; use a number in [0, 1)")
    if not 0.0 < level < 1.0:
        raise SettingsError("bad-level", f"level {level} is not allowed; use a number between 0 and 1")
    if split is not None and (folds is not None or repeats != 1):
        raise SettingsError("conflicting-options", "--split has one split: leave out --folds and --repeats")
    trained = _trained(model)
    if trained is None and task is not None:
        raise SettingsError("conflicting-options", "--task is for a folder of onnes train; use --target")
    fixed = trained is not None or model.endswith(".csv")
    if fixed and (folds is not None or repeats != 1):
        raise SettingsError(
            "conflicting-options", f"{model} is not trained here: leave out --folds and --repeats"
        )
    records, notes = _read(data, where, [target or "lambda"] if trained is None else trained.labels)
    records, target = _of_run(trained, records, notes, task, target, curves, unit, mu_star, formula)
    if trained is not None and target is not None:
        notes += trained.remarks(target)
        threshold = trained.threshold(target) if threshold is None else threshold
    target = target or "lambda"
    count = len(records)
    records = labelled(records, target)
    if len(records) < count:
        notes.append(f"{count - len(records)} rows carry no {target} and were left out")
    plan = (
        named_plan(records, split)
        if split is not None
        else whole_plan(records, group_by)
        if fixed
        else folds_plan(records, 5 if folds is None else folds, repeats, seed, group_by)
    )
    plan.notes[:0] = notes
    options = Options(
        target=target,
        threshold=threshold,
        level=level,
        seed=seed,
        by=by,
        mu_star=mu_star,
        formula=formula,
        by_range=by_range,
        learning_curve=curve and out is not None,
        unseen_only=unseen_only,
    )
    found = run(model if trained is None else trained, records, plan, options)
    if as_json:
        typer.echo(json.dumps(to_dict(found), indent=1, allow_nan=False))
    else:
        _print(found, data)
    if out is not None:
        for path in write(found, out):
            typer.echo(f"onnes: wrote {path}", err=True)


def _of_run(
    run: TrainedRun | SpectralRun | None,
    records: list[Record],
    notes: list[str],
    task: str | None,
    target: str | None,
    curves: Path | None,
    unit: str | None,
    mu_star: float,
    formula: str,
) -> tuple[list[Record], str | None]:
    """Records with the labels of their curves where the run predicts curves, and the label to score."""
    from onnes.errors import SettingsError
    from onnes.learn.spectrum_data import curve_files
    from onnes.learn.spectrum_score import SpectralRun
    from onnes.learn.trained import chosen_label

    if isinstance(run, SpectralRun):
        records, said = run.labelled(records, curve_files(curves), unit, mu_star=mu_star, formula=formula)
        notes += said
        return records, run.chosen(task, target, records)
    if curves is not None or unit is not None:
        raise SettingsError("conflicting-options", "--curves is for a folder of onnes train spectrum")
    return records, target if run is None else chosen_label(run, task, target, records)


def _trained(model: str) -> TrainedRun | SpectralRun | None:
    """The run that a path names; None for a name of a model."""
    from functools import partial

    from onnes.learn.baselines import BASELINES
    from onnes.learn.evaluate import SHIPPED, SPECTRAL

    if (
        model in (SHIPPED, SPECTRAL)
        or model in BASELINES
        or not Path(model).exists()
        or model.endswith(".csv")
    ):
        return None
    from onnes.learn.spectrum_score import SpectralRun, is_spectral
    from onnes.learn.trained import TrainedRun
    from onnes.spectra import vibrations

    if is_spectral(model):
        return SpectralRun(model, lambda phonons: partial(vibrations, phonons=phonons))
    return TrainedRun(model)


def _read(path: Path, where: list[str], labels: list[str]) -> tuple[list[Record], list[str]]:
    """Records that pass every condition, and what was left out."""
    import warnings

    from onnes.data.records import read_records
    from onnes.errors import DataError, SettingsError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bad rows are told in the notes
        records = read_records(path, extra_labels=labels)
    notes = [f"{len(records.bad)} bad rows left out; first: {records.bad[0]}"] if records.bad else []
    kept = list(records)
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise SettingsError("bad-condition", f"--where {condition!r}: FIELD=VALUE is needed")
        before = len(kept)
        kept = [r for r in kept if str(_field(r, name)).lower() == value.lower()]
        if not kept:
            raise DataError("no-rows", f"no row has {condition}")
        notes.append(f"{condition}: {len(kept)} of {before} rows")
    return kept, notes


def _field(record: Record, name: str) -> Any:
    return record.source if name == "source" else record.meta.get(name, record.labels.get(name))


def _print(found: Evaluation, data: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    # Wide enough for every line: a table cut at the edge of a narrow terminal or pipe would hide figures.
    console = Console(highlight=False, width=120)
    unit = f" ({found.unit})" if found.unit else ""
    console.print(f"{found.words}: {found.target}{unit}", markup=False)
    console.print(
        f"{data.name} (hash {found.data_hash}); {found.split}", markup=False, soft_wrap=True, style="dim"
    )
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in ("rows", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("n", "missing", "value", "95 % CI", "constant"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in found.lines:
        s = line.score
        table.add_row(
            line.rows,
            s.name,
            str(s.n),
            str(s.missing),
            _number(s.value),
            f"{_number(s.low)} to {_number(s.high)}",
            _number(line.constant),
        )
    console.print(table)
    console.print(
        "constant: median of the training rows (average precision: random order); "
        "gain: MAE of that median minus MAE of the model",
        style="dim",
    )
    # Only rows that the model knows, or may know, need a word; the lines of the table have theirs.
    head = f"{found.headline}: " if found.headline else ""
    if found.curve is not None:
        c = found.curve
        precision, recall = c.at_cut(c.threshold)
        console.print(
            f"{head}predicted above {c.threshold:g}{' ' + found.unit if found.unit else ''}: "
            f"precision {_number(precision)}, recall {_number(recall)}, "
            f"n {c.n}, {c.positives} positive; first repeat"
        )
    for words, parts in (("prediction", found.coverage), ("truth", found.coverage_by_truth)):
        text = "; ".join(
            f"{'all' if (p.low, p.high) == (float('-inf'), float('inf')) else f'{p.low:g} to {p.high:g}'} "
            f"{_number(p.share)} (n {p.n})"
            for p in parts
        )
        if text:
            level = f"{head}{100 * found.options.level:g} % intervals hold the truth, by {words}: "
            console.print(level + text, soft_wrap=True)
    for point in found.learning:
        s = point["score"]
        console.print(
            f"trained on {point['n_train']:.0f} rows: MAE {_number(s.value)} "
            f"({_number(s.low)} to {_number(s.high)}), n {s.n}"
        )


def _number(x: float) -> str:
    return "-" if x != x else f"{x:.4g}"

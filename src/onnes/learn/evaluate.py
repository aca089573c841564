"""Score a baseline or the shipped model on labelled crystals, with what is needed to believe the figure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.data.labels import LABELS
from onnes.data.records import Record
from onnes.errors import DataError, ModelError, SettingsError
from onnes.learn import marks, metrics, retrieval
from onnes.learn.baselines import BASELINES, PLAIN, Baseline, baseline, fit_predict, space_of
from onnes.learn.calibrate import cross_intervals, enough, fit
from onnes.learn.descriptors import describe
from onnes.learn.given import read_given
from onnes.learn.lines import Line, Predicted, lines_of, ranges_of, rows_of
from onnes.learn.metrics import ElementError
from onnes.learn.plan import Plan, Turn
from onnes.learn.retrieval import Coverage, Curve

if TYPE_CHECKING:
    from onnes.learn.spectrum_score import SpectralRun
    from onnes.learn.trained import TrainedRun

FloatArray = NDArray[np.float64]

SHIPPED = "shipped"
#: Moments of the shipped spectral networks.
SPECTRAL = "shipped-spectrum"
#: Critical temperature above which a crystal counts as found, K.
TC_THRESHOLD_K = 5.0
#: Shares of the training groups of the learning curve.
FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True)
class Options:
    """What to score and how.

    Attributes
    ----------
    target : str
        Label name.
    threshold : float or None
        For precision and recall; by default 5 K for temperatures and none otherwise.
    level : float
        Of prediction intervals.
    seed, draws : int
        Of models and of the bootstrap.
    by : str
        Field of the records whose values get table lines of their own; empty for none.
    mu_star, formula
        For Tc of the shipped model.
    by_range : bool
        Calibrate the intervals of baselines on folds for each range of the prediction (Mondrian).
    learning_curve : bool
        For baselines on folds.
    unseen_only : bool
        Leave out the rows whose formula (or database) the model was trained on.
    """

    target: str = "lambda"
    threshold: float | None = None
    level: float = 0.9
    seed: int = 0
    draws: int = 1000
    by: str = ""
    mu_star: float = 0.10
    formula: str = "allen-dynes"
    by_range: bool = False
    learning_curve: bool = False
    unseen_only: bool = False

    @property
    def cut(self) -> float | None:
        """Threshold in force."""
        if self.threshold is None and self.target.startswith("Tc"):
            return TC_THRESHOLD_K
        return self.threshold


@dataclass(frozen=True)
class Evaluation:
    """Everything found; see the attributes.

    Attributes
    ----------
    model, words, target, unit, split, data_hash : str
    options : Options
    lines : list of Line
    rows : list of dict
        One per scored row and repeat: id, formula, repeat, fold, truth, predicted, low, high,
        median, and what the model knows of the row.
    curve : Curve or None
        Of the first repeat.
    elements : list of ElementError
        Of the first repeat.
    coverage, coverage_by_truth : list of Coverage
        Of the intervals of the first repeat, by ranges of the prediction and of the truth; empty without
        intervals.
    learning : list of dict
        ``fraction``, ``n_train`` (mean over folds), ``score``.
    notes : list of str
        What a reader must know.
    headline : str
        Which rows the first figures, the curve, the elements and the coverage are of
        (`onnes.learn.marks.headline`); empty where all rows test the model.
    """

    model: str
    words: str
    target: str
    unit: str
    split: str
    data_hash: str
    options: Options
    lines: list[Line]
    rows: list[dict[str, Any]]
    curve: Curve | None
    elements: list[ElementError]
    coverage: list[Coverage]
    coverage_by_truth: list[Coverage]
    learning: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    headline: str = ""


def labelled(records: Sequence[Record], target: str) -> list[Record]:
    """Records that carry a label.

    Raises
    ------
    DataError
        ``no-label``: none does.
    """
    kept = [record for record in records if target in record.labels]
    if not kept:
        known = sorted({name for record in records for name in record.labels})
        what = "is no known label" if target not in LABELS else "is on no record"
        raise DataError("no-label", f"{target!r} {what}; the records carry: {', '.join(known) or 'none'}")
    return kept


def data_hash(records: Sequence[Record], target: str) -> str:
    """Hash of crystals and labels, independent of the other fields."""
    digest = hashlib.sha256()
    for r in records:
        digest.update(repr((r.id, r.lattice, r.species, r.frac, r.labels[target])).encode())
    return digest.hexdigest()[:16]


def evaluate(
    model: str | TrainedRun | SpectralRun, records: Sequence[Record], plan: Plan, options: Options
) -> Evaluation:
    """Score a model.

    Parameters
    ----------
    model : str, TrainedRun or SpectralRun
        ``shipped``, ``shipped-spectrum``, a name of `onnes.learn.baselines.BASELINES`, a csv of predictions
        (`onnes.learn.given`), or a checkpoint of ``onnes train``.
    records : sequence of Record
        All carry the target (`labelled`).
    plan : Plan
        From `onnes.learn.plan`. For models that are not trained here it only says what is scored and, for
        ``shipped``, what the median is of.
    options : Options

    Returns
    -------
    Evaluation

    Raises
    ------
    ModelError
        ``unknown-model``, ``unknown-target``, ``missing-extra``.
    SettingsError
        ``bad-repeats``, ``bad-level``.
    DataError
        ``all-seen`` with `Options.unseen_only`; see `onnes.learn.metrics`.
    """
    notes = list(plan.notes)
    x: FloatArray | None = None
    if not isinstance(model, str):
        from onnes.learn.trained import TrainedRun

        truth = model.truth(records, options.target)
        if isinstance(model, TrainedRun):
            found, words = _trained(model, records, truth, plan, options, notes)
        else:
            found, words = _spectral(model, records, truth, plan, options, notes)
    else:
        truth = np.array([record.labels[options.target] for record in records])
        if model in (SHIPPED, SPECTRAL):
            found, words = _shipped(records, truth, plan, options, notes, spectral=model == SPECTRAL)
        elif model.endswith(".csv"):
            found, words = _given(model, records, truth, plan, options, notes)
        else:
            chosen = baseline(model) if model in BASELINES else _unknown(model)
            x = describe(records, chosen.descriptors) if chosen.descriptors else np.zeros((len(records), 0))
            found, words = _baseline(chosen, x, truth, plan, options), chosen.words
    notes += _warnings(records, options.target)
    if options.unseen_only:
        plan = marks.without_seen(plan, found.mark)
    learning = []
    if options.learning_curve and x is not None and model != "median" and len(plan.turns) > 1:
        learning = learning_curve(baseline(str(model)), x, truth, plan, options)
    name = model if isinstance(model, str) else f"{model.path.parent.name}/{model.path.name}"
    return collect(name, words, records, truth, found, plan, options, notes, learning)


def collect(
    model: str,
    words: str,
    records: Sequence[Record],
    truth: FloatArray,
    found: Predicted,
    plan: Plan,
    options: Options,
    notes: list[str],
    learning: list[dict[str, Any]],
) -> Evaluation:
    """Every figure of predictions in hand; see `evaluate`, which makes them."""
    head, rows = marks.headline(found.mark, plan.scored)
    t, first, low, high = truth[rows], found.value[0, rows], found.low[0, rows], found.high[0, rows]
    edges = ranges_of(options.target)
    covered = np.isfinite(low).any()
    return Evaluation(
        model,
        words,
        options.target,
        LABELS[options.target].unit if options.target in LABELS else "",
        plan.text,
        data_hash(records, options.target),
        options,
        lines_of(records, truth, found, plan, options),
        rows_of(records, truth, found, plan),
        None if options.cut is None else retrieval.precision_recall(t, first, options.cut),
        metrics.per_element(t, first, [records[int(i)].species for i in rows]),
        retrieval.coverage(t, low, high, edges=edges, by=first) if covered else [],
        retrieval.coverage(t, low, high, edges=edges) if covered else [],
        learning,
        notes,
        head,
    )


def _unknown(model: str) -> Baseline:
    names = ", ".join([SHIPPED, SPECTRAL, *BASELINES])
    raise ModelError("unknown-model", f"unknown model {model!r}; use one of {names}, or a path (onnes train)")


def _fill_medians(found: Predicted, truth: FloatArray, plan: Plan) -> None:
    for turn in plan.turns:
        train = turn.train if len(turn.train) else turn.test
        found.median[turn.repeat, turn.test] = np.median(truth[train])
        found.fold[turn.repeat, turn.test] = turn.fold


def _baseline(model: Baseline, x: FloatArray, truth: FloatArray, plan: Plan, options: Options) -> Predicted:
    """Train and predict every turn; intervals from residuals of rows the interval is not for."""
    found = Predicted.empty(plan.repeats, len(truth))
    _fill_medians(found, truth, plan)
    # The median of a transformed target, back, is the median: it needs no space, and rounding stays out.
    space = PLAIN if model.name == "median" else space_of(options.target)
    for turn in plan.turns:
        seed = options.seed + 1000 * turn.repeat + turn.fold
        asked = np.concatenate([turn.val, turn.test])
        out = fit_predict(model, x, truth, turn.train, asked, space=space, seed=seed)
        found.value[turn.repeat, turn.test] = out[len(turn.val) :]
        if len(turn.val) and np.isfinite(out[: len(turn.val)]).any():
            calibrated = fit(
                truth[turn.val],
                out[: len(turn.val)],
                plan.group[turn.val],
                level=options.level,
                space=space_of(options.target),
            )
            bounds = calibrated.interval(found.value[turn.repeat, turn.test])
            found.low[turn.repeat, turn.test], found.high[turn.repeat, turn.test] = bounds
    if len(plan.turns) > 1:
        inner = [edge for edge in ranges_of(options.target)[1:-1] if options.by_range]
        for r in range(plan.repeats):
            found.low[r], found.high[r] = cross_intervals(
                truth,
                found.value[r],
                plan.group,
                seed=options.seed,
                level=options.level,
                space=space_of(options.target),
                edges=enough(found.value[r], plan.group, inner),
            )
    return found


def _shipped(
    records: Sequence[Record],
    truth: FloatArray,
    plan: Plan,
    options: Options,
    notes: list[str],
    *,
    spectral: bool,
) -> tuple[Predicted, str]:
    from onnes.learn.shipped import predict_column

    if plan.repeats > 1:
        raise SettingsError("bad-repeats", "the shipped model is not trained here: repeats would be copies")
    found = Predicted.empty(1, len(truth))
    _fill_medians(found, truth, plan)
    scored = plan.scored
    asked = [records[int(i)] for i in scored]
    columns = predict_column(
        asked, options.target, mu_star=options.mu_star, formula=options.formula, spectral=spectral
    )
    found.value[0, scored], found.low[0, scored], found.high[0, scored] = (
        columns.value,
        columns.low,
        columns.high,
    )
    found.put_marks(scored, columns.marks)
    notes += columns.notes
    if options.target.startswith("Tc"):
        notes.append(f"predicted Tc by {options.formula} at mu* = {options.mu_star:g}")
    return found, "the shipped spectral networks" if spectral else "the shipped predictor"


def _given(
    path: str,
    records: Sequence[Record],
    truth: FloatArray,
    plan: Plan,
    options: Options,
    notes: list[str],
) -> tuple[Predicted, str]:
    """Predictions of a csv; the constant is the median of the scored rows unless there is a stored split."""
    found = Predicted.empty(1, len(truth))
    _fill_medians(found, truth, plan)
    found.value[0] = read_given(path, records, options.target)
    notes.append(
        f"predictions from {Path(path).name}: whether its model knew these crystals is not known here"
    )
    if not len(plan.turns[0].train):
        notes.append("constant: median of the scored rows")
    return found, f"predictions of {Path(path).name}"


def _trained(
    run: TrainedRun,
    records: Sequence[Record],
    truth: FloatArray,
    plan: Plan,
    options: Options,
    notes: list[str],
) -> tuple[Predicted, str]:
    """A run of ``onnes train``; the constant is the median of its training labels where it states one."""
    found, asked = _of_run(run, records, truth, plan, options, notes)
    found.value[0, plan.scored], said = run.predict(
        asked, options.target, mu_star=options.mu_star, formula=options.formula
    )
    notes += [*marks.notes(found.mark, plan.scored), *said]
    model = run.checkpoint.settings["model"]
    return found, f"{model} trained for {run.task} (checkpoint {run.checkpoint.hash})"


def _spectral(
    run: SpectralRun,
    records: Sequence[Record],
    truth: FloatArray,
    plan: Plan,
    options: Options,
    notes: list[str],
) -> tuple[Predicted, str]:
    """A run of ``onnes train spectrum``, each crystal out of bag."""
    found, asked = _of_run(run, records, truth, plan, options, notes)
    got = run.score(asked, options.target, mu_star=options.mu_star, formula=options.formula)
    scored = plan.scored
    found.value[0, scored], found.low[0, scored], found.high[0, scored] = got.value, got.low, got.high
    notes += [*marks.notes(found.mark, scored), *got.notes]
    return found, run.words


def _of_run(
    run: TrainedRun | SpectralRun,
    records: Sequence[Record],
    truth: FloatArray,
    plan: Plan,
    options: Options,
    notes: list[str],
) -> tuple[Predicted, list[Record]]:
    """Constant and marks of a run of ours, and the rows to ask it for."""
    if plan.repeats > 1:
        raise SettingsError("bad-repeats", "a trained network is not trained again: repeats would be copies")
    found = Predicted.empty(1, len(truth))
    _fill_medians(found, truth, plan)
    if np.isfinite(run.median(options.target)):
        found.median[0, plan.scored] = run.median(options.target)
    elif not len(plan.turns[0].train):
        notes.append("constant: median of the scored rows, for the run states none of its training rows")
    asked = [records[int(i)] for i in plan.scored]
    found.put_marks(plan.scored, run.marks(asked))
    if options.unseen_only:  # before the costly part
        marks.refuse_seen(found.mark, plan.scored)
    return found, asked


def _warnings(records: Sequence[Record], target: str) -> list[str]:
    """Known traps of the data (data/README.md)."""
    notes = []
    if target.startswith("Tc"):
        stated = sorted({str(r.meta["Tc_formula"]) for r in records if r.meta.get("Tc_formula")})
        notes += [f"the labels state: {', '.join(stated)}"] if stated else []
    unstable = sum(record.meta.get("in_616_set") is False for record in records)
    if unstable and target in ("lambda", "omega_log_K", "omega_2_K", "Tc_K"):
        notes.append(
            f"{unstable} rows are dynamically unstable: their {target} is no physical target "
            "(leave them out with --where in_616_set=true)"
        )
    return notes


def learning_curve(
    model: Baseline, x: FloatArray, truth: FloatArray, plan: Plan, options: Options
) -> list[dict[str, Any]]:
    """Error against the share of training groups, on the folds of every repeat.

    Smaller training sets are contained in larger ones.
    """
    rows = plan.scored
    out = []
    for fraction in FRACTIONS:
        value, sizes = np.full((plan.repeats, len(truth)), np.nan), []
        for turn in plan.turns:
            train = _share(turn, plan, fraction, options.seed)
            sizes.append(len(train))
            value[turn.repeat, turn.test] = fit_predict(
                model,
                x,
                truth,
                train,
                turn.test,
                space=space_of(options.target),
                seed=options.seed + 1000 * turn.repeat + turn.fold,
            )
        score = metrics.bootstrap("mae", truth[rows], value[:, rows], plan.group[rows], draws=options.draws)
        out.append({"fraction": fraction, "n_train": float(np.mean(sizes)), "score": score})
    return out


def _share(turn: Turn, plan: Plan, fraction: float, seed: int) -> NDArray[np.intp]:
    names = np.random.default_rng(seed + 1000 * turn.repeat + turn.fold).permutation(
        np.unique(plan.group[turn.train])
    )
    kept = names[: max(1, round(fraction * len(names)))]
    return turn.train[np.isin(plan.group[turn.train], kept)]

"""Score a baseline or the shipped model on labelled crystals, with what is needed to believe the figure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnes.data.labels import LABELS
from onnes.data.records import Record
from onnes.errors import DataError, SettingsError
from onnes.learn import metrics, retrieval
from onnes.learn.baselines import BASELINES, PLAIN, Baseline, baseline, fit_predict, space_of
from onnes.learn.calibrate import cross_intervals, enough, fit
from onnes.learn.descriptors import describe
from onnes.learn.metrics import ElementError, Score
from onnes.learn.plan import Plan, Turn
from onnes.learn.retrieval import Coverage, Curve

FloatArray = NDArray[np.float64]

SHIPPED = "shipped"
#: Critical temperature above which a crystal counts as found, K.
TC_THRESHOLD_K = 5.0
#: Shares of the training groups of the learning curve.
FRACTIONS = (0.1, 0.2, 0.4, 0.7, 1.0)
_RANGES: dict[str, tuple[float, ...]] = {
    "lambda": (0.0, 0.3, 0.6, 1.2, np.inf),
    "omega_log_K": (0.0, 100.0, 200.0, 300.0, np.inf),
    "Tc": (-np.inf, 1.0, 5.0, 10.0, np.inf),
    "formation_energy_eV_atom": (-np.inf, -2.0, -1.0, 0.0, np.inf),
}


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

    @property
    def cut(self) -> float | None:
        """Threshold in force."""
        if self.threshold is None and self.target.startswith("Tc"):
            return TC_THRESHOLD_K
        return self.threshold


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes
    ----------
    rows : str
        Which rows: ``all``, ``leak-free``, ``set=DS-B``, a range of the truth, ...
    score : Score
        Of the model.
    constant : float
        The same for the median of the training rows; for average precision, a random ranking. NaN for
        Spearman and for ``gain``, the MAE of the median minus the MAE of the model.
    """

    rows: str
    score: Score
    constant: float


@dataclass(frozen=True)
class Evaluation:
    """Everything found; see the attributes.

    Attributes
    ----------
    model, words, target, unit, split, data_hash : str
    options : Options
    lines : list of Line
    rows : list of dict
        One per scored row and repeat: id, formula, repeat, fold, truth, predicted, low, high, median.
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


@dataclass
class _Predicted:
    """Arrays of shape (repeats, n); NaN where a row is not scored."""

    value: FloatArray
    median: FloatArray
    low: FloatArray
    high: FloatArray
    fold: NDArray[np.intp]


def ranges_of(target: str) -> tuple[float, ...]:
    """Edges of the ranges in which errors and coverage are listed; empty where none are known."""
    return _RANGES.get("Tc" if target.startswith("Tc") else target, ())


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


def evaluate(model: str, records: Sequence[Record], plan: Plan, options: Options) -> Evaluation:
    """Score a model.

    Parameters
    ----------
    model : str
        ``shipped`` or a name of `onnes.learn.baselines.BASELINES`.
    records : sequence of Record
        All carry the target (`labelled`).
    plan : Plan
        From `onnes.learn.plan`. For ``shipped`` it only says what is scored and what the median is of.
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
        See `onnes.learn.metrics`.
    """
    truth = np.array([record.labels[options.target] for record in records])
    notes = list(plan.notes)
    x: FloatArray | None = None
    if model == SHIPPED:
        found, words = _shipped(records, truth, plan, options, notes)
    else:
        chosen = baseline(model) if model in BASELINES else _unknown(model)
        x = describe(records, chosen.descriptors) if chosen.descriptors else np.zeros((len(records), 0))
        found, words = _baseline(chosen, x, truth, plan, options), chosen.words
    notes += _warnings(records, options.target)
    scored = plan.scored
    t = truth[scored]
    first, low, high = found.value[0, scored], found.low[0, scored], found.high[0, scored]
    edges = ranges_of(options.target)
    covered = np.isfinite(low).any()
    by_prediction = retrieval.coverage(t, low, high, edges=edges, by=first) if covered else []
    by_truth = retrieval.coverage(t, low, high, edges=edges) if covered else []
    learning = []
    if options.learning_curve and x is not None and model != "median" and len(plan.turns) > 1:
        learning = learning_curve(baseline(model), x, truth, plan, options)
    return Evaluation(
        model,
        words,
        options.target,
        LABELS[options.target].unit if options.target in LABELS else "",
        plan.text,
        data_hash(records, options.target),
        options,
        _lines(records, truth, found, plan, options),
        _rows(records, truth, found, plan),
        None if options.cut is None else retrieval.precision_recall(t, first, options.cut),
        metrics.per_element(t, first, [records[int(i)].species for i in scored]),
        by_prediction,
        by_truth,
        learning,
        notes,
    )


def _unknown(model: str) -> Baseline:
    from onnes.errors import ModelError

    names = ", ".join([SHIPPED, *BASELINES])
    raise ModelError("unknown-model", f"unknown model {model!r}; use one of {names}")


def _empty(plan: Plan, n: int) -> _Predicted:
    shape = (plan.repeats, n)
    blank = [np.full(shape, np.nan) for _ in range(4)]
    return _Predicted(blank[0], blank[1], blank[2], blank[3], np.full(shape, -1, dtype=np.intp))


def _fill_medians(found: _Predicted, truth: FloatArray, plan: Plan) -> None:
    for turn in plan.turns:
        found.median[turn.repeat, turn.test] = np.median(truth[turn.train])
        found.fold[turn.repeat, turn.test] = turn.fold


def _baseline(model: Baseline, x: FloatArray, truth: FloatArray, plan: Plan, options: Options) -> _Predicted:
    """Train and predict every turn; intervals from residuals of rows the interval is not for."""
    found = _empty(plan, len(truth))
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
    records: Sequence[Record], truth: FloatArray, plan: Plan, options: Options, notes: list[str]
) -> tuple[_Predicted, str]:
    from onnes.learn.shipped import honesty, predict_column

    if plan.repeats > 1:
        raise SettingsError("bad-repeats", "the shipped model is not trained here: repeats would be copies")
    found = _empty(plan, len(truth))
    _fill_medians(found, truth, plan)
    scored = plan.scored
    asked = [records[int(i)] for i in scored]
    columns = predict_column(asked, options.target, mu_star=options.mu_star, formula=options.formula)
    found.value[0, scored], found.low[0, scored], found.high[0, scored] = columns
    notes += honesty(asked, options.target)[1]
    if options.target.startswith("Tc"):
        notes.append(f"predicted Tc by {options.formula} at mu* = {options.mu_star:g}")
    return found, "the shipped predictor"


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


def _subsets(
    records: Sequence[Record], truth: FloatArray, plan: Plan, options: Options
) -> list[tuple[str, NDArray[np.intp], bool]]:
    """Name, rows, and whether every metric (or the MAE alone) is wanted."""
    scored = plan.scored
    named = "as published" if len(plan.turns) == 1 else "all"
    out: list[tuple[str, NDArray[np.intp], bool]] = [(named, scored, True)]
    if len(plan.turns) == 1:
        out.append(("leak-free", np.setdiff1d(scored, plan.leaked), True))
    if options.by:
        values = np.array([str(records[int(i)].meta.get(options.by, "")) for i in scored])
        if not (values != "").any():
            raise DataError("unknown-field", f"no record has a field {options.by!r}")
        out += [(f"{options.by}={v or 'none'}", scored[values == v], True) for v in sorted(set(values))]
    edges = ranges_of(options.target)
    for a, b in pairwise(edges):
        inside = scored[(truth[scored] >= a) & (truth[scored] < b)]
        out.append((f"truth {a:g} to {b:g}", inside, False))
    return [entry for entry in out if len(entry[1])]


def _lines(
    records: Sequence[Record], truth: FloatArray, found: _Predicted, plan: Plan, options: Options
) -> list[Line]:
    lines = []
    for name, rows, every in _subsets(records, truth, plan, options):
        t, p, m, group = truth[rows], found.value[:, rows], found.median[:, rows], plan.group[rows]
        for metric in ("mae", "rmse", "r2", "spearman") if every else ("mae",):
            score = metrics.bootstrap(metric, t, p, group, draws=options.draws, seed=options.seed)
            # A constant ranks nothing; fold medians differ by chance and would only pretend to.
            constant = np.nan
            if metric != "spearman":
                constant = float(np.mean([metrics.score(metric, t, row).value for row in m]))
            lines.append(Line(name, score, constant))
        if not every:
            continue
        # A mean of differences of errors: its interval is that of a paired comparison.
        difference = np.abs(m - t) - np.abs(p - t)
        gain = metrics.bootstrap("bias", np.zeros(len(t)), difference, group, draws=options.draws)
        lines.append(Line(name, replace(gain, name="gain"), np.nan))
        if options.cut is not None:
            ap = retrieval.average_precision(t, p, group, options.cut, draws=options.draws, seed=options.seed)
            lines.append(Line(name, ap, float(np.mean(t > options.cut))))
    return lines


def _rows(
    records: Sequence[Record], truth: FloatArray, found: _Predicted, plan: Plan
) -> list[dict[str, Any]]:
    leaked = set(plan.leaked.tolist())
    return [
        {
            "id": records[int(i)].id,
            "formula": records[int(i)].formula,
            "group": int(plan.group[i]),
            "repeat": r,
            "fold": int(found.fold[r, i]),
            "truth": float(truth[i]),
            "predicted": float(found.value[r, i]),
            "low": float(found.low[r, i]),
            "high": float(found.high[r, i]),
            "median": float(found.median[r, i]),
            "leaked": int(i) in leaked,
        }
        for r in range(plan.repeats)
        for i in plan.scored
    ]


def learning_curve(
    model: Baseline, x: FloatArray, truth: FloatArray, plan: Plan, options: Options
) -> list[dict[str, Any]]:
    """Error against the share of training groups, on the folds of the first repeat.

    Smaller training sets are contained in larger ones.
    """
    turns = [turn for turn in plan.turns if turn.repeat == 0]
    rows = np.concatenate([turn.test for turn in turns])
    out = []
    for fraction in FRACTIONS:
        value, sizes = np.full(len(truth), np.nan), []
        for turn in turns:
            train = _share(turn, plan, fraction, options.seed)
            sizes.append(len(train))
            value[turn.test] = fit_predict(
                model,
                x,
                truth,
                train,
                turn.test,
                space=space_of(options.target),
                seed=options.seed + turn.fold,
            )
        score = metrics.bootstrap("mae", truth[rows], value[rows], plan.group[rows], draws=options.draws)
        out.append({"fraction": fraction, "n_train": float(np.mean(sizes)), "score": score})
    return out


def _share(turn: Turn, plan: Plan, fraction: float, seed: int) -> NDArray[np.intp]:
    names = np.random.default_rng(seed + turn.fold).permutation(np.unique(plan.group[turn.train]))
    kept = names[: max(1, round(fraction * len(names)))]
    return turn.train[np.isin(plan.group[turn.train], kept)]

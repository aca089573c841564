"""What labels teach the predictor: a Gaussian process on its errors.

The shipped predictors have seen thousands of crystals; a campaign adds tens of labels, which are too few to train them
again without forgetting and enough to see where they err. The error of the score, log10(Tc + 0.3 K), is a Gaussian
process (Rasmussen and Williams, *Gaussian Processes for Machine Learning*, 2006, chapters 2 and 5) with three parts: an
offset, a slope in the predicted score (what was chosen for its high prediction is mostly too high; not continued beyond
the labels), and a smooth function of the descriptors of `onnes.learn.descriptors.invariant_of`. The rest is noise, more
where the shipped predictor is less sure. Whether it is used at all is decided by cross-validation over formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from onnes.campaign.active import LEAST_STD, interval_of, normal_of
from onnes.campaign.funnel import Item, Outcome

if TYPE_CHECKING:
    from onnes.learn.store import Checkpoint

Floats = NDArray[np.float64]

KIND = "tc-correction"
#: Formulas with a label below which nothing can be said about the predictor.
LEAST_FORMULAS = 5
#: Folds of the cross-validation at most.
FOLDS = 10
#: Least width of the range of predicted scores over which a slope is worth learning.
LEAST_WIDTH = 0.2
#: Between these the spread is scaled by what cross-validation finds.
SCALES = (0.5, 3.0)
#: Kernel parameters tried: variances in units of the mean square error, lengths in units of the median distance.
_GRID = {
    "offset": (0.0, 1.0),
    "slope": (0.0, 0.5),
    "local": (0.0, 0.5, 1.0),
    "length": (0.25, 0.5, 1.0),
    "noise": (0.03, 0.1, 0.3, 1.0),
}


@dataclass(frozen=True)
class Learnt:
    """Crystals with their labels and what the shipped predictor had said.

    Attributes
    ----------
    x : ndarray, shape (n, d)
        Descriptors.
    mean, std : ndarray, shape (n,)
        Of the predicted score.
    truth : ndarray, shape (n,)
        Score of the label.
    weight : ndarray, shape (n,)
        Trust in the label: its noise variance is divided by it.
    formula : tuple of str
        Rows of one formula are never on both sides of a cut.
    """

    x: Floats
    mean: Floats
    std: Floats
    truth: Floats
    weight: Floats
    formula: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.truth)

    def rows(self, index: Any) -> Learnt:
        """Some of the rows."""
        chosen = np.asarray(index)
        parts = {k: getattr(self, k)[chosen] for k in ("x", "mean", "std", "truth", "weight")}
        return Learnt(**parts, formula=tuple(self.formula[i] for i in chosen.tolist()))


@dataclass(frozen=True)
class Kernel:
    """Variances of the parts, length of the smooth one, and noise."""

    offset: float
    slope: float
    local: float
    length: float
    noise: float

    def matrix(self, p: Floats, x: Floats, q: Floats, y: Floats) -> Floats:
        """Covariance (n, m) of errors at predicted scores p, q and scaled descriptors x, y."""
        square = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2.0 * x @ y.T
        near = np.exp(-0.5 * np.maximum(square, 0.0) / self.length**2)
        out: Floats = self.offset + self.slope * p[:, None] * q[None, :] + self.local * near
        return out

    def variance(self, p: Floats) -> Floats:
        """Prior variance at each point, shape (n,)."""
        out: Floats = self.offset + self.slope * p**2 + self.local
        return out


class Process:
    """A Gaussian process conditioned on labels.

    Parameters
    ----------
    rows : Learnt
    kernel : Kernel
    center, spread : ndarray, shape (d,)
        Standardisation of the descriptors; a spread of 0 leaves a column out.
    level, width : float
        Standardisation of the predicted scores.
    """

    def __init__(
        self, rows: Learnt, kernel: Kernel, center: Floats, spread: Floats, level: float, width: float
    ) -> None:
        self.rows, self.kernel = rows, kernel
        self.center, self.spread, self.level, self.width = center, spread, level, width
        self.p, self.x = self._scaled(rows.mean, rows.x)
        self.error = rows.truth - rows.mean
        self.unit = float(np.mean(rows.std**2))
        noise = kernel.noise * rows.std**2 / self.unit / rows.weight
        noisy = kernel.matrix(self.p, self.x, self.p, self.x) + np.diag(noise)
        self.factor = cho_factor(noisy + 1e-9 * kernel.noise * np.eye(len(rows)), lower=True)
        self.alpha = cho_solve(self.factor, self.error)

    def _scaled(self, mean: Floats, x: Floats) -> tuple[Floats, Floats]:
        used = self.spread > 0
        # A slope between the predictions that were labelled says nothing about those beyond them.
        within = np.clip(mean, self.rows.mean.min(), self.rows.mean.max())
        return (within - self.level) / self.width, (x[:, used] - self.center[used]) / self.spread[used]

    @property
    def evidence(self) -> float:
        """Log marginal likelihood of the labels, up to a constant."""
        half = float(np.log(np.diag(self.factor[0])).sum())
        return -0.5 * float(self.error @ self.alpha) - half

    def corrected(self, mean: Floats, std: Floats, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the score after correction, noise of one label included.

        Parameters
        ----------
        mean, std : ndarray, shape (n,)
            Of the shipped predictor.
        x : ndarray, shape (n, d)
        """
        p, scaled = self._scaled(mean, x)
        cross = self.kernel.matrix(p, scaled, self.p, self.x)
        shift = cross @ self.alpha
        seen = solve_triangular(self.factor[0], cross.T, lower=True)
        known = np.maximum(self.kernel.variance(p) - (seen**2).sum(0), 0.0)
        return mean + shift, np.sqrt(known + self.kernel.noise * std**2 / self.unit)


def condition(rows: Learnt) -> Process:
    """The process whose kernel makes the labels most likely."""
    center, spread = rows.x.mean(0), rows.x.std(0)
    spread = np.where(spread > 1e-9, spread, 0.0)
    level, width = float(rows.mean.mean()), max(float(rows.mean.std()), LEAST_WIDTH)
    size = max(float(np.mean((rows.truth - rows.mean) ** 2)), LEAST_STD**2)
    median = _median_distance((rows.x - center)[:, spread > 0] / spread[spread > 0])
    best: Process | None = None
    for values in product(*_GRID.values()):
        offset, slope, local, length, noise = values
        kernel = Kernel(offset * size, slope * size, local * size, length * median, noise * size)
        if local == 0.0 and length != _GRID["length"][0]:
            continue  # the length of a part that is not there
        found = Process(rows, kernel, center, spread, level, width)
        if best is None or found.evidence > best.evidence + 1e-9:
            best = found
    assert best is not None
    return best


def _median_distance(x: Floats) -> float:
    square = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1) if x.shape[1] else np.zeros((len(x), len(x)))
    upper = np.sqrt(square[np.triu_indices(len(x), 1)])
    return max(float(np.median(upper)), 1e-3) if len(upper) else 1.0


@dataclass(frozen=True)
class Judged:
    """What cross-validation over formulas says of a correction.

    Attributes
    ----------
    n, formulas : int
        Labels and formulas.
    mae_shipped, mae_corrected : float
        Mean absolute error of log10(Tc + 0.3 K), each label predicted from other formulas.
    gain, gain_se : float
        Mean over formulas of the error that is saved, and its standard error.
    scale : float
        By which the spread is multiplied.
    coverage90 : float
        Share of labels in their 90 % interval, the scale applied (one number fitted to the same labels).
    used : bool
        Whether the gain exceeds its standard error.
    """

    n: int
    formulas: int
    mae_shipped: float
    mae_corrected: float
    gain: float
    gain_se: float
    scale: float
    coverage90: float
    used: bool


def judge(rows: Learnt, seed: int = 0) -> Judged | None:
    """Cross-validate a correction; None with fewer than `LEAST_FORMULAS` formulas.

    Every fold chooses its own kernel, so that the choice is judged, too.
    """
    from onnes.data.splits import kfold

    names, group = np.unique(np.array(rows.formula), return_inverse=True)
    if len(names) < LEAST_FORMULAS:
        return None
    mean, std = np.empty(len(rows)), np.empty(len(rows))
    for fold in kfold(group, min(FOLDS, len(names)), seed):
        inside = rows.rows(fold.test)
        found = condition(rows.rows(fold.train))
        mean[fold.test], std[fold.test] = found.corrected(inside.mean, inside.std, inside.x)
    shipped, corrected = np.abs(rows.truth - rows.mean), np.abs(rows.truth - mean)
    saved = np.array([(shipped - corrected)[group == g].mean() for g in range(len(names))])
    error = float(saved.std(ddof=1) / np.sqrt(len(saved)))
    scale = float(np.clip(np.sqrt(np.mean(((rows.truth - mean) / std) ** 2)), *SCALES))
    inside90 = np.abs(rows.truth - mean) <= 1.6448536 * scale * std
    return Judged(
        len(rows),
        len(names),
        float(shipped.mean()),
        float(corrected.mean()),
        float(saved.mean()),
        error,
        scale,
        float(inside90.mean()),
        bool(saved.mean() > error),
    )


@dataclass(frozen=True)
class Correction:
    """A conditioned process with its calibration, as it is stored and applied.

    Attributes
    ----------
    process : Process
    scale : float
    """

    process: Process
    scale: float

    def checkpoint(self, card: dict[str, Any]) -> Checkpoint:
        """As a file of kind ``tc-correction``."""
        import torch

        from onnes.learn.store import Checkpoint

        p, rows = self.process, self.process.rows
        arrays = {k: getattr(rows, k) for k in ("x", "mean", "std", "truth", "weight")}
        arrays |= {"center": p.center, "spread": p.spread}
        settings = {
            "kernel": asdict(p.kernel),
            "level": p.level,
            "width": p.width,
            "scale": self.scale,
            "formula": list(rows.formula),
        }
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
        return Checkpoint(KIND, settings, card, tensors)

    @classmethod
    def load(cls, path: str | Path) -> Correction:
        """Read a file.

        Raises
        ------
        ModelError
            ``no-model``, ``damaged-model``, ``wrong-model``.
        """
        from onnes.learn.store import Checkpoint

        stored = Checkpoint.load(path, KIND)
        s, a = stored.settings, {k: v.numpy() for k, v in stored.tensors.items()}
        rows = Learnt(a["x"], a["mean"], a["std"], a["truth"], a["weight"], tuple(s["formula"]))
        process = Process(rows, Kernel(**s["kernel"]), a["center"], a["spread"], s["level"], s["width"])
        return cls(process, s["scale"])

    def apply(self, mean: Floats, std: Floats, x: Floats) -> tuple[Floats, Floats]:
        """Corrected mean and standard deviation of the score, each (n,)."""
        m, s = self.process.corrected(mean, std, x)
        return m, np.maximum(self.scale * s, LEAST_STD)


def learn(rows: Learnt, path: Path, shipped: str, seed: int = 0) -> dict[str, Any]:
    """Fit a correction and keep it where cross-validation finds that it helps.

    Parameters
    ----------
    rows : Learnt
    path : Path
        Of the checkpoint; written only when the correction is used.
    shipped : str
        Hash of the predictor it corrects, for the card.
    seed : int

    Returns
    -------
    dict
        `Judged` with ``hash`` (empty where it is not used) and ``why`` where there was too little to judge.
    """
    found = judge(rows, seed) if len(rows) else None
    if found is None:
        few = len(set(rows.formula))
        return {
            "used": False,
            "hash": "",
            "n": len(rows),
            "why": f"labels of {few} formulas; {LEAST_FORMULAS} are needed",
        }
    said = {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(found).items()}
    if not found.used:
        return {**said, "hash": "", "why": "the error in cross-validation is not lower by a standard error"}
    stored = Correction(condition(rows), found.scale).checkpoint(
        {"corrects": shipped, "cross_validation": said}
    )
    stored.save(path)
    return {**said, "hash": stored.hash, "why": ""}


def descriptors(structures: Sequence[Any]) -> Floats:
    """Rows of `onnes.learn.descriptors.invariant_of`, NaN where a crystal cannot be described."""
    from onnes.errors import DataError
    from onnes.learn.descriptors import invariant_of

    rows: list[Floats | None] = []
    for structure in structures:
        try:
            rows.append(invariant_of(structure))
        except DataError:
            rows.append(None)
    width = max((len(r) for r in rows if r is not None), default=0)
    return np.array([r if r is not None else np.full(width, np.nan) for r in rows]).reshape(len(rows), width)


def predict(items: list[Item], settings: dict[str, Any], path: str) -> list[Outcome]:
    """The predict stage with a correction: Tc and its interval are corrected, lambda and omega_log are not.

    ``tc_shipped_K``, ``tc_shipped_low_K`` and ``tc_shipped_high_K`` keep what the shipped predictor says.
    """
    from onnes.campaign import stages

    outcomes = {o.id: o for o in stages.predict(items, {**settings, "min_tc_K": -1.0})}
    good = [item for item in items if outcomes[item.id].passed]
    x = descriptors([stages.structure_of(item) for item in good])
    correction = Correction.load(path)
    for item, row in zip(good, x, strict=True):
        numbers = outcomes[item.id].numbers
        kept = {f"tc_shipped{k}_K": numbers.get(f"tc{k}_K") for k in ("", "_low", "_high")}
        if np.isfinite(row).all():
            mean, std = normal_of(numbers["tc_K"], numbers.get("tc_low_K"), numbers.get("tc_high_K"))
            m, s = correction.apply(np.array([mean]), np.array([std]), row[None])
            tc, low, high = interval_of(float(m[0]), float(s[0]))
            numbers = {**numbers, "tc_K": tc, "tc_low_K": low, "tc_high_K": high}
        enough = numbers["tc_K"] > settings["min_tc_K"]
        reason = "" if enough else f"tc-below-limit: {numbers['tc_K']:.1f} K"
        outcomes[item.id] = replace(
            outcomes[item.id], passed=enough, reason=reason, numbers={**numbers, **kept}
        )
    return [outcomes[item.id] for item in items]

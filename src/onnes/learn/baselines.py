"""Classical baselines behind one door: the median, extra-trees, gradient boosting.

A figure of a network means nothing without them beside it. Each learns its target in the space where errors
are alike (`SPACES`), so that no baseline is weakened by the choice of scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnes.errors import DataError, ModelError
from onnes.learn.calibrate import Space

FloatArray = NDArray[np.float64]

PLAIN = Space()
#: Targets that are not negative, and the floor of ``ln(x + floor)`` in which they are learned.
SPACES: dict[str, Space] = {
    "lambda": Space(0.02),
    "omega_log_K": Space(5.0),
    "omega_2_K": Space(5.0),
    "dos_ef_states_eV_cell": Space(0.1),
    "bulk_modulus_kv_GPa": Space(5.0),
    "shear_modulus_gv_GPa": Space(5.0),
    "debye_T_K": Space(20.0),
}
#: Floor of every critical temperature, the one of the shipped predictor (`onnes.learn.ensemble.FLOOR_K`).
TC_FLOOR_K = 0.3


def space_of(target: str) -> Space:
    """Space in which a label is learned and its intervals are made; plain differences by default."""
    if target.startswith("Tc"):
        return Space(TC_FLOOR_K)
    return SPACES.get(target, PLAIN)


class Regressor(Protocol):
    """What scikit-learn's regressors have."""

    def fit(self, x: FloatArray, y: FloatArray) -> Any:
        """Learn."""

    def predict(self, x: FloatArray) -> FloatArray:
        """Predict."""


@dataclass
class Median:
    """The constant that no model may lose to."""

    value: float = float("nan")

    def fit(self, x: FloatArray, y: FloatArray) -> Median:
        """Remember the median of the labels."""
        self.value = float(np.median(y))
        return self

    def predict(self, x: FloatArray) -> FloatArray:
        """Return it for every row."""
        return np.full(len(x), self.value)


def _trees(seed: int) -> Regressor:
    from sklearn.ensemble import ExtraTreesRegressor

    # A third of the features a split, whole trees: the usual choice for regression, not tuned on any set here.
    return ExtraTreesRegressor(200, max_features=1 / 3, n_jobs=1, random_state=seed)


def _boosting(seed: int) -> Regressor:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=300, learning_rate=0.06, l2_regularization=1.0, early_stopping=False, random_state=seed
    )


@dataclass(frozen=True)
class Baseline:
    """A model by name.

    Attributes
    ----------
    name : str
    descriptors : str
        Of `onnes.learn.descriptors.DESCRIPTORS`; empty for none.
    make : callable
        Seed to an untrained regressor.
    words : str
        What it is, for tables and docs.
    """

    name: str
    descriptors: str
    make: Callable[[int], Regressor]
    words: str


BASELINES: dict[str, Baseline] = {
    b.name: b
    for b in (
        Baseline("median", "", lambda seed: Median(), "constant: median of the training rows"),
        Baseline("trees", "cell", _trees, "extra-trees on composition and cell"),
        Baseline(
            "boosting", "structure", _boosting, "gradient boosting on composition and neighbours (ours)"
        ),
        Baseline("cfid", "cfid", _boosting, "gradient boosting on CFID descriptors of jarvis-tools"),
    )
}


def baseline(name: str) -> Baseline:
    """Look a baseline up.

    Raises
    ------
    ModelError
        ``unknown-model``.
    """
    if name not in BASELINES:
        raise ModelError("unknown-model", f"unknown baseline {name!r}; use one of {', '.join(BASELINES)}")
    return BASELINES[name]


def fit_predict(
    model: Baseline,
    x: FloatArray,
    y: FloatArray,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    *,
    space: Space = PLAIN,
    seed: int = 0,
) -> FloatArray:
    """Train on some rows and predict others.

    Parameters
    ----------
    model : Baseline
    x : (n, features) numbers
        Rows of NaN (no descriptors) are not trained on and are predicted as NaN.
    y : (n,) numbers
    train, test : indices
        Nothing of `test` is looked at.
    space : Space
        The median is the same in any space that keeps the order.
    seed : int

    Returns
    -------
    ndarray, shape (len(test),)

    Raises
    ------
    DataError
        ``no-training-rows``, ``rows-overlap``.
    """
    if np.intersect1d(train, test).size:
        raise DataError("rows-overlap", "a row is in both train and test")
    usable = np.asarray(np.isfinite(x).all(axis=1))  # all true for a model without descriptors
    train = train[usable[train]]
    if not len(train):
        raise DataError("no-training-rows", "no row to train on")
    out = np.full(len(test), np.nan)
    known = usable[test]
    if known.any():
        regressor = model.make(seed).fit(x[train], space.forward(y[train]))
        out[known] = space.backward(regressor.predict(x[test[known]]))
    return out

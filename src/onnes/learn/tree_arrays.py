"""Boosted regression trees as plain arrays, evaluated with numpy: no pickle, no scikit-learn at inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnes.errors import ModelError

FloatArray = NDArray[np.float64]
_FIELDS = ("feature", "number", "left", "right", "start")


@dataclass(frozen=True)
class TreeArrays:
    """A sum of binary trees.

    Attributes
    ----------
    base : float
        Added to the sum.
    feature : int16 array, shape (nodes,)
        Column that a node compares; -1 marks a leaf.
    number : float64 array, shape (nodes,)
        Threshold of a node (left when x <= threshold), value of a leaf.
    left, right : int16 arrays, shape (nodes,)
        Children, counted from the root of the tree.
    start : int32 array, shape (trees,)
        Roots.
    """

    base: float
    feature: NDArray[np.int16]
    number: FloatArray
    left: NDArray[np.int16]
    right: NDArray[np.int16]
    start: NDArray[np.int32]

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, k)) for k in _FIELDS[:4]}
        if len(sizes) != 1 or not len(self.start) or int(self.start.max()) >= sizes.pop():
            raise ModelError("damaged-model", "arrays of trees do not fit each other")

    def predict(self, x: FloatArray) -> FloatArray:
        """Value of each row, shape (n,); NaN for rows that hold a NaN.

        Parameters
        ----------
        x : ndarray, shape (n, features)
        """
        node = np.broadcast_to(self.start, (len(x), len(self.start)))
        rows = np.arange(len(x))[:, None]
        feature = self.feature[node]
        while (feature >= 0).any():
            # A leaf compares column -1, whose result is not used.
            smaller = x[rows, feature] <= self.number[node]
            child = self.start + np.where(smaller, self.left[node], self.right[node])
            node = np.where(feature >= 0, child, node)
            feature = self.feature[node]
        total = self.base + self.number[node].sum(axis=1)
        return np.where(np.isfinite(x).all(axis=1), total, np.nan)

    def tensors(self, prefix: str) -> dict[str, Any]:
        """Torch tensors for a checkpoint, named ``prefix.feature`` and so on."""
        import torch

        return {f"{prefix}.{k}": torch.from_numpy(np.ascontiguousarray(getattr(self, k))) for k in _FIELDS}

    @classmethod
    def read(cls, tensors: dict[str, Any], prefix: str, base: float) -> TreeArrays:
        """Undo `tensors`.

        Raises
        ------
        ModelError
            ``damaged-model``.
        """
        try:
            return cls(base, *(tensors[f"{prefix}.{k}"].numpy() for k in _FIELDS))
        except KeyError as error:
            raise ModelError("damaged-model", f"the checkpoint lacks {error}") from None


def from_boosting(model: Any) -> TreeArrays:
    """Copy a fitted scikit-learn ``HistGradientBoostingRegressor`` (identity link, no categorical columns)."""
    parts: Sequence[Any] = [trees[0].nodes for trees in model._predictors]
    nodes, leaf = np.concatenate(parts), np.concatenate([p["is_leaf"] for p in parts]).astype(bool)
    if nodes["is_categorical"].any():
        raise ModelError("unknown-model", "trees that split on categories cannot be copied")
    ends = np.cumsum([len(p) for p in parts])
    return TreeArrays(
        float(np.ravel(model._baseline_prediction)[0]),
        np.where(leaf, -1, nodes["feature_idx"]).astype(np.int16),
        np.where(leaf, nodes["value"], nodes["num_threshold"]).astype(np.float64),
        nodes["left"].astype(np.int16),
        nodes["right"].astype(np.int16),
        np.concatenate([[0], ends[:-1]]).astype(np.int32),
    )

"""Parts shared by the graph networks: radial basis, element table, sums over the nodes of a crystal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from onnes.errors import ModelError


class Gaussians(nn.Module):
    """Numbers expanded in equally spaced Gaussians, ``exp(-gamma (x - c)**2)``.

    Parameters
    ----------
    low, high : float
        First and last centre.
    count : int
    gamma : float, optional
        Default 1 / spacing (not its square): the convention of the published ALIGNN weights, which makes the
        Gaussians of a fine grid wider than their spacing.
    """

    centres: Tensor

    def __init__(self, low: float, high: float, count: int, gamma: float | None = None) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(low, high, count))
        self.gamma = gamma if gamma is not None else (count - 1) / (high - low)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n,) to (n, count)."""
        return (x.unsqueeze(-1) - self.centres).square().mul(-self.gamma).exp()


class ElementTable(nn.Module):
    """Fixed features looked up by atomic number; they travel in the checkpoint with the weights.

    Parameters
    ----------
    values : ndarray, shape (z, f)
        Row Z holds the features of element Z.
    """

    values: Tensor

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("values", torch.tensor(np.array(values), dtype=torch.float32))

    def forward(self, numbers: Tensor) -> Tensor:
        """Features, shape (n, f).

        Raises
        ------
        ModelError
            ``unknown-element``.
        """
        top = int(numbers.max())
        if top >= len(self.values):
            raise ModelError(
                "unknown-element",
                f"no features for the element Z = {top}; the table ends at {len(self.values) - 1}",
            )
        return self.values[numbers]


def total(rows: Tensor, at: Tensor, size: int) -> Tensor:
    """Sum rows into ``size`` places; shape (n, f) to (size, f)."""
    return rows.new_zeros((size, *rows.shape[1:])).index_add(0, at, rows)


def weighted_mean(rows: Tensor, weight: Tensor, at: Tensor, size: int, none: float | Tensor = 1e-6) -> Tensor:
    """Mean of the rows of every place, shape (size, f).

    ``none`` is the weight of a row of zeros: where all weights fade out, the mean goes smoothly to 0.
    """
    return total(rows * weight.unsqueeze(1), at, size) / (total(weight, at, size) + none).unsqueeze(1)

"""Loss along two random directions around trained weights.

Directions are filter-normalised (H. Li et al., NeurIPS 31 (2018), arXiv:1712.09913): every row of a weight matrix moves
by a random vector of the row's own length, so that landscapes of networks with weights of different sizes can be
compared. e3nn keeps the matrices of a linear layer in one vector; it counts as one filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FloatArray = NDArray[np.float64]


def directions(net: nn.Module, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two random directions in weight space, normalised filter by filter.

    Biases, single numbers and parameters that are zero stay where they are.

    Parameters
    ----------
    net : nn.Module
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    found: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for name, weight in net.named_parameters():
        for direction in found:
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
            still = name.endswith("bias") or weight.numel() == 1
            direction[name] = torch.zeros_like(noise) if still else _like_its_filters(noise, weight.detach())
    return found


def _like_its_filters(noise: Tensor, weight: Tensor) -> Tensor:
    """Noise whose rows are as long as those of the weight."""
    if weight.ndim < 2:
        return noise * (weight.norm() / noise.norm().clamp(min=1e-12))
    ratio = weight.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1).clamp(min=1e-12)
    return noise * ratio.reshape(-1, *[1] * (noise.ndim - 1))


def landscape(
    net: nn.Module,
    loss: Callable[[nn.Module], float],
    steps: FloatArray,
    seed: int = 0,
) -> FloatArray:
    """Loss on a grid of steps along both directions.

    Parameters
    ----------
    net : nn.Module
        Its weights are moved and put back.
    loss : callable
        Loss of a network.
    steps : ndarray, shape (s,)
        In units of the filters' own lengths; 0 is the trained network.
    seed : int

    Returns
    -------
    ndarray, shape (s, s)
    """
    first, second = directions(net, seed)
    rest: Mapping[str, Tensor] = {k: v.detach().clone() for k, v in net.named_parameters()}
    out = np.empty((len(steps), len(steps)))
    try:
        with torch.no_grad():
            for i, a in enumerate(steps):
                for j, b in enumerate(steps):
                    for name, weight in net.named_parameters():
                        weight.copy_(rest[name] + float(a) * first[name] + float(b) * second[name])
                    out[i, j] = loss(net)
    finally:
        with torch.no_grad():
            for name, weight in net.named_parameters():
                weight.copy_(rest[name])
    return out

"""The forward noise processes and their reverse steps: lattice, coordinates, atom types.

Three channels share one time t in [0, 1] (0 clean, 1 noise):

lattice
    Variance-preserving Gaussian diffusion with the cosine schedule (Nichol and Dhariwal 2021, s = 0.008) of
    the standardised logarithm of the symmetric stretch of the cell. The network predicts the clean vector.
coordinates
    Wrapped-normal score matching with sigma(t) = s0^(1-t) s1^t, s0 = 0.005, s1 = 0.5 (Jiao et al. 2023).
types
    Absorbing (mask) diffusion (Austin et al. 2021): atoms lose their type at random times in
    ``[reveal, 1]``. The published one-hot Gaussian diffusion of types tends to five and more elements in a
    cell; here each atom that is revealed is drawn given those that are known already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SIGMA_MIN, SIGMA_MAX = 0.005, 0.5
#: Below this time all atom types are known.
REVEAL = 0.15
_WRAPS = torch.arange(-4, 5, dtype=torch.float32)


def alpha_bar(t: Tensor) -> Tensor:
    """Signal fraction of the lattice channel at time t (cosine schedule), in [1e-5, 1]."""
    s = 0.008
    f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    return (f / math.cos(s / (1 + s) * math.pi / 2) ** 2).clamp(1e-5, 1.0)


def sigma(t: Tensor) -> Tensor:
    """Coordinate noise (fraction of a cell vector) at time t."""
    return SIGMA_MIN ** (1 - t) * SIGMA_MAX**t


def masked(t: Tensor) -> Tensor:
    """Probability that an atom's type is unknown at time t."""
    return ((t - REVEAL) / (1 - REVEAL)).clamp(0.0, 1.0)


def wrapped_score(x: Tensor, s: Tensor) -> Tensor:
    """Gradient of the log density of a wrapped normal of width ``s`` at displacement ``x`` (period 1)."""
    d = x[..., None] + _WRAPS.to(x.device)
    logit = -0.5 * (d / s[..., None]) ** 2
    weight = torch.softmax(logit, dim=-1)
    return -(weight * d).sum(-1) / s**2


def _score_norms(points: int = 256, grid: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of the wrapped score on a grid of log sigma."""
    log_s = np.linspace(math.log(SIGMA_MIN), math.log(SIGMA_MAX), points)
    x = torch.linspace(-0.5, 0.5, grid + 1, dtype=torch.float64)[:-1]
    rms = np.empty(points)
    for i, value in enumerate(log_s):
        s = torch.full_like(x, math.exp(value))
        d = x[:, None] + _WRAPS.double()
        density = torch.exp(-0.5 * (d / s[:, None]) ** 2).sum(-1)
        density /= density.sum()
        rms[i] = math.sqrt(float((density * wrapped_score(x, s) ** 2).sum()))
    return log_s, rms


_LOG_S, _RMS = _score_norms()


def score_rms(t: Tensor) -> Tensor:
    """Root mean square of the coordinate score at time t, from numerical integration."""
    log_s = torch.log(sigma(t)).detach().cpu().double().numpy()
    rms = np.exp(np.interp(log_s, _LOG_S, np.log(_RMS)))
    return torch.as_tensor(rms, dtype=t.dtype, device=t.device)


@dataclass(frozen=True)
class LatticeScale:
    """Standardisation of the lattice vector.

    A cell with rows L has the symmetric stretch S = (L L^T)^(1/2), which no rotation changes. The vector is
    (log S - ln(N)/3 I) in the basis (xx, yy, zz, sqrt2 yz, sqrt2 xz, sqrt2 xy), shifted and scaled to zero
    mean and unit deviation over the training set.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def raw(cells: np.ndarray, n: int | np.ndarray) -> np.ndarray:
        """Vectors (B, 6) of cells (B, 3, 3) in angstrom with n atoms."""
        metric = cells @ np.swapaxes(cells, -1, -2)
        w, v = np.linalg.eigh(metric)
        log_s = np.einsum("bij,bj,bkj->bik", v, 0.5 * np.log(w), v)
        log_s -= (np.log(n) / 3.0 * np.ones(len(cells)))[:, None, None] * np.eye(3)
        r = math.sqrt(2.0)
        off = [r * log_s[:, 1, 2], r * log_s[:, 0, 2], r * log_s[:, 0, 1]]
        return np.stack([log_s[:, 0, 0], log_s[:, 1, 1], log_s[:, 2, 2], *off], axis=-1)

    @classmethod
    def fit(cls, vectors: np.ndarray) -> LatticeScale:
        """Standardisation of a training set's raw vectors (n, 6)."""
        return cls(tuple(vectors.mean(0).tolist()), tuple(vectors.std(0).tolist()))

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Standardised vectors."""
        return (raw - np.array(self.mean)) / np.array(self.std)

    def cell(self, vector: Tensor, n: int) -> Tensor:
        """Cells (B, 3, 3) in angstrom of standardised vectors (B, 6); symmetric matrices, right-handed."""
        mean = torch.as_tensor(self.mean, dtype=vector.dtype, device=vector.device)
        std = torch.as_tensor(self.std, dtype=vector.dtype, device=vector.device)
        x = vector * std + mean
        r = 1.0 / math.sqrt(2.0)
        xx, yy, zz, yz, xz, xy = x.unbind(-1)
        rows = [xx, xy * r, xz * r, xy * r, yy, yz * r, xz * r, yz * r, zz]
        log_s = torch.stack(rows, dim=-1).reshape(-1, 3, 3)
        log_s = log_s + math.log(n) / 3.0 * torch.eye(3, dtype=x.dtype, device=x.device)
        return torch.linalg.matrix_exp(log_s)

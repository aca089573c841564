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
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SIGMA_MIN, SIGMA_MAX = 0.005, 0.5
#: Below this time all atom types are known.
REVEAL = 0.15
#: Smallest deviation by which a lattice component is divided: a set of cubic cells (Perov-5) has components that
#: do not vary at all. An error of the network there becomes a strain of a thousandth of it.
NARROWEST = 1e-3
_WRAPS = tuple(float(k) for k in range(-4, 5))


@lru_cache(maxsize=64)
def _stored(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Numbers as a tensor of the kind and place of another one.

    Kept after the first call: a training step that is recorded as a CUDA graph may not copy from the host.
    """
    return _stored(values, like.dtype, like.device)


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
    d = x[..., None] + constant(_WRAPS, x)
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
        d = x[:, None] + constant(_WRAPS, x)
        density = torch.exp(-0.5 * (d / s[:, None]) ** 2).sum(-1)
        density /= density.sum()
        rms[i] = math.sqrt(float((density * wrapped_score(x, s) ** 2).sum()))
    return log_s, rms


_LOG_RMS = tuple(np.log(_score_norms()[1]).tolist())


def score_rms(t: Tensor) -> Tensor:
    """Root mean square of the coordinate score at time t, from numerical integration."""
    # log sigma is linear in t, so the table is even in t.
    table = constant(_LOG_RMS, t)
    place = t.clamp(0.0, 1.0) * (len(_LOG_RMS) - 1)
    low = place.floor().clamp(max=len(_LOG_RMS) - 2).long()
    return torch.exp(torch.lerp(table[low], table[low + 1], place - low))


def symmetric_exp(x: Tensor) -> Tensor:
    """Exponential of symmetric matrices (..., 3, 3) by scaling and squaring.

    A Taylor polynomial of degree 8 of x / 16, squared four times: relative error below 3e-6 for norms up to 6
    in single precision. Unlike ``torch.linalg.matrix_exp`` it never waits for the device.
    """
    y = x / 16.0
    eye = torch.eye(3, dtype=x.dtype, device=x.device)
    out = eye.expand_as(y)
    for k in range(8, 0, -1):
        out = eye + y @ out / k
    for _ in range(4):
        out = out @ out
    return out


def cells_of(x: Tensor, shift: float | Tensor = 0.0) -> Tensor:
    """Cells (B, 3, 3) of log-symmetric vectors (B, 6) with ``shift`` (a number or (B,)) added to the diagonal."""
    r = 1.0 / math.sqrt(2.0)
    xx, yy, zz, yz, xz, xy = x.unbind(-1)
    xx, yy, zz = xx + shift, yy + shift, zz + shift
    rows = [xx, xy * r, xz * r, xy * r, yy, yz * r, xz * r, yz * r, zz]
    return symmetric_exp(torch.stack(rows, dim=-1).reshape(-1, 3, 3))


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
        """Standardisation of a training set's raw vectors (n, 6); deviations below ``NARROWEST`` count as that."""
        return cls(tuple(vectors.mean(0).tolist()), tuple(np.maximum(vectors.std(0), NARROWEST).tolist()))

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Standardised vectors."""
        return (raw - np.array(self.mean)) / np.array(self.std)

    def cell(self, vector: Tensor, n: int) -> Tensor:
        """Cells (B, 3, 3) in angstrom of standardised vectors (B, 6); symmetric matrices, right-handed."""
        x = vector * constant(self.std, vector) + constant(self.mean, vector)
        return cells_of(x, math.log(n) / 3.0)

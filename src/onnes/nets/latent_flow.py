"""Normalising flow over latent vectors: affine couplings (RealNVP, Dinh et al. 2017, arXiv:1605.08803).

An invertible map from z to a standard normal with a Jacobian known in closed form, so that drawing is one pass and
the density of any z is exact and differentiable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: Every coupling scales by at most exp of this.
SCALE_BOUND = 1.5


class Coupling(nn.Module):
    """One half of the coordinates moves and scales the other half."""

    order: Tensor

    def __init__(self, size: int, hidden: int, dropout: float, seed: int) -> None:
        super().__init__()
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("order", order)
        self.kept = size // 2
        self.net = nn.Sequential(
            nn.Linear(self.kept, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
        )
        self.out = nn.Linear(hidden, 2 * (size - self.kept))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def _parts(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.out(self.net(kept)).chunk(2, dim=-1)
        return SCALE_BOUND * torch.tanh(scale / SCALE_BOUND), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the normal: new vectors (B, size) and log determinants (B,)."""
        x = x[:, self.order]
        kept, other = x[:, : self.kept], x[:, self.kept :]
        scale, shift = self._parts(kept)
        return torch.cat([kept, other * scale.exp() + shift], dim=-1), scale.sum(dim=-1)

    def inverse(self, y: Tensor) -> Tensor:
        """From the normal."""
        kept, other = y[:, : self.kept], y[:, self.kept :]
        scale, shift = self._parts(kept)
        return torch.cat([kept, (other - shift) * (-scale).exp()], dim=-1)[:, self.order.argsort()]


class LatentFlow(nn.Module):
    """Density of latent vectors.

    Parameters
    ----------
    size : int
        Length of z.
    hidden, couplings : int
    dropout : float
        In training only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, hidden: int = 384, couplings: int = 12, dropout: float = 0.1) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.couplings = nn.ModuleList(Coupling(size, hidden, dropout, seed) for seed in range(couplings))

    def _stack(self) -> list[Coupling]:
        return [c for c in self.couplings if isinstance(c, Coupling)]

    def standardise(self, z: Tensor) -> None:
        """Set mean and deviation of the coordinates from a sample (M, size)."""
        self.mean.copy_(z.mean(dim=0))
        self.std.copy_(z.std(dim=0))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density (B,) of vectors (B, size), nats."""
        x = (z - self.mean) / self.std
        log_det = -self.std.log().sum()
        for coupling in self._stack():
            x, more = coupling(x)
            log_det = log_det + more
        return log_det - 0.5 * (x.square() + math.log(2 * math.pi)).sum(dim=-1)

    def sample(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Draw vectors (count, size)."""
        x = torch.randn((count, self.size), generator=generator, dtype=self.mean.dtype)
        for coupling in reversed(self._stack()):
            x = coupling.inverse(x)
        return x * self.std + self.mean

"""Property head on per-atom features: non-linear per atom, then attention and mean pooling.

Pooling before the non-linearity loses what single atoms say (a light atom in a heavy host); the head is
therefore applied to every atom first, and two pools are read: the mean and a learned attention.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class HeadSettings:
    """Size of the head.

    Attributes
    ----------
    features, hidden, targets, sources : int
        Per-atom inputs; width; outputs; label sources (one offset each, given as input).
    dropout : float
    attention : int
        Self-attention layers over the atoms of a crystal, before pooling.
    """

    features: int = 576
    hidden: int = 128
    targets: int = 3
    sources: int = 2
    dropout: float = 0.1
    attention: int = 0

    def as_dict(self) -> dict[str, float | int]:
        """Return the settings as plain numbers, for the checkpoint."""
        return asdict(self)


class Mixing(nn.Module):
    """Self-attention over the atoms of a crystal, then a small network per atom (both residual).

    A crystal's supercell gives the same result: every atom then occurs several times in each softmax average.
    """

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.attention = nn.MultiheadAttention(size, 4, dropout=dropout, batch_first=True)
        self.atom = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, size), nn.SiLU(), nn.Dropout(dropout), nn.Linear(size, size)
        )

    def forward(self, h: Tensor, real: Tensor) -> Tensor:
        """Mix; h of shape (B, N, size), real of shape (B, N) marks atoms."""
        q = self.norm(h)
        h = h + self.attention(q, q, q, key_padding_mask=~real, need_weights=False)[0]
        return h + self.atom(h)


class PropertyHead(nn.Module):
    """Targets of a crystal from its atoms' features, element, volume per atom and label source."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.settings = settings
        size = settings.hidden
        self.register_buffer("mean", torch.zeros(settings.features))
        self.register_buffer("std", torch.ones(settings.features))
        self.element = nn.Embedding(101, 32)
        self.source = nn.Embedding(settings.sources, size)
        self.atom = nn.Sequential(
            nn.Linear(settings.features + 33, size),
            nn.SiLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(size, size),
            nn.SiLU(),
        )
        self.mixing = nn.ModuleList(Mixing(size, settings.dropout) for _ in range(settings.attention))
        self.weight = nn.Linear(size, 1)
        self.out = nn.Sequential(
            nn.Linear(3 * size, size),
            nn.SiLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(size, settings.targets),
        )

    def forward(self, x: Tensor, numbers: Tensor, log_volume: Tensor, source: Tensor) -> Tensor:
        """Standardised targets, shape (B, targets).

        Parameters
        ----------
        x : Tensor, shape (B, N, features)
        numbers : Tensor of int, shape (B, N)
            Atomic numbers; 0 marks padding.
        log_volume : Tensor, shape (B,)
            ln of the volume per atom in cubic angstrom.
        source : Tensor of int, shape (B,)
        """
        here = numbers > 0
        real = here.unsqueeze(-1)
        volume = (log_volume[:, None] - 3.0).expand(-1, x.shape[1])[here].unsqueeze(-1)
        # Only real atoms pass through the network: padding would double the work.
        atoms = torch.cat([(x[here] - self.mean) / self.std, self.element(numbers[here]), volume], dim=-1)
        h = x.new_zeros(*numbers.shape, self.settings.hidden)
        h[here] = self.atom(atoms)
        for layer in self.mixing:
            h = layer(h, here)
        mean = (h * real).sum(1) / real.sum(1)
        attention = torch.softmax(self.weight(h).masked_fill(~real, -1e9), dim=1)
        pooled = torch.cat([mean, (attention * h).sum(1), self.source(source)], dim=-1)
        return self.out(pooled)

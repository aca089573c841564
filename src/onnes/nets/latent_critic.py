"""Density ratio of latent vectors: training crystals against a prior (Aneja et al., NeurIPS 2021, arXiv:2010.02917).

A classifier that tells draws from the posteriors of training crystals from draws of a base prior estimates, by its
logit, the logarithm of the ratio of their densities. It sees z and what the heads read from it, above all how far the
composition is from whole numbers of atoms: where a base prior is wrong is where compositions blur.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onnes.nets.cdvae import Heads
from onnes.nets.denoiser import MAX_Z

#: Log ratios are kept within this, so that no single vector outweighs all others.
LOG_RATIO = 8.0


class LatentCritic(nn.Module):
    """Log density ratio of latent vectors.

    Parameters
    ----------
    size : int
        Length of z.
    hidden : int
    dropout : float
        In training only.
    """

    def __init__(self, size: int, hidden: int = 384, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(size + 2 * (MAX_Z + 1) + 9, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, z: Tensor, heads: Heads) -> Tensor:
        """Log ratios (B,) of vectors (B, size)."""
        read = heads(z)
        fraction = torch.softmax(read.composition_logits, dim=-1)
        chance = torch.softmax(read.count_logits, dim=-1)
        count = (chance * torch.arange(chance.shape[1], device=z.device)).sum(dim=-1, keepdim=True)
        off = (count * fraction - (count * fraction).round()).abs()
        entropy = -(chance * torch.log(chance.clamp(min=1e-9))).sum(dim=-1, keepdim=True)
        whole = [off.sum(dim=-1, keepdim=True), entropy, count / 10.0]
        features = [z, fraction, off, read.lattice, *whole]
        logit: Tensor = self.net(torch.cat(features, dim=-1))[:, 0]
        return LOG_RATIO * torch.tanh(logit / LOG_RATIO)

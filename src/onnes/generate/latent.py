"""Distribution of latent vectors, and moving them towards a high Tc.

Vectors drawn from the standard normal that the autoencoder is trained towards decode to poor crystals, because
the encoder does not fill that normal (seed paper 001 names this limitation). The vectors of the training crystals
are therefore fitted: with a mixture of Gaussians, the number of components chosen on held-out crystals, and with a
normalising flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from onnes.errors import SettingsError
from onnes.nets.cdvae import Heads
from onnes.nets.latent_critic import LatentCritic

#: Draws of a base prior for each vector of a reweighted one.
TRIES = 32


class Prior(Protocol):
    """A distribution of latent vectors: `LatentPrior` or `onnes.nets.latent_flow.LatentFlow`."""

    @property
    def size(self) -> int:
        """Length of z."""

    def sample(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Draw vectors (count, size)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density (B,) of vectors (B, size), nats; differentiable."""


@dataclass(frozen=True)
class LatentPrior:
    """Mixture of Gaussians over the active coordinates of z, standard normal over the others.

    Attributes
    ----------
    active : Tensor of int, shape (A,)
        Coordinates that the mixture describes.
    weights : Tensor, shape (K,)
    means : Tensor, shape (K, A)
    factors : Tensor, shape (K, A, A)
        Lower Cholesky factors of the covariances.
    size : int
        Length of z.
    """

    active: Tensor
    weights: Tensor
    means: Tensor
    factors: Tensor
    size: int

    @classmethod
    def standard(cls, size: int) -> LatentPrior:
        """Return the standard normal."""
        none = torch.zeros(0)
        return cls(none.long(), torch.ones(1), none.reshape(1, 0), none.reshape(1, 0, 0), size)

    def sample(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Draw vectors (count, size)."""
        z = torch.randn((count, self.size), generator=generator)
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        if len(self.active):
            moved = self.means[k] + torch.einsum("bij,bj->bi", self.factors[k], z[:, self.active])
            z[:, self.active] = moved
        return z

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density (B,) of vectors (B, size), nats; differentiable."""
        norm = 0.5 * math.log(2 * math.pi)
        rest = torch.ones(self.size, dtype=torch.bool, device=z.device)
        rest[self.active] = False
        out = (-0.5 * z[:, rest].square() - norm).sum(dim=-1)
        if not len(self.active):
            return out
        parts = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            white = torch.linalg.solve_triangular(factor, (z[:, self.active] - mean).T, upper=False)
            volume = factor.diagonal().log().sum() + len(self.active) * norm
            parts.append(weight.log() - 0.5 * white.square().sum(dim=0) - volume)
        return out + torch.logsumexp(torch.stack(parts), dim=0)

    def as_tensors(self) -> dict[str, Tensor]:
        """Tensors for the checkpoint, names starting with ``prior.``."""
        return {f"prior.{name}": getattr(self, name) for name in ("active", "weights", "means", "factors")}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], size: int) -> LatentPrior:
        """Read what `as_tensors` gave."""
        return cls(
            active=tensors["prior.active"].long(),
            weights=tensors["prior.weights"].float(),
            means=tensors["prior.means"].float(),
            factors=tensors["prior.factors"].float(),
            size=size,
        )


@dataclass(frozen=True)
class Reweighted:
    """A base prior times the density ratio that a critic estimates (Aneja et al. 2021).

    Attributes
    ----------
    base : Prior
    critic : LatentCritic
    heads : Heads
    tries : int
        Draws of the base for each vector, of which one is kept with chances proportional to the ratios.
    """

    base: Prior
    critic: LatentCritic
    heads: Heads
    tries: int = TRIES

    @property
    def size(self) -> int:
        """Length of z."""
        return self.base.size

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Draw vectors (count, size) by importance resampling."""
        z = self.base.sample(count * self.tries, generator)
        chance = torch.softmax(self.critic(z, self.heads).reshape(count, self.tries), dim=-1)
        kept = torch.multinomial(chance, 1, generator=generator)[:, 0]
        return z.reshape(count, self.tries, -1)[torch.arange(count), kept]

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density (B,) of vectors (B, size) up to a constant near zero; differentiable."""
        return self.base.log_prob(z) + self.critic(z, self.heads)


@dataclass(frozen=True)
class AscentSettings:
    """How latent vectors are moved towards what is wanted.

    Attributes
    ----------
    steps : int
        Of Adam.
    rate : float
        Its learning rate, in units of z.
    penalty : float
        Weight, against the reward, of what z loses in log density per coordinate: 0 leaves the data at once.
    """

    steps: int = 200
    rate: float = 0.02
    penalty: float = 3.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.rate < math.inf or not 0 <= self.penalty < math.inf:
            raise SettingsError("bad-setting", f"steps >= 1, rate > 0, penalty >= 0 needed: {self}")


def ascend(reward: Callable[[Tensor], Tensor], prior: Prior, z: Tensor, settings: AscentSettings) -> Tensor:
    """Raise a reward of z without leaving the distribution of the data.

    Adam on -reward(z) + penalty max(0, log p(start) - log p(z)) / size. Only a loss of density counts: to seek the
    highest density itself would bring all vectors to the few modes of the prior. A vector is returned as it was at
    its best value of the objective.

    Parameters
    ----------
    reward : callable
        Vectors (B, latent) to rewards (B,), differentiable; log10 of the Tc, for example.
    prior : Prior
    z : Tensor, shape (B, latent)
        Draws from the prior.
    settings : AscentSettings

    Returns
    -------
    Tensor, shape (B, latent)
    """
    x = z.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([x], lr=settings.rate)
    best, highest = z.detach().clone(), torch.full((len(z),), -torch.inf)
    with torch.no_grad():
        floor = prior.log_prob(best)
    with torch.enable_grad():
        for _ in range(settings.steps):
            lost = (floor - prior.log_prob(x)).clamp(min=0) / prior.size
            value = reward(x) - settings.penalty * lost
            with torch.no_grad():
                better = value > highest
                highest = torch.where(better, value, highest)
                best[better] = x[better]
            x.grad = torch.autograd.grad(-value.sum(), x)[0]
            optimiser.step()
    return best

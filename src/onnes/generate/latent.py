"""Distribution of latent vectors, and moving them towards a high Tc.

Vectors drawn from the standard normal that the autoencoder is trained towards decode to poor crystals, because
the encoder does not fill that normal (seed paper 001 names this limitation). The vectors of the training crystals
are therefore fitted: with a mixture of Gaussians, the number of components chosen on held-out crystals, and with a
normalising flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from onnes.errors import SettingsError
from onnes.generate.cdvae import CdvaeWeights, head_losses, standardised, weighted
from onnes.generate.fitting import Fit, FitSettings, Loss
from onnes.generate.groups import Group, Groups
from onnes.generate.process import LatticeScale
from onnes.nets.cdvae import Cdvae, Heads
from onnes.nets.latent_flow import LatentFlow

#: Coordinates of z whose mean posterior variance is above this carry nothing and are left standard normal.
INACTIVE = 0.95

Module = TypeVar("Module", bound=nn.Module)


class Prior(Protocol):
    """A distribution of latent vectors: `LatentPrior` or `onnes.nets.latent_flow.LatentFlow`."""

    @property
    def size(self) -> int:
        """Length of z."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
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

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
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
class Encoded:
    """Posteriors of many crystals.

    Attributes
    ----------
    mean, log_var : Tensor, shape (M, latent)
    """

    mean: Tensor
    log_var: Tensor

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """One vector (M, latent) from each posterior: what the decoder is trained on."""
        if generator is None:
            return self.mean + torch.exp(0.5 * self.log_var) * torch.randn_like(self.mean)
        return self.mean + torch.exp(0.5 * self.log_var) * torch.randn(self.mean.shape, generator=generator)


@torch.no_grad()
def encode(net: Cdvae, scale: LatticeScale, groups: Groups, *, batch: int = 64) -> Encoded:
    """Posteriors of all crystals of some groups (`onnes.generate.groups.load_groups`), in their order."""
    means, log_vars = [], []
    for n, group in groups.items():
        vectors = standardised(group, scale)["lattice"]
        for start in range(0, len(vectors), batch):
            part = slice(start, start + batch)
            cell = scale.cell(vectors[part], n)
            m, v = net.encoder(group["types"][part], group["frac"][part], vectors[part], cell)
            means.append(m)
            log_vars.append(v)
    return Encoded(torch.cat(means), torch.cat(log_vars))


def fit_mixture(
    train: Encoded, held: Encoded, components: Sequence[int], seed: int
) -> tuple[LatentPrior, dict[str, float]]:
    """Fit mixtures and keep the one that gives held-out crystals the highest likelihood.

    Parameters
    ----------
    train, held : Encoded
    components : sequence of int
        Numbers of components to try.
    seed : int

    Returns
    -------
    LatentPrior
    dict
        Mean log density (nats) of one draw from each held-out posterior, under the standard normal
        (``gaussian``) and every mixture tried (``mixture_K``); ``active``, the number of active coordinates.
    """
    from sklearn.mixture import GaussianMixture

    generator = torch.Generator().manual_seed(seed)
    z, z_held = train.draw(generator), held.draw(generator)
    size = z.shape[1]
    active = torch.nonzero(train.log_var.exp().mean(dim=0) < INACTIVE).flatten()
    best = LatentPrior.standard(size)
    report = {"gaussian": float(best.log_prob(z_held).mean()), "active": float(len(active))}
    highest = -math.inf
    for k in components:
        mixture = GaussianMixture(k, reg_covar=1e-4, max_iter=200, init_params="k-means++", random_state=seed)
        mixture.fit(z[:, active].double().numpy())
        covariances = torch.as_tensor(mixture.covariances_)
        prior = LatentPrior(
            active,
            torch.as_tensor(mixture.weights_).float(),
            torch.as_tensor(mixture.means_).float(),
            torch.linalg.cholesky(covariances).float(),
            size,
        )
        report[f"mixture_{k}"] = value = float(prior.log_prob(z_held).mean())
        if value > highest:
            best, highest = prior, value
    return best, report


def _labelled(encoded: Encoded, labels: Group | None = None) -> Groups:
    """Posteriors as one group of `onnes.generate.fitting`."""
    ones = torch.ones_like(encoded.mean[:, 0])
    return {1: {"mean": encoded.mean, "log_var": encoded.log_var, "weight": ones, **(labels or {})}}


def fit_flow(
    train: Encoded, held: Encoded, flow: LatentFlow, settings: FitSettings, folder: str | Path
) -> LatentFlow:
    """Train a normalising flow on draws from the posteriors, new ones at every step; rerun to resume.

    Parameters
    ----------
    train, held : Encoded
        On the device to train on; the held-out loss is logged only.
    flow : LatentFlow
        To be trained, on the same device.
    settings : FitSettings
    folder : path

    Returns
    -------
    LatentFlow
        The same, with averaged weights, in evaluation mode.
    """
    flow.standardise(train.draw())

    def loss(batch: Group) -> dict[str, Tensor]:
        z = Encoded(batch["mean"], batch["log_var"]).draw()
        return {"nats_a_coordinate": -flow.log_prob(z).mean() / flow.size}

    return _trained(flow, loss, _labelled(train), _labelled(held), settings, folder)


def fit_heads(
    heads: Heads,
    train: tuple[Encoded, Group],
    held: tuple[Encoded, Group],
    weights: CdvaeWeights,
    settings: FitSettings,
    folder: str | Path,
) -> Heads:
    """Train heads on draws from the posteriors of a finished encoder.

    Parameters
    ----------
    heads : Heads
    train, held : (Encoded, labels)
        Labels as `onnes.generate.cdvae.head_labels` gives them, of all crystals in one.
    weights : CdvaeWeights
    settings : FitSettings
    folder : path

    Returns
    -------
    Heads
        The same, with averaged weights, in evaluation mode.
    """

    def loss(batch: Group) -> dict[str, Tensor]:
        z = Encoded(batch["mean"], batch["log_var"]).draw()
        return weighted(head_losses(heads(z), batch), weights)

    return _trained(heads, loss, _labelled(*train), _labelled(*held), settings, folder)


def _trained(
    module: Module, loss: Loss, train: Groups, held: Groups, settings: FitSettings, folder: str | Path
) -> Module:
    run = Fit(module, loss, train, settings, folder)

    def validate() -> dict[str, float]:
        module.eval()
        out = run.mean_loss(held)
        module.train()
        return out

    run.run(validate)
    module.load_state_dict(run.weights())
    return module.eval()


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

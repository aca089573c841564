"""What is fitted to the latent vectors of training crystals: heads, mixture, flow, critic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from onnes.generate.cdvae import CdvaeWeights, head_losses, standardised, weighted
from onnes.generate.fitting import Fit, FitSettings, Loss
from onnes.generate.groups import Group, Groups
from onnes.generate.latent import LatentPrior, Prior
from onnes.generate.process import LatticeScale
from onnes.nets.cdvae import Cdvae, Heads
from onnes.nets.latent_critic import LatentCritic
from onnes.nets.latent_flow import LatentFlow

#: Coordinates of z whose mean posterior variance is above this carry nothing and are left standard normal.
INACTIVE = 0.95

Module = TypeVar("Module", bound=nn.Module)


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


def fit_critic(
    critic: LatentCritic,
    base: Prior,
    heads: Heads,
    train: Encoded,
    held: Encoded,
    settings: FitSettings,
    folder: str | Path,
) -> LatentCritic:
    """Train a critic to tell draws from the posteriors from draws of a base prior.

    Parameters
    ----------
    critic : LatentCritic
    base : Prior
    heads : Heads
        In evaluation mode; not trained.
    train, held : Encoded
    settings : FitSettings
    folder : path

    Returns
    -------
    LatentCritic
        The same, with averaged weights, in evaluation mode.
    """
    heads.requires_grad_(False)

    def loss(batch: Group) -> dict[str, Tensor]:
        with torch.no_grad():
            real = Encoded(batch["mean"], batch["log_var"]).draw()
            drawn = base.sample(len(real), None)
        softplus = torch.nn.functional.softplus
        miss = softplus(-critic(real, heads)).mean() + softplus(critic(drawn, heads)).mean()
        return {"critic": miss}

    return _trained(critic, loss, _labelled(train), _labelled(held), settings, folder)


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

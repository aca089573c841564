"""Training of the joint diffusion model under Lightning (seed paper 002, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from onnes.generate.crystals import CrystalArrays
from onnes.generate.process import (
    LatticeScale,
    alpha_bar,
    masked,
    score_rms,
    sigma,
    wrapped_score,
)
from onnes.nets.denoiser import MASK, Denoiser, DenoiserSettings

#: Share of graphs trained with all types known, so that one network also predicts structures.
CLEAN_TYPES = 0.3
#: Share of graphs whose Tc (and, separately, stability) is hidden: classifier-free guidance.
HIDE = 0.25
WEIGHTS = {"types": 0.5, "lattice": 1.0, "score": 1.0}

Batch = dict[str, Tensor]


class SameSizeBatches(IterableDataset[Batch]):
    """Endless batches of crystals with equal numbers of atoms, sizes drawn by their share of the set.

    Parameters
    ----------
    groups : dict of int to CrystalArrays
    scale : LatticeScale
    seed : int
    largest : int
        Crystals a batch at most.
    pairs : int
        Ordered atom pairs a batch at most, which bounds memory.
    """

    def __init__(
        self,
        groups: dict[int, CrystalArrays],
        scale: LatticeScale,
        *,
        seed: int,
        largest: int = 96,
        pairs: int = 3000,
    ) -> None:
        self.groups, self.scale, self.seed = groups, scale, seed
        self.sizes = {n: int(max(4, min(largest, pairs // n**2))) for n in groups}

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self.seed)
        names = sorted(self.groups)
        # Batches a size is due in one pass over the data, so that every crystal has the same weight.
        due = np.array([len(self.groups[n]) / self.sizes[n] for n in names])
        orders: dict[int, list[int]] = {n: [] for n in names}
        while True:
            n = int(rng.choice(names, p=due / due.sum()))
            take: list[int] = []
            while len(take) < min(self.sizes[n], len(self.groups[n])):
                if not orders[n]:
                    orders[n] = rng.permutation(len(self.groups[n])).tolist()
                take.append(orders[n].pop())
            yield to_batch(self.groups[n], self.scale, np.array(take))


def to_batch(group: CrystalArrays, scale: LatticeScale, index: np.ndarray) -> Batch:
    """Tensors of the chosen crystals of one size."""
    return {
        "types": torch.as_tensor(group.types[index]),
        "frac": torch.as_tensor(group.frac[index]),
        "lattice": torch.as_tensor(scale.encode(group.raw_lattice[index]), dtype=torch.float32),
        "log_tc": torch.as_tensor(group.log_tc[index]),
        "stable": torch.as_tensor(group.stable[index]),
    }


class DiffusionTask(L.LightningModule):
    """Adds noise, denoises, and measures the three losses.

    Parameters
    ----------
    settings : DenoiserSettings
    scale : LatticeScale
    lr : float
        Peak learning rate; linear warm-up over 500 steps, then cosine decay to 2 % at ``steps``.
    steps : int
    """

    def __init__(self, settings: DenoiserSettings, scale: LatticeScale, *, lr: float, steps: int) -> None:
        super().__init__()
        self.net = Denoiser(settings)
        self.scale, self.lr, self.steps = scale, lr, steps

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Noise a batch at random times and return the losses of the three channels."""
        x0, f0, l0 = batch["types"], batch["frac"], batch["lattice"]
        b, n = x0.shape
        kw: dict[str, Any] = {"device": l0.device, "generator": generator}
        # Stratified times: one in each of b equal slices of [0, 1].
        t = (torch.randperm(b, **kw) + torch.rand(b, **kw)) / b
        hide = torch.rand(3, b, **kw)
        a = alpha_bar(t)[:, None]
        noisy_l = a.sqrt() * l0 + (1 - a).sqrt() * torch.randn(l0.shape, **kw)
        s = sigma(t)[:, None, None]
        shift = s * torch.randn(f0.shape, **kw)
        frac = (f0 + shift) % 1.0
        gone = torch.rand((b, n), **kw) < masked(t)[:, None]
        gone &= (hide[0] > CLEAN_TYPES)[:, None]
        out = self.net(
            torch.where(gone, MASK, x0),
            frac,
            noisy_l,
            self.scale.cell(noisy_l, n),
            t,
            torch.where(hide[1] < HIDE, torch.nan, batch["log_tc"]),
            torch.where(hide[2] < HIDE, 0, batch["stable"]),
        )
        target = self._score(shift, s.expand_as(shift)) / score_rms(t)[:, None, None]
        guess = torch.nn.functional.cross_entropy(out.type_logits.transpose(1, 2), x0, reduction="none")
        return {
            "types": (guess * gone).sum() / gone.sum().clamp(min=1),
            "lattice": (out.lattice - l0).square().mean(),
            "score": (out.score - target).square().mean(),
        }

    @staticmethod
    def _score(shift: Tensor, s: Tensor) -> Tensor:
        # A common shift of all atoms is no displacement at all; its score is removed like the network's.
        score = wrapped_score(shift, s)
        return score - score.mean(dim=1, keepdim=True)

    def _total(self, batch: Batch, stage: str, generator: torch.Generator | None = None) -> Tensor:
        parts = self.losses(batch, generator)
        total = torch.stack([WEIGHTS[k] * v for k, v in parts.items()]).sum()
        values = {f"{stage}_{k}": v.detach() for k, v in parts.items()} | {f"{stage}_loss": total.detach()}
        self.log_dict(values, prog_bar=False, batch_size=len(batch["types"]))
        return total

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One optimisation step."""
        return self._total(batch, "train")

    def validation_step(self, batch: Batch, index: int) -> Tensor:
        """Loss on held-out crystals with the same noise every time."""
        generator = torch.Generator(device=batch["types"].device).manual_seed(index)
        return self._total(batch, "val", generator)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay, a step at a time."""
        optimiser = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=1e-3, betas=(0.9, 0.98))

        def rate(step: int) -> float:
            done = min(1.0, step / self.steps)
            return min(1.0, (step + 1) / 500) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

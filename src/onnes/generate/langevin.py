"""Annealed Langevin decoding: from a latent vector to coordinates and types (Song & Ermon 2019; Xie et al. 2022).

Noise falls over geometric levels. At each of them a few Langevin steps move the coordinates along the score the decoder
gives, and the types are drawn anew from what it believes, with the type noise of the level added as in
training. The lattice comes from z and is replaced by the decoder's own estimate at the last levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from onnes.errors import SettingsError
from onnes.generate.cdvae import draw_types, type_sigma
from onnes.generate.process import LatticeScale, score_rms, sigma
from onnes.generate.stoichiometry import Stoichiometries, rounded
from onnes.nets.cdvae import Cdvae, Decoded
from onnes.nets.denoiser import MAX_Z

#: Standardised lattice vectors are kept within this many deviations.
LATTICE_BOUND = 5.0
#: Below this time the decoder's estimate of the lattice is used.
REFINE_BELOW = 0.3
#: Size of the steps without noise at the end, in units of sigma^2; a step of 1 goes to where the score points.
SETTLE_SIZE = 0.7


@dataclass(frozen=True)
class LangevinSettings:
    """How to decode.

    Attributes
    ----------
    levels : int
        Noise levels, geometric from 0.5 to 0.005 of a cell vector.
    steps : int
        Langevin steps at each (one evaluation of the decoder a step).
    size : float
        Step size in units of sigma^2: x += size sigma^2 score + sqrt(2 size) sigma noise.
    temperature : float
        Of the draws of types; below 1 prefers what the decoder finds likely.
    keep_composition : bool
        Types are an assignment of the atoms that z (or the caller) asks for to the sites, drawn by perturbed
        maximum; else every site draws for itself.
    refine : bool
        Replace the lattice read from z at the last levels.
    settle : int
        Steps without noise at the end, at the lowest level: they take away what is left of its noise.
    """

    levels: int = 50
    steps: int = 3
    size: float = 0.3
    temperature: float = 0.5
    keep_composition: bool = True
    refine: bool = True
    settle: int = 5

    def __post_init__(self) -> None:
        fine = self.levels >= 2 and self.steps >= 1 and 0 < self.size < 1 and 0 < self.temperature < np.inf
        if not fine or self.settle < 0:
            raise SettingsError(
                "bad-setting",
                f"levels >= 2, steps >= 1, settle >= 0, 0 < size < 1, temperature > 0 needed: {self}",
            )


#: Steps of the published sampler: 50 levels of 100 steps, for a GPU.
PUBLISHED_LANGEVIN = LangevinSettings(
    levels=50, steps=100, size=0.5, keep_composition=False, refine=False, settle=0
)


@dataclass
class Crystals:
    """Decoded crystals of N atoms each.

    Attributes
    ----------
    types : Tensor of int, shape (B, N)
    frac : Tensor, shape (B, N, 3)
    lattice : Tensor, shape (B, 6)
        Standardised vectors.
    """

    types: Tensor
    frac: Tensor
    lattice: Tensor


def assigned(logits: Tensor, counts: Tensor) -> Tensor:
    """Types (B, N) that use up ``counts`` (B, MAX_Z + 1) and have the largest sum of logits (B, N, MAX_Z + 1)."""
    out = []
    for row, amounts in zip(logits.numpy(), counts, strict=True):
        atoms = torch.repeat_interleave(torch.arange(len(amounts)), amounts).numpy()
        _, place = linear_sum_assignment(row[:, atoms], maximize=True)
        out.append(torch.as_tensor(atoms[place]))
    return torch.stack(out)


class Langevin:
    """Decodes latent vectors of crystals with the same number of atoms.

    Parameters
    ----------
    net : Cdvae
        In evaluation mode, on the CPU.
    scale : LatticeScale
    settings : LangevinSettings
    allowed : Tensor, shape (MAX_Z + 1,), optional
        Added to all logits of types: 0 where allowed, -inf where not.
    amounts : Stoichiometries, optional
        What numbers of atoms crystals have; without it those nearest to the fractions that z is read to are taken.
    """

    def __init__(
        self,
        net: Cdvae,
        scale: LatticeScale,
        settings: LangevinSettings,
        allowed: Tensor | None = None,
        amounts: Stoichiometries | None = None,
    ) -> None:
        self.net, self.scale, self.settings = net, scale, settings
        self.whole = rounded if amounts is None else amounts.whole
        none = torch.zeros(MAX_Z + 1)
        none[0] = -torch.inf
        self.allowed = none if allowed is None else allowed

    @torch.no_grad()
    def decode(self, z: Tensor, n: int, generator: torch.Generator, counts: Tensor | None = None) -> Crystals:
        """Decode z (B, latent) to crystals of n atoms.

        Parameters
        ----------
        z : Tensor, shape (B, latent)
        n : int
        generator : torch.Generator
        counts : Tensor of int, shape (B, MAX_Z + 1), optional
            Atoms of each element, kept exactly.
        """
        s = self.settings
        read = self.net.heads(z)
        lattice = read.lattice.clamp(-LATTICE_BOUND, LATTICE_BOUND)
        prior = read.composition_logits + self.allowed
        if counts is None and s.keep_composition:
            counts = self.whole(torch.softmax(prior, dim=-1), n)
        elif counts is not None:
            prior = torch.log(counts / n)
        frac = torch.rand((len(z), n, 3), generator=generator)
        types = self._types(prior[:, None].expand(-1, n, -1), counts, 1.0, generator)
        for t in torch.linspace(1.0, 0.0, s.levels):
            for _ in range(s.steps):
                said = self._ask(z, self._noisy(types, prior, t, generator), frac, lattice, t)
                types = self._types(said.type_logits + self.allowed, counts, s.temperature, generator)
                frac = self._move(frac, said.score, t, generator)
            if s.refine and t < REFINE_BELOW:
                lattice = said.lattice.clamp(-LATTICE_BOUND, LATTICE_BOUND)
        # Without noise at the end: the most likely types, then coordinates that settle where the score vanishes.
        last = torch.zeros(())
        said = self._ask(z, types, frac, lattice, last)
        types = self._types(said.type_logits + self.allowed, counts, 0.0, generator)
        for _ in range(s.settle):
            said = self._ask(z, types, frac, lattice, last)
            frac = (frac + SETTLE_SIZE * sigma(last) ** 2 * score_rms(last[None])[0] * said.score) % 1.0
        return Crystals(types, frac, lattice)

    def _ask(self, z: Tensor, types: Tensor, frac: Tensor, lattice: Tensor, t: Tensor) -> Decoded:
        cell = self.scale.cell(lattice, types.shape[1])
        said: Decoded = self.net.decoder(z, types, frac, lattice, cell, t.expand(len(z)))
        return said

    def _move(self, frac: Tensor, score: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
        size, s = self.settings.size, sigma(t)
        drift = size * s**2 * score_rms(t[None])[0] * score
        return (frac + drift + (2 * size) ** 0.5 * s * torch.randn(frac.shape, generator=generator)) % 1.0

    def _types(
        self, logits: Tensor, counts: Tensor | None, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Draw types from logits (B, N, MAX_Z + 1); the most likely ones at temperature 0."""
        if temperature > 0:
            uniform = torch.rand(logits.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
            logits = torch.log_softmax(logits, dim=-1) / temperature - torch.log(-torch.log(uniform))
        if counts is None:
            return logits.argmax(dim=-1)
        return assigned(logits.clamp(min=-1e6), counts)

    def _noisy(self, types: Tensor, prior: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
        """Types with the noise of training at time t."""
        b, n = types.shape
        s = type_sigma(t)
        logits = prior[:, None].expand(b, n, MAX_Z + 1)
        other = draw_types(logits, torch.rand(logits.shape, generator=generator))
        keep = torch.rand((b, n), generator=generator) < 1 / (1 + s)
        return torch.where(keep, types, other)


def counts_of(numbers: Sequence[int]) -> Tensor:
    """Atoms of each element (MAX_Z + 1,) of a list of atomic numbers."""
    return torch.bincount(torch.tensor(list(numbers)), minlength=MAX_Z + 1)

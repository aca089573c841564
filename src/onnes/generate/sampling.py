"""Sampling crystals from the joint diffusion model (seed paper 002, Algorithm 2, strided, with less noise, settled)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Lattice, Structure
from torch import Tensor

from onnes.errors import SettingsError
from onnes.generate.asked import SamplerSettings, wish_of
from onnes.generate.process import LatticeScale, alpha_bar, masked, score_rms, sigma
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.denoiser import MASK, MAX_Z, Denoised, Denoiser, DenoiserSettings

#: Crystals are always sampled in these blocks of consecutive indices, whatever is asked for, so that the same
#: seed and index give the same crystal in every run, interrupted or not.
BLOCK = 48
#: Steps without noise at the end of sampling (one evaluation each), and their size in units of sigma^2. The last
#: level of the schedule still has a noise of 0.005 of a cell vector, 0.03 A an atom, which breaks most symmetries.
SETTLE, SETTLE_SIZE = 10, 0.7
#: Scale of the noise that is added to lattice and coordinates: below 1 the likelier crystals are drawn more often.
NOISE = 0.7
#: Largest estimate of the clean lattice, in standard deviations.
CLIP = 4.0


class Sampler:
    """A trained diffusion model ready to draw from.

    Parameters
    ----------
    settings : SamplerSettings
    path : path, optional
        Checkpoint of kind ``diffusion``; the shipped one by default.
    settle : int
        Steps without noise at the end; 0 leaves the crystals with the noise of the last level.
    noise : float
        Scale of the noise added to lattice and coordinates; 1 samples what was learnt.

    Raises
    ------
    SettingsError
        As `onnes.generate.asked.wish_of`; ``no-condition`` for a Tc asked of a model trained without any.
    """

    def __init__(
        self,
        settings: SamplerSettings,
        path: str | Path | None = None,
        settle: int = SETTLE,
        noise: float = NOISE,
    ) -> None:
        self.settle, self.noise = settle, noise
        self.checkpoint = Checkpoint.load(path or pretrained("diffusion.safetensors"), "diffusion")
        stored = self.checkpoint.settings
        self.net = Denoiser(DenoiserSettings(**stored["network"]))
        self.net.load_state_dict(self.checkpoint.tensors)
        self.net.eval()
        self.scale = LatticeScale(tuple(stored["lattice_mean"]), tuple(stored["lattice_std"]))
        self.counts = {int(k): v for k, v in stored["atom_counts"].items()}
        self.settings = settings
        # What was never seen in training is not asked for: its weights are still the random ones.
        seen = stored.get("conditions", ("log_tc", "stable"))
        if settings.target_tc is not None and "log_tc" not in seen:
            raise SettingsError("no-condition", "this model was trained without Tc and cannot aim at one")
        self.stable = 1 if "stable" in seen else 0
        most = int(stored["network"]["max_atoms"])
        self.wish = wish_of(settings, stored["elements"], most)
        self.counts = self._sizes(most)
        mask = torch.full((MAX_Z + 1,), -torch.inf)
        mask[sorted(self.wish.formula or self.wish.elements or set(stored["elements"]))] = 0.0
        self.allowed = mask

    def _sizes(self, most: int) -> dict[int, int]:
        """How often each number of atoms is drawn."""
        unit = self.wish.unit or 1
        if self.wish.atoms is not None:
            return {self.wish.atoms: 1}
        fitting = {n: c for n, c in self.counts.items() if n % unit == 0}
        return fitting or dict.fromkeys(range(unit, most + 1, unit), 1)

    def sample(self, start: int, stop: int, seed: int) -> Iterator[tuple[int, Structure]]:
        """Yield ``(index, structure)`` for start <= index < stop; the same for the same seed and index."""
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            drawn = self._block(block, seed)
            for i, structure in enumerate(drawn):
                index = block * BLOCK + i
                if start <= index < stop:
                    yield index, structure

    def _block(self, block: int, seed: int) -> list[Structure]:
        rng = np.random.default_rng([seed, block])
        sizes = np.array(sorted(self.counts))
        share = np.array([self.counts[n] for n in sizes], dtype=float)
        drawn = rng.choice(sizes, size=BLOCK, p=share / share.sum())
        out: list[Structure | None] = [None] * BLOCK
        for n in np.unique(drawn):
            where = np.flatnonzero(drawn == n)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            for i, structure in zip(where, self.draw(len(where), int(n), generator), strict=True):
                out[i] = structure
        return [s for s in out if s is not None]

    def draw(self, count: int, n: int, generator: torch.Generator) -> Sequence[Structure]:
        """Draw ``count`` crystals of ``n`` atoms each."""
        return self.arrange(self._known(count, n), generator)

    @torch.no_grad()
    def arrange(self, types: Tensor, generator: torch.Generator) -> Sequence[Structure]:
        """Draw a crystal for each row of types.

        Parameters
        ----------
        types : Tensor of int, shape (B, N)
            Atomic numbers, all known (structure prediction) or all `onnes.nets.denoiser.MASK`.
        generator : torch.Generator

        Returns
        -------
        sequence of pymatgen Structure
        """
        s = self.settings
        count, n = types.shape
        given = not bool((types == MASK).any())
        frac = torch.rand((count, n, 3), generator=generator)
        lattice = torch.randn((count, 6), generator=generator)
        log_tc = torch.full((count,), float("nan") if s.target_tc is None else float(np.log10(s.target_tc)))
        stable = torch.full((count,), self.stable)
        times = torch.linspace(1.0, 0.0, s.n_steps + 1)

        def evaluate(t: Tensor) -> Denoised:
            cell = self.scale.cell(lattice, n)
            at = t.expand(count)
            asked = self.net(types, frac, lattice, cell, at, log_tc, stable)
            if s.target_tc is None or s.guidance == 0.0:
                return asked
            free = self.net(types, frac, lattice, cell, at, torch.full_like(log_tc, torch.nan), stable)
            return _guided(asked, free, s.guidance)

        def normal(like: Tensor) -> Tensor:
            return self.noise * torch.randn(like.shape, generator=generator)

        for k in range(s.n_steps):
            t, u = times[k], times[k + 1]
            said = evaluate(t)
            types = types if given else self._reveal(types, said.type_logits, t, u, generator)
            lattice = _lattice_step(lattice, said.lattice, t, u, normal(lattice))
            frac = _predict(frac, said.score, t, u, normal(frac))
            if k < s.n_steps - 1:
                # Corrector at the new level: one Langevin step.
                score = evaluate(u).score * score_rms(u[None])[0]
                step = s.corrector * (sigma(u) / sigma(times[-1])) ** 2
                frac = (frac + step * score + (2 * step).sqrt() * normal(frac)) % 1.0
        for _ in range(self.settle):
            said = evaluate(times[-1])
            frac, lattice = _settled(frac, said.score), said.lattice.clamp(-CLIP, CLIP)
        return [_structure(c, z, f) for c, z, f in zip(self.scale.cell(lattice, n), types, frac, strict=True)]

    def _known(self, count: int, n: int) -> Tensor:
        """Types at the start: those of the formula where one is asked for (structure prediction)."""
        row = [z for z, amount in self.wish.counts(n).items() for _ in range(amount)]
        return torch.tensor(row or [MASK] * n).expand(count, n).clone()

    def _reveal(
        self, types: Tensor, logits: Tensor, t: Tensor, u: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Give a type to some of the unknown atoms: each with the probability of the reverse process."""
        before, after = masked(t), masked(u)
        if float(before) == 0.0:
            return types
        chance = (before - after) / before
        now = (torch.rand(types.shape, generator=generator) < chance) & (types == MASK)
        p = torch.softmax(logits / self.settings.temperature + self.allowed, dim=-1)
        drawn = torch.multinomial(p.flatten(0, 1), 1, generator=generator).reshape(types.shape)
        return torch.where(now, drawn, types)


def _guided(asked: Denoised, free: Denoised, weight: float) -> Denoised:
    """Extrapolate from the unconditioned answer through the conditioned one."""
    logits = torch.log_softmax(asked.type_logits, -1), torch.log_softmax(free.type_logits, -1)
    pairs = (logits, (asked.lattice, free.lattice), (asked.score, free.score))
    types, lattice, score = (a + weight * (a - b) for a, b in pairs)
    return Denoised(type_logits=types, lattice=lattice, score=score)


def _lattice_step(x: Tensor, clean: Tensor, t: Tensor, u: Tensor, noise: Tensor) -> Tensor:
    """Posterior of the lattice at time u given its value at t and the (clipped) estimate of the clean one."""
    clean = clean.clamp(-CLIP, CLIP)
    a, b = alpha_bar(t), alpha_bar(u)
    ratio = a / b
    mean = b.sqrt() * (1 - ratio) / (1 - a) * clean + ratio.sqrt() * (1 - b) / (1 - a) * x
    spread = ((1 - b) * (1 - ratio) / (1 - a)).clamp(min=0).sqrt()
    if float(u) == 0.0:
        return clean
    return mean + spread * noise


def _predict(frac: Tensor, score: Tensor, t: Tensor, u: Tensor, noise: Tensor) -> Tensor:
    """Ancestral step of the variance-exploding process from sigma(t) to sigma(u)."""
    big, small = sigma(t) ** 2, sigma(u) ** 2
    moved = frac + (big - small) * score * score_rms(t[None])[0]
    if float(u) > 0.0:
        moved = moved + (small * (big - small) / big).sqrt() * noise
    return moved % 1.0


def _settled(frac: Tensor, score: Tensor) -> Tensor:
    """Move towards the mean of the clean coordinates at the lowest level (Tweedie's formula, damped)."""
    zero = torch.zeros(())
    return (frac + SETTLE_SIZE * sigma(zero) ** 2 * score_rms(zero[None])[0] * score) % 1.0


def _structure(cell: Tensor, types: Tensor, frac: Tensor) -> Structure:
    # Rounding makes files of the same seed identical to the last digit.
    return Structure(Lattice(np.round(cell.numpy(), 6)), types.tolist(), np.round(frac.numpy(), 6) % 1.0)

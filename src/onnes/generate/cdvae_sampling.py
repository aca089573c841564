"""Crystals from the autoencoder: generation, reconstruction, optimisation towards a high Tc."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pymatgen.core import Lattice, Structure
from torch import Tensor

from onnes.errors import InputError, SettingsError
from onnes.generate.crystals import niggli_primitive
from onnes.generate.langevin import Crystals, Langevin, LangevinSettings, counts_of
from onnes.generate.latent import AscentSettings, LatentPrior, Prior, Reweighted, ascend
from onnes.generate.process import LatticeScale
from onnes.generate.sampling import BLOCK
from onnes.generate.site_sampling import Wish
from onnes.generate.stoichiometry import Stoichiometries
from onnes.generate.validity import overlapping
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.cdvae import Cdvae, CdvaeSettings
from onnes.nets.denoiser import MAX_Z
from onnes.nets.latent_critic import LatentCritic
from onnes.nets.latent_flow import LatentFlow

#: Latent vectors drawn from the prior for a block of crystals when a condition has to be met.
CANDIDATES = 1024
#: Crystals with two atoms closer than this share of the sum of their covalent radii are drawn anew, so often at most;
#: 53 of the 30,782 training crystals have such atoms (training/cdvae/evaluate.py overlaps). To decode the same z again
#: does not part them.
CLOSEST, AGAIN = 0.70, 3
#: How z is moved towards elements, formula or number of atoms.
SEARCH = AscentSettings(steps=100, rate=0.03, penalty=3.0)


@dataclass(frozen=True)
class CdvaeSamplerSettings:
    """How to sample.

    Attributes
    ----------
    wish : Wish
        Elements, formula, number of atoms and Tc asked for. A space group cannot be asked of this model.
    decoding : LangevinSettings
    prior : {"reweighted", "flow", "mixture", "gaussian"}
        Distribution of latent vectors: a flow, resampled by a critic; the flow alone; a mixture of Gaussians; the
        standard normal that the autoencoder is trained towards. The last three are there for comparison.
    ascent : AscentSettings
        How z is moved where a Tc is asked for and in `CdvaeSampler.optimise`.
    search : AscentSettings
        How z is moved so that the heads read the elements, formula or number of atoms asked for. These are kept
        whatever the heads read; a longer search makes crystals that suit them.
    again : int
        How often at most a crystal whose atoms overlap is replaced by another; 0 for what is drawn first.
    """

    wish: Wish = field(default_factory=Wish)
    decoding: LangevinSettings = field(default_factory=LangevinSettings)
    prior: Literal["reweighted", "flow", "mixture", "gaussian"] = "reweighted"
    ascent: AscentSettings = field(default_factory=AscentSettings)
    search: AscentSettings = SEARCH
    again: int = AGAIN

    def __post_init__(self) -> None:
        if self.again < 0:
            raise SettingsError("bad-setting", f"again >= 0 needed: {self.again}")


@dataclass(frozen=True)
class Optimised:
    """A crystal decoded from an optimised latent vector.

    Attributes
    ----------
    structure : pymatgen Structure
    before, after : float
        log10(Tc / K) that the head reads from z before and after.
    log_prior : float
        Log density of z afterwards, nats.
    """

    structure: Structure
    before: float
    after: float
    log_prior: float


class CdvaeSampler:
    """A trained autoencoder ready to draw from.

    Parameters
    ----------
    settings : CdvaeSamplerSettings
    path : path, optional
        Checkpoint of kind ``cdvae``; the shipped one by default.

    Attributes
    ----------
    rejected : Counter
        Latent vectors and crystals that were drawn and left aside, by the reason.

    Raises
    ------
    SettingsError
        ``untrained-element``, ``cannot-fill``, ``bad-setting``.
    """

    def __init__(self, settings: CdvaeSamplerSettings, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("cdvae.safetensors"), "cdvae")
        stored = self.checkpoint.settings
        size = CdvaeSettings(**stored["network"])
        tensors = self.checkpoint.tensors
        self.net = Cdvae(size)
        self.net.load_state_dict(
            {k: v for k, v in tensors.items() if k.startswith(("encoder.", "heads.", "decoder."))}
        )
        self.net.eval().requires_grad_(False)
        self.scale = LatticeScale(tuple(stored["lattice_mean"]), tuple(stored["lattice_std"]))
        self.elements = frozenset(stored["elements"])
        self.sizes = frozenset(int(n) for n in stored["atom_counts"])
        self.settings = settings
        self.prior = self._prior(stored, tensors)
        self.rejected: Counter[str] = Counter()
        self._check(settings.wish)
        amounts = Stoichiometries(stored["amounts"]) if "amounts" in stored else None
        self.langevin = Langevin(self.net, self.scale, settings.decoding, self._allowed(), amounts)

    def _prior(self, stored: dict[str, Any], tensors: dict[str, Tensor]) -> Prior:
        size, name = self.net.settings.latent, self.settings.prior
        if name == "gaussian":
            return LatentPrior.standard(size)
        if name == "mixture":
            return LatentPrior.from_tensors(tensors, size)
        if name not in ("reweighted", "flow"):
            every = "reweighted, flow, mixture, gaussian"
            raise SettingsError("bad-setting", f"prior {name!r} is not one of {every}")
        flow = LatentFlow(size, **stored["flow"])
        flow.load_state_dict(_part(tensors, "flow."))
        flow.eval().requires_grad_(False)
        if name == "flow":
            return flow
        critic = LatentCritic(size, **stored["critic"])
        critic.load_state_dict(_part(tensors, "critic."))
        return Reweighted(flow, critic.eval().requires_grad_(False), self.net.heads)

    def _check(self, wish: Wish) -> None:
        if wish.group is not None:
            raise SettingsError("no-space-group", "the autoencoder cannot keep a space group")
        untrained = sorted((set(wish.elements) | set(wish.formula)) - self.elements)
        if untrained:
            raise SettingsError("untrained-element", f"never trained on atomic numbers {untrained}")
        fine = [n for n in self.sizes if wish.atoms in (None, n) and (not wish.formula or n % wish.unit == 0)]
        if not fine:
            asked = f"{wish.atoms} atoms" if wish.atoms else f"formula units of {wish.unit} atoms"
            raise SettingsError(
                "cannot-fill", f"no trained number of atoms fits {asked}: {sorted(self.sizes)}"
            )

    def _allowed(self) -> Tensor:
        mask = torch.full((MAX_Z + 1,), -torch.inf)
        wish = self.settings.wish
        mask[sorted(set(wish.formula) or wish.elements or self.elements)] = 0.0
        return mask

    def sample(self, start: int, stop: int, seed: int) -> Iterator[tuple[int, Structure]]:
        """Yield ``(index, structure)`` for start <= index < stop; the same for the same seed and index."""
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            generator = torch.Generator().manual_seed(_seed(seed, block))
            for i, structure in enumerate(self._block(generator)):
                index = block * BLOCK + i
                if start <= index < stop:
                    yield index, structure

    @torch.no_grad()
    def latents(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[int]]:
        """Latent vectors (count, latent) for the conditions asked for, and the numbers of atoms to decode them to.

        With a condition, `CANDIDATES` vectors are drawn from the prior, ``count`` of them are kept with chances
        proportional to the likelihood of the condition, and these are moved to where the heads read it.
        """
        wish = self.settings.wish
        if not (wish.formula or wish.elements or wish.atoms):
            z = self.prior.sample(count, generator)
        else:
            drawn = self.prior.sample(CANDIDATES, generator)
            noise = -torch.log(-torch.log(torch.rand(CANDIDATES, generator=generator).clamp(1e-9, 1 - 1e-7)))
            z = drawn[(self._fit(drawn) + noise).topk(count).indices]
            self.rejected["latent vectors far from the conditions were left aside"] += CANDIDATES - count
            z = ascend(self._fit, self.prior, z, self.settings.search)
        if wish.log_tc is not None:
            target = float(wish.log_tc)
            z = ascend(
                lambda x: self._fit(x) - (self._log_tc(x) - target).abs(),
                self.prior,
                z,
                self.settings.ascent,
            )
        return z, self._sizes(z)

    def _log_tc(self, z: Tensor) -> Tensor:
        return self.net.heads(z).log_tc

    def _fine(self) -> list[int]:
        """Numbers of atoms that can be decoded to."""
        wish = self.settings.wish
        unit = wish.unit if wish.formula else 1
        return sorted(n for n in self.sizes if wish.atoms in (None, n) and n % unit == 0)

    def _fit(self, z: Tensor) -> Tensor:
        """Log likelihood (B,) of the conditions (number of atoms, composition an atom, elements) given z."""
        wish, read = self.settings.wish, self.net.heads(z)
        out = z.new_zeros(len(z))
        if wish.atoms or wish.formula:
            out = out + torch.log_softmax(read.count_logits, -1)[:, self._fine()].logsumexp(-1)
        log_fraction = torch.log_softmax(read.composition_logits, -1)
        if wish.formula:
            # The divergence from the fractions asked for, zero where they are read exactly.
            asked = {z: a / wish.unit for z, a in wish.formula.items()}
            parts = [x * (log_fraction[:, z] - math.log(x)) for z, x in asked.items()]
            out = out + wish.unit * torch.stack(parts).sum(dim=0)
        elif wish.elements:
            out = out + log_fraction[:, sorted(wish.elements)].logsumexp(-1)
        return out

    def _sizes(self, z: Tensor) -> list[int]:
        fine = self._fine()
        best = self.net.heads(z).count_logits[:, fine].argmax(dim=-1)
        return [fine[i] for i in best.tolist()]

    def _block(self, generator: torch.Generator) -> list[Structure]:
        """Crystals of a block; those whose atoms overlap are drawn anew, and what still does is kept."""
        made = self._structures(*self.latents(BLOCK, generator), generator)
        close = [i for i, s in enumerate(made) if overlapping(s, CLOSEST)] if self.settings.again else []
        for _ in range(self.settings.again):
            if not close:
                return made
            self.rejected["crystals whose atoms overlap were left aside"] += len(close)
            others = self._structures(*self.latents(len(close), generator), generator)
            for i, other in zip(close, others, strict=True):
                made[i] = other
            close = [i for i in close if overlapping(made[i], CLOSEST)]
        if close:
            self.rejected["crystals whose atoms overlap were kept, as others did, too"] += len(close)
        return made

    def _structures(
        self, z: Tensor, sizes: Sequence[int], generator: torch.Generator, counts: Tensor | None = None
    ) -> list[Structure]:
        """Decode vectors to crystals with these numbers of atoms (and of each element, (B, MAX_Z + 1))."""
        at = np.array(sizes)
        out: list[Structure | None] = [None] * len(sizes)
        for n in np.unique(at).tolist():
            where = np.flatnonzero(at == n)
            asked = None if counts is None else counts[where]
            if self.settings.wish.formula:
                amounts = torch.zeros(MAX_Z + 1, dtype=torch.long)
                for number, amount in self.settings.wish.counts(n).items():
                    amounts[number] = amount
                asked = amounts.expand(len(where), -1)
            decoded = self.langevin.decode(z[where], n, generator, asked)
            for i, structure in zip(where, self._finished(decoded, n), strict=True):
                out[i] = structure
        return [s for s in out if s is not None]

    def _finished(self, decoded: Crystals, n: int) -> list[Structure]:
        cells = self.scale.cell(decoded.lattice, n)
        # Rounding makes files of the same seed identical to the last digit.
        return [
            Structure(Lattice(np.round(c.numpy(), 6)), z.tolist(), np.round(f.numpy(), 6) % 1.0)
            for c, z, f in zip(cells, decoded.types, decoded.frac, strict=True)
        ]

    def optimise(self, start: int, stop: int, seed: int) -> Iterator[tuple[int, Optimised]]:
        """Yield crystals whose latent vectors were moved towards the highest Tc, start <= index < stop.

        The vectors begin as those that `sample` draws first with the same seed and index; no crystal is drawn anew.
        """
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            generator = torch.Generator().manual_seed(_seed(seed, block))
            z, _ = self.latents(BLOCK, generator)
            moved = ascend(lambda x: self._fit(x) + self._log_tc(x), self.prior, z, self.settings.ascent)
            before, after = self._log_tc(z).tolist(), self._log_tc(moved).tolist()
            likely = self.prior.log_prob(moved).tolist()
            structures = self._structures(moved, self._sizes(moved), generator)
            for i, structure in enumerate(structures):
                index = block * BLOCK + i
                if start <= index < stop:
                    yield index, Optimised(structure, before[i], after[i], likely[i])

    @torch.no_grad()
    def encode(self, structures: Iterable[Structure]) -> tuple[Tensor, list[np.ndarray]]:
        """Means of the posteriors (B, latent) and the atomic numbers of the primitive cells.

        Raises
        ------
        InputError
            ``too-many-atoms``.
        SettingsError
            ``untrained-element``.
        """
        means, numbers = [], []
        for structure in structures:
            cell, types, frac = niggli_primitive(
                np.array(structure.lattice.matrix),
                np.array([site.specie.Z for site in structure]),
                np.array(structure.frac_coords),
            )
            self._known(types)
            n = len(types)
            vector = torch.tensor(self.scale.encode(LatticeScale.raw(cell[None], n)), dtype=torch.float32)
            mean, _ = self.net.encoder(
                torch.as_tensor(types, dtype=torch.long)[None],
                torch.as_tensor(frac, dtype=torch.float32)[None],
                vector,
                self.scale.cell(vector, n),
            )
            means.append(mean)
            numbers.append(types)
        size = self.net.settings.latent
        return torch.cat(means) if means else torch.zeros(0, size), numbers

    def _known(self, types: np.ndarray) -> None:
        if len(types) > self.net.settings.max_atoms:
            most = self.net.settings.max_atoms
            raise InputError(
                "too-many-atoms", f"{len(types)} atoms in the primitive cell, at most {most} allowed"
            )
        untrained = sorted(set(types.tolist()) - self.elements)
        if untrained:
            raise SettingsError("untrained-element", f"never trained on atomic numbers {untrained}")

    def reconstruct(
        self,
        structures: Sequence[Structure],
        seed: int,
        *,
        given: Literal["nothing", "atoms", "composition"] = "nothing",
    ) -> list[Structure]:
        """Encode crystals and decode them again.

        Parameters
        ----------
        structures : sequence of pymatgen Structure
        seed : int
        given : {"nothing", "atoms", "composition"}
            What the decoder is told besides z.
        """
        z, numbers = self.encode(structures)
        return self.decode(z, numbers, seed, given=given)

    @torch.no_grad()
    def decode(
        self,
        z: Tensor,
        numbers: Sequence[np.ndarray],
        seed: int,
        *,
        given: Literal["nothing", "atoms", "composition"] = "nothing",
    ) -> list[Structure]:
        """Decode latent vectors (B, latent), told nothing, the lengths or all of the atomic numbers given."""
        sizes = self._sizes(z) if given == "nothing" else [len(x) for x in numbers]
        counts = torch.stack([counts_of(x.tolist()) for x in numbers]) if given == "composition" else None
        out: list[Structure] = []
        for start in range(0, len(z), BLOCK):
            part = slice(start, start + BLOCK)
            generator = torch.Generator().manual_seed(_seed(seed, start // BLOCK))
            told = None if counts is None else counts[part]
            out += self._structures(z[part], sizes[part], generator, told)
        return out


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}


def _seed(seed: int, block: int) -> int:
    return int(np.random.default_rng([seed, block]).integers(2**62))

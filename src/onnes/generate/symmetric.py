"""Crystals by symmetry: space group, Wyckoff letters and elements first, then lattice and free parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from onnes.errors import SettingsError
from onnes.generate.asked import SamplerSettings, wish_of
from onnes.generate.diffusion import OrbitDiffusion
from onnes.generate.generic import generic
from onnes.generate.orbit_sampling import OrbitSampler, OrbitSettings
from onnes.generate.orbits import FamilyScale, Frame
from onnes.generate.sampling import BLOCK
from onnes.generate.site_sampling import Drawn, SiteSampler, Wish
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.denoiser import DenoiserSettings
from onnes.nets.sites import SiteSettings, SiteTransformer

#: Times that a block is drawn again where symbols have more symmetry than the group asked for.
ROUNDS = 20


class SymmetricSampler:
    """The shipped symmetric generator ready to draw from.

    Parameters
    ----------
    settings : SamplerSettings
    path : path, optional
        Checkpoint of kind ``symmetric``; the shipped one by default.

    Attributes
    ----------
    rejected : Counter
        Symbols that were drawn and left aside, by reason.

    Raises
    ------
    SettingsError
        As `onnes.generate.asked.wish_of`; ``cannot-fill`` where no orbits hold what is asked.
    """

    def __init__(self, settings: SamplerSettings, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("symmetric.safetensors"), "symmetric")
        self.settings = settings
        self.rejected: Counter[str] = Counter()
        stored = self.checkpoint.settings
        network = SiteSettings(**stored["sites"])
        sources = stored.get("like", ())
        self.wish = wish_of(settings, stored["elements"], network.max_atoms, sources)
        composed = [
            self._site_net(SiteSettings(**size), f"composed{i}")
            for i, size in enumerate(stored.get("composed", ()))
        ]
        self.sites = SiteSampler(self._site_net(network), stored["elements"], composed)
        self.sites.check(self.wish)
        self.orbits = OrbitSampler(
            self._orbit_net(), OrbitSettings(steps=settings.n_steps, corrector=settings.corrector)
        )

    def _part(self, name: str) -> dict[str, torch.Tensor]:
        prefix = f"{name}."
        found = self.checkpoint.tensors.items()
        return {k.removeprefix(prefix): v.float() for k, v in found if k.startswith(prefix)}

    def _site_net(self, network: SiteSettings, name: str = "sites") -> SiteTransformer:
        net = SiteTransformer(network)
        net.load_state_dict(self._part(name))
        return net.eval()

    def _orbit_net(self) -> OrbitDiffusion:
        stored = self.checkpoint.settings
        model = OrbitDiffusion(DenoiserSettings(**stored["orbits"]), FamilyScale(*stored["lattice_scale"]))
        model.net.load_state_dict(self._part("orbits"))
        return model.eval()

    def sample(self, start: int, stop: int, seed: int) -> Iterator[tuple[int, Structure]]:
        """Yield ``(index, structure)`` for start <= index < stop; the same for the same seed and index.

        Raises
        ------
        SettingsError
            ``higher-symmetry``: all symbols drawn for the group or number of atoms asked for have more symmetry.
        """
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            rng = np.random.default_rng([seed, block])
            frames = self._frames(rng)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            made = self.orbits.draw(frames, generator, self.wish.log_tc)
            for i, structure in enumerate(made):
                index = block * BLOCK + i
                if start <= index < stop:
                    yield index, structure

    def keeps(self, frame: Frame) -> bool:
        """Whether a frame has the group and the number of atoms of the primitive cell that were asked for, exactly."""
        if self.wish.group is None and self.wish.atoms is None:
            return True
        number, n_atoms = generic(frame)
        return self.wish.group in (None, number) and self.wish.atoms in (None, n_atoms)

    def exact(self, count: int, rng: np.random.Generator) -> list[Frame]:
        """Draw symbols until ``count`` are what was asked for; one element on several points can be a denser lattice.

        After `ROUNDS` times ``count`` draws what was found has to do: fewer than ``count``.

        Raises
        ------
        SettingsError
            ``higher-symmetry`` where nothing was found.
        """
        kept: list[Frame] = []
        for _ in range(ROUNDS):
            drawn = [d.frame for d in self.sites.draw([self.wish] * count, rng)]
            fine = [f for f in drawn if self.keeps(f)]
            if len(fine) < count:
                self.rejected["symbols of a denser lattice or higher group were left aside"] += count - len(
                    fine
                )
            kept += fine
            if len(kept) >= count:
                return kept[:count]
        if not kept:
            raise SettingsError(
                "higher-symmetry", f"{ROUNDS * count} draws all have more symmetry than {self._asked()}"
            )
        return kept

    def _asked(self) -> str:
        group, atoms = self.wish.group, self.wish.atoms
        return " and ".join(
            [f"group {group}"] * (group is not None) + [f"{atoms} atoms"] * (atoms is not None)
        )

    def _frames(self, rng: np.random.Generator) -> list[Frame]:
        """Symbols of a block; where few are what was asked for, these are taken again."""
        kept = self.exact(BLOCK, rng)
        if missing := BLOCK - len(kept):
            self.rejected["symbols were taken again, as few are what was asked for"] += missing
        return kept + [kept[i] for i in rng.integers(len(kept), size=missing)]

    def symbols(self, wishes: Sequence[Wish], seed: int) -> list[Drawn]:
        """Draw space groups, letters and elements only."""
        return self.sites.draw(wishes, np.random.default_rng(seed))

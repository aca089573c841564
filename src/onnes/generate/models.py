"""Generators by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from onnes.generate.asked import SamplerSettings, wish_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.learn.store import Checkpoint


class CrystalSampler(Protocol):
    """What every generator can do."""

    checkpoint: Checkpoint

    def sample(self, start: int, stop: int, seed: int) -> Iterator[tuple[int, Structure]]:
        """Yield ``(index, structure)`` for start <= index < stop; the same for the same seed and index."""


def open_sampler(settings: SamplerSettings, path: str | Path | None = None) -> CrystalSampler:
    """Load the generator that the settings name.

    Parameters
    ----------
    settings : SamplerSettings
    path : path, optional
        Checkpoint; the shipped one by default.

    Raises
    ------
    SettingsError
        For what the model cannot do.
    ModelError
        When the checkpoint is absent, damaged or of another kind.
    """
    if settings.model == "symmetric":
        from onnes.generate.symmetric import SymmetricSampler

        return SymmetricSampler(settings, path)
    if settings.model == "joint":
        from onnes.generate.sampling import Sampler

        return Sampler(settings, path)
    from onnes.generate.cdvae_sampling import CdvaeSampler, CdvaeSamplerSettings
    from onnes.learn.store import Checkpoint, pretrained

    stored = Checkpoint.load(path or pretrained("cdvae.safetensors"), "cdvae").settings
    wish = wish_of(settings, stored["elements"], int(stored["network"]["max_atoms"]))
    return CdvaeSampler(CdvaeSamplerSettings(wish=wish), path)

"""A fast network for electron-phonon targets: the ALIGNN body with a wider readout.

The published readout is a mean over atoms and one linear layer. This one also sees the spread over the atoms,
attention-weighted means, the volume per atom and the source of the labels, and can learn further quantities of
the crystal beside the targets (``auxiliary``), which regularise the body and are dropped from the shipped file.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnes.errors import SettingsError
from onnes.graph.batch import BondBatch
from onnes.nets.alignn import Alignn, AlignnSettings, preset
from onnes.nets.elements import MAX_Z, one_hot
from onnes.nets.graph_parts import total


@dataclass(frozen=True)
class EpcNetSettings:
    """Size of the network.

    Attributes
    ----------
    body : AlignnSettings
        Graphs, layers and width.
    targets, auxiliary : int
        Outputs a crystal; quantities learned beside them.
    sources : int
        Conventions of labels.
    heads : int
        Attention-weighted means over the atoms.
    readout : int
        Width of the readout.
    dropout : float
        Of the readout, in training.
    """

    body: AlignnSettings = field(default_factory=lambda: preset("onnes"))
    targets: int = 3
    auxiliary: int = 0
    sources: int = 2
    heads: int = 4
    readout: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name, least in (("targets", 1), ("auxiliary", 0), ("sources", 1), ("heads", 1), ("readout", 1)):
            if getattr(self, name) < least:
                raise SettingsError("bad-setting", f"{name} = {getattr(self, name)}; use at least {least}")
        if not 0.0 <= self.dropout < 1.0:
            raise SettingsError("bad-setting", f"dropout = {self.dropout}; use a number from 0 to below 1")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpcNetSettings:
        """Read settings back from a checkpoint.

        Raises
        ------
        SettingsError
            ``unknown-setting``.
        """
        rest = dict(values)
        body = AlignnSettings.from_dict(rest.pop("body", {}))
        unknown = sorted(set(rest) - set(cls.__dataclass_fields__))
        if unknown:
            raise SettingsError(
                "unknown-setting", f"settings of the fast network do not know {', '.join(unknown)}"
            )
        return cls(body=body, **rest)


#: Properties of the elemental solids that vibrations depend on (pymatgen's names); learned as logarithms.
SOLIDS = ("atomic_mass", "melting_point", "bulk_modulus", "mendeleev_no", "row")


def element_table() -> np.ndarray:
    """Features of the elements: binned properties, one column an element, and the elemental solids.

    The column of its own tells the body Hf from Zr; mass, melting point and bulk modulus stand for the stiffness
    and the frequencies of elements that few crystals contain.

    Returns
    -------
    ndarray, shape (104, 88 + 104 + 5)
        Row Z. The properties of the solids have mean 0 and deviation 1; unknown values are 0.
    """
    from pymatgen.core import Element

    solids = np.full((MAX_Z + 1, len(SOLIDS)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of every missing value
        for z in range(1, MAX_Z + 1):
            values = [getattr(Element.from_Z(z), name) for name in SOLIDS]
            solids[z] = [np.nan if v is None else np.log(float(v)) for v in values]
    solids = (solids - np.nanmean(solids, axis=0)) / np.nanstd(solids, axis=0)
    return np.concatenate([one_hot(), np.eye(MAX_Z + 1), np.nan_to_num(solids)], axis=1)


class EpcNet(nn.Module):
    """Standardised targets of a crystal.

    Parameters
    ----------
    settings : EpcNetSettings
    """

    def __init__(self, settings: EpcNetSettings) -> None:
        super().__init__()
        s = self.settings = settings
        width = s.body.hidden
        self.body = Alignn(s.body, element_table())
        self.body.out = nn.Identity()  # type: ignore[assignment]  # its readout is not used
        self.score = nn.Linear(width, s.heads)
        self.source = nn.Embedding(s.sources, 8)
        self.read = nn.Sequential(
            nn.LayerNorm((2 + s.heads) * width),
            nn.Linear((2 + s.heads) * width, s.readout),
            nn.SiLU(),
            nn.Dropout(s.dropout),
        )
        self.out = nn.Sequential(
            nn.Linear(s.readout + 9, s.readout), nn.SiLU(), nn.Linear(s.readout, s.targets)
        )
        self.extra = nn.Linear(s.readout, s.auxiliary) if s.auxiliary else None

    def forward(self, batch: BondBatch, log_volume: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Targets, shape (B, targets), and the auxiliary quantities, shape (B, auxiliary), where there are any.

        Parameters
        ----------
        batch : BondBatch
        log_volume : Tensor, shape (B,)
            Natural logarithm of the volume per atom in cubic angstrom.
        source : Tensor of int, shape (B,)

        Raises
        ------
        ModelError
            ``graph-settings`` or ``unknown-element``.
        """
        crystal = self.read(self.pool(self.body.atoms(batch), batch))
        return self._targets(crystal, log_volume, source), None if self.extra is None else self.extra(crystal)

    def read_out(self, x: Tensor, batch: BondBatch, log_volume: Tensor, source: Tensor) -> Tensor:
        """Targets from the features of the atoms, shape (B, targets)."""
        return self._targets(self.read(self.pool(x, batch)), log_volume, source)

    def _targets(self, crystal: Tensor, log_volume: Tensor, source: Tensor) -> Tensor:
        more = torch.cat([crystal, (log_volume - 3.0).unsqueeze(1), self.source(source)], dim=1)
        out: Tensor = self.out(more)
        return out

    def pool(self, x: Tensor, batch: BondBatch) -> Tensor:
        """Mean, deviation and attention-weighted means over the atoms, shape (B, (2 + heads) hidden)."""
        share, at, size = batch.share.unsqueeze(1), batch.crystal, batch.size
        n = batch.n_atoms.unsqueeze(1)
        mean = total(x * share, at, size) / n
        off = x - mean.index_select(0, at)
        deviation = (total(off.square() * share, at, size) / n + 1e-6).sqrt()
        # Bounded scores need no subtraction of the largest: exp(+-5) is harmless in single precision.
        attention = (5.0 * torch.tanh(self.score(x) / 5.0)).exp() * share
        attention = attention / total(attention, at, size).index_select(0, at)
        heads = total((attention.unsqueeze(2) * x.unsqueeze(1)).flatten(1), at, size)
        return torch.cat([mean, deviation, heads], dim=1)

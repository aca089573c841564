"""Graph networks as models of `onnes train`: bonds and angles in, one offset a label source."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnes.crystal.formula import numbers as atomic_numbers
from onnes.data.records import Record
from onnes.errors import CrystalError
from onnes.graph.batch import BondBatch, collate
from onnes.graph.cache import GraphCache
from onnes.nets import alignn, megnet

#: Name on the command line -> (family, preset).
GRAPH_MODELS = {
    "alignn": ("alignn", "paper"),
    "alignn-onnes": ("alignn", "onnes"),
    "megnet": ("megnet", "invdesflow"),
    "megnet-onnes": ("megnet", "onnes"),
}


class WithSource(nn.Module):
    """A graph network and, for each label source, an offset of its outputs.

    Two sets of labels that follow different conventions then share everything but a shift.
    """

    def __init__(self, net: nn.Module, sources: int, targets: int) -> None:
        super().__init__()
        self.net = net
        self.offset = nn.Embedding(sources, targets)
        nn.init.zeros_(self.offset.weight)

    def forward(self, batch: BondBatch, source: Tensor) -> Tensor:
        """Targets, shape (B, targets)."""
        out: Tensor = self.net(batch) + self.offset(source)
        return out


class GraphEncoder:
    """Neighbour graphs of the preset's settings, cached in ``folder/graphs``.

    Parameters
    ----------
    name : str
        Key of `GRAPH_MODELS`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        family, preset = GRAPH_MODELS[name]
        self.preset: Any = alignn.preset(preset) if family == "alignn" else megnet.preset(preset)
        self.family = family

    def encode(self, records: Sequence[Record], sources: Sequence[int], folder: Path) -> list[Any]:
        """Build the graphs; None for a crystal without bonds in range."""
        cache = GraphCache(folder / "graphs")
        found: list[Any] = []
        for record, source in zip(records, sources, strict=True):
            structure = record.structure()
            lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
            try:
                graph = cache.get(atomic_numbers(structure), lattice, frac, self.preset.graph)
            except CrystalError:
                found.append(None)
                continue
            found.append((graph, source))
        return found

    def collate(self, items: list[Any]) -> tuple[BondBatch, Tensor]:
        """Join graphs."""
        return collate([graph for graph, _ in items]), torch.tensor([source for _, source in items])

    def network(self, targets: int, sources: int) -> nn.Module:
        """A fresh network of the preset's size."""
        settings = dataclasses.replace(self.preset, targets=targets)
        net = alignn.Alignn(settings) if self.family == "alignn" else megnet.Megnet(settings)
        return WithSource(net, sources, targets)

    def standardise(self, net: nn.Module, train: list[int]) -> None:
        """Nothing to do: the inputs are elements and distances."""

    def settings(self) -> dict[str, Any]:
        """Preset, written out."""
        return {"preset": self.name, "network": self.preset.as_dict()}

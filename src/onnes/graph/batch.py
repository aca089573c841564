"""Batches of crystal graphs as flat torch tensors (the only module of the graph room that imports torch)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from onnes.errors import ModelError
from onnes.graph.crystal_graph import BondGraph, build, graph_of
from onnes.graph.settings import GraphSettings

__all__ = ["BondBatch", "BondGraph", "build", "chunks", "collate", "graph_of"]


@dataclass(frozen=True)
class BondBatch:
    """Many graphs one after another; indices are offset, so no bond or angle joins two crystals.

    Attributes
    ----------
    settings : GraphSettings
        The same for all graphs.
    size : int
        Number of crystals.
    n_atoms : Tensor, shape (size,)
        Atoms in the cell of every crystal.
    crystal, bond_crystal : Tensor of int, shape (n,) and (e,)
        Crystal of every node and bond.
    numbers, share, src, dst, vector, distance, weight, bond_share, line_src, line_dst, cosine, line_weight
        As in `BondGraph`.
    """

    settings: GraphSettings
    size: int
    n_atoms: Tensor
    crystal: Tensor
    bond_crystal: Tensor
    numbers: Tensor
    share: Tensor
    src: Tensor
    dst: Tensor
    vector: Tensor
    distance: Tensor
    weight: Tensor
    bond_share: Tensor
    line_src: Tensor
    line_dst: Tensor
    cosine: Tensor
    line_weight: Tensor

    def to(self, device: torch.device | str) -> BondBatch:
        """Return the batch on a device."""
        moved = {
            f.name: getattr(self, f.name).to(device)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def with_vectors(self, vector: Tensor) -> BondBatch:
        """Return the batch with distances and cosines computed from bond vectors, differentiable in them.

        Parameters
        ----------
        vector : Tensor, shape (e, 3)
            In A. Weights stay as they are. Only for full graphs (``merge_A = 0``): a merged bond stands for
            bonds that would move differently.

        Raises
        ------
        ModelError
            ``merged-graph``.
        """
        if self.settings.merge_A:
            raise ModelError("merged-graph", "gradients by bond vector need graph settings with merge_A = 0")
        distance = vector.norm(dim=1)
        unit = vector / distance.unsqueeze(1)
        cosine = -(unit[self.line_src] * unit[self.line_dst]).sum(1)
        return replace(self, vector=vector, distance=distance, cosine=cosine.clamp(-1.0, 1.0))

    def require(self, settings: GraphSettings) -> None:
        """Refuse to be read by a network trained on other graphs.

        Raises
        ------
        ModelError
            ``graph-settings``: names what differs.
        """
        if self.settings == settings:
            return
        mine, theirs = self.settings.as_dict(), settings.as_dict()
        differ = [f"{k} = {mine[k]} instead of {theirs[k]}" for k in theirs if mine[k] != theirs[k]]
        raise ModelError(
            "graph-settings", f"the network was trained on other graphs than these: {', '.join(differ)}"
        )


def collate(graphs: Sequence[BondGraph], dtype: torch.dtype = torch.float32) -> BondBatch:
    """Return one batch of many graphs.

    Parameters
    ----------
    graphs : sequence of BondGraph
        At least one, all with the same settings.
    dtype : torch.dtype
        Of the real numbers.

    Returns
    -------
    BondBatch

    Raises
    ------
    ModelError
        ``no-graphs`` or ``graph-settings``.
    """
    if not graphs:
        raise ModelError("no-graphs", "a batch needs at least one graph")
    settings = graphs[0].settings
    for graph in graphs:
        if graph.settings != settings:
            raise ModelError("graph-settings", "graphs of different settings cannot share a batch")
    nodes, bonds = [len(g.numbers) for g in graphs], [len(g.src) for g in graphs]
    node_offset, bond_offset = np.cumsum([0, *nodes[:-1]]), np.cumsum([0, *bonds[:-1]])

    def whole(name: str, offset: np.ndarray | None = None) -> Tensor:
        parts = [getattr(g, name) for g in graphs]
        if offset is not None:
            parts = [p + o for p, o in zip(parts, offset, strict=True)]
        return torch.from_numpy(np.concatenate(parts).astype(np.int64))

    def real(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(g, name) for g in graphs])).to(dtype)

    index = np.arange(len(graphs))
    return BondBatch(
        settings=settings,
        size=len(graphs),
        n_atoms=torch.tensor([g.n_atoms for g in graphs], dtype=dtype),
        crystal=torch.from_numpy(np.repeat(index, nodes)),
        bond_crystal=torch.from_numpy(np.repeat(index, bonds)),
        numbers=whole("numbers"),
        share=real("share"),
        src=whole("src", node_offset),
        dst=whole("dst", node_offset),
        vector=real("vector"),
        distance=real("distance"),
        weight=real("weight"),
        bond_share=real("bond_share"),
        line_src=whole("line_src", bond_offset),
        line_dst=whole("line_dst", bond_offset),
        cosine=real("cosine"),
        line_weight=real("line_weight"),
    )


def chunks(graphs: Iterable[BondGraph], max_rows: int = 200_000) -> Iterator[list[BondGraph]]:
    """Group graphs so that no batch holds more bonds and angles than a number (one graph always fits).

    Memory of a batch grows with its angles, not with its crystals; a count of crystals does not bound it.

    Parameters
    ----------
    graphs : iterable of BondGraph
    max_rows : int
        Bonds plus angles in a batch.

    Yields
    ------
    list of BondGraph
    """
    batch: list[BondGraph] = []
    rows = 0
    for graph in graphs:
        size = len(graph.src) + len(graph.line_src)
        if batch and rows + size > max_rows:
            yield batch
            batch, rows = [], 0
        batch.append(graph)
        rows += size
    if batch:
        yield batch

"""Inference of a trained network with its one-variable parts read from tables.

With one angle layer, an angle enters the network only through a smooth function of its cosine (embedding and
linear map of the gate), and a bond through one of its length. Both are evaluated once on a grid; a crystal then
needs one interpolation an angle and a bond, which leaves the output as it was (tests: 1e-5) and takes the largest
matrix products out of the forward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onnes.errors import SettingsError
from onnes.graph.batch import BondBatch
from onnes.nets.alignn import EdgeGatedConv, _Edges
from onnes.nets.epc_net import EpcNet

#: Points of the table between cosines -1 and 1, and of that between 0 and the cut-off.
POINTS, BOND_POINTS = 2049, 4097
#: Angles handled at a time: their rows stay in the cache of the processor.
ANGLES = 2048


class TabulatedEpcNet:
    """A trained `EpcNet` with one angle layer, for inference.

    Parameters
    ----------
    net : EpcNet
        In evaluation mode; later changes of its weights are not seen.

    Raises
    ------
    SettingsError
        ``bad-setting`` for another number of angle layers, or batch norm.
    """

    def __init__(self, net: EpcNet) -> None:
        body = net.settings.body
        if body.alignn_layers != 1 or body.norm != "layer":
            raise SettingsError("bad-setting", "tables need one angle layer and layer norm")
        self.net = net
        with torch.no_grad():
            grid = torch.linspace(-1.0, 1.0, POINTS, dtype=torch.float64).float()
            self.gate = self._layer("on_angles").gate_edge(net.body.angle(grid))
            far = torch.linspace(0.0, body.graph.cutoff_A, BOND_POINTS, dtype=torch.float64).float()
            self.bond = net.body.bond(far)
            self.atom = net.body.atom(net.body.elements.values)

    def _layer(self, name: str) -> EdgeGatedConv:
        """``on_bonds`` or ``on_angles`` of the one angle layer."""
        layer = getattr(self.net.body.alignn[0], name)
        assert isinstance(layer, EdgeGatedConv)
        return layer

    @torch.no_grad()
    def __call__(self, batch: BondBatch, log_volume: Tensor, source: Tensor) -> Tensor:
        """Targets, shape (B, targets); see `EpcNet.forward`."""
        body = self.net.body
        batch.require(body.settings.graph)
        body.elements(batch.numbers.max()[None])  # refuses an element without features
        x = self.atom.index_select(0, batch.numbers)
        low, part = _place(batch.distance * (1.0 / body.settings.graph.cutoff_A), BOND_POINTS)
        ends, shares = torch.stack([low, low + 1], dim=1), torch.stack([1.0 - part, part], dim=1)
        y = F.embedding_bag(ends, self.bond, mode="sum", per_sample_weights=shares)
        bonds = _Edges(batch.src, batch.dst, batch.weight)
        x, y = self._layer("on_bonds")(x, y, bonds)
        y = self._on_angles(y, batch)
        for k, layer in enumerate(body.gcn):
            x, y = layer(x, y, bonds, last=k == len(body.gcn) - 1)
        return self.net.read_out(x, batch, log_volume, source)

    def _on_angles(self, y: Tensor, batch: BondBatch) -> Tensor:
        """The angle layer of `EdgeGatedConv`, without new angle features, which nothing reads."""
        layer = self._layer("on_angles")
        low, part = _place((batch.cosine + 1.0) / 2, POINTS)
        # One lookup adds the two neighbouring grid points and what both bonds contribute.
        table = torch.cat([self.gate, layer.gate_src(y), layer.gate_dst(y)])
        rows = torch.stack([low, low + 1, batch.line_src + POINTS, batch.line_dst + (POINTS + len(y))], dim=1)
        one = torch.ones_like(part)
        weights = torch.stack([1.0 - part, part, one, one], dim=1)
        message = layer.message(y)
        above, below = torch.zeros_like(y), torch.full_like(y, layer.smoothing)
        for first in range(0, len(rows), ANGLES):
            here = slice(first, first + ANGLES)
            m = F.embedding_bag(rows[here], table, mode="sum", per_sample_weights=weights[here])
            gate = m.sigmoid_().mul_(batch.line_weight[here].unsqueeze(1))
            below.index_add_(0, batch.line_dst[here], gate)
            gate.mul_(message.index_select(0, batch.line_src[here]))
            above.index_add_(0, batch.line_dst[here], gate)
        return F.silu(layer.norm_node(layer.own(y) + above.div_(below))).add_(y)


def _place(x: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Grid point below numbers between 0 and 1, and how far they are on the way to the next one."""
    place = x * (points - 1)
    low = place.long().clamp(0, points - 2)
    return low, place - low

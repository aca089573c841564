"""The head: padding, permutation, supercell and source."""

from __future__ import annotations

import pytest
import torch

from onnes.nets.property_head import HeadSettings, PropertyHead


@pytest.fixture(scope="module", params=[0, 2])
def head(request):
    torch.manual_seed(0)
    return PropertyHead(HeadSettings(features=8, hidden=16, attention=request.param)).double().eval()


def inputs():
    g = torch.Generator().manual_seed(1)
    x = torch.randn((2, 3, 8), generator=g, dtype=torch.float64)
    numbers = torch.tensor([[12, 5, 5], [41, 6, 0]])
    return x, numbers, torch.tensor([2.5, 2.9], dtype=torch.float64), torch.tensor([0, 1])


def test_padding_order_and_supercell_change_nothing(head):
    x, z, v, s = inputs()
    start = head(x, z, v, s)
    padded = head(
        torch.cat([x, torch.randn(2, 4, 8, dtype=torch.float64)], 1),
        torch.cat([z, torch.zeros(2, 4, dtype=torch.long)], 1),
        v,
        s,
    )
    order = torch.tensor([2, 0, 1])
    doubled = head(torch.cat([x, x], 1), torch.cat([z, z], 1), v, s)
    for other in (padded, head(x[:, order], z[:, order], v, s), doubled):
        torch.testing.assert_close(start, other, atol=1e-9, rtol=1e-7)


def test_the_label_source_matters(head):
    x, z, v, s = inputs()
    assert (head(x, z, v, s) - head(x, z, v, 1 - s)).abs().min() > 1e-9

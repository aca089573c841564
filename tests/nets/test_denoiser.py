"""Symmetries of the periodic score network, in float64."""

from __future__ import annotations

import pytest
import torch

from onnes.nets.denoiser import MASK, Denoiser, DenoiserSettings

TOL = {"atol": 1e-9, "rtol": 1e-7}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Denoiser(DenoiserSettings(hidden=24, layers=2, fourier=4, radial=6)).double().eval()


def crystal(n=4, batch=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    kw = {"generator": g, "dtype": torch.float64}
    cell = 4.0 * torch.eye(3, dtype=torch.float64) + 0.4 * torch.randn((batch, 3, 3), **kw)
    return {
        "types": torch.randint(MASK, 90, (batch, n), generator=g),
        "frac": torch.rand((batch, n, 3), **kw),
        "lattice": torch.randn((batch, 6), **kw),
        "cell": cell,
        "time": torch.rand(batch, **kw),
        "log_tc": torch.tensor([0.5, torch.nan, 1.0], dtype=torch.float64),
        "stable": torch.tensor([0, 1, 2]),
    }


def run(net, x):
    with torch.no_grad():
        return net(**x)


def test_permuting_atoms_permutes_the_output(net):
    x = crystal()
    order = torch.tensor([2, 0, 3, 1])
    moved = x | {"types": x["types"][:, order], "frac": x["frac"][:, order]}
    a, b = run(net, x), run(net, moved)
    torch.testing.assert_close(a.score[:, order], b.score, **TOL)
    torch.testing.assert_close(a.type_logits[:, order], b.type_logits, **TOL)
    torch.testing.assert_close(a.lattice, b.lattice, **TOL)


def test_origin_shift_and_lattice_translations_change_nothing(net):
    x = crystal()
    shift = torch.tensor([0.137, -0.41, 0.29], dtype=torch.float64)
    whole = torch.zeros_like(x["frac"])
    whole[:, 1] = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    a, b = run(net, x), run(net, x | {"frac": x["frac"] + shift + whole})
    for name in ("score", "type_logits", "lattice"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), **TOL)


def test_rotating_the_cell_changes_nothing(net):
    x = crystal()
    q, _ = torch.linalg.qr(torch.randn((3, 3), dtype=torch.float64))
    a, b = run(net, x), run(net, x | {"cell": x["cell"] @ q})
    for name in ("score", "type_logits", "lattice"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), **TOL)


def test_the_score_moves_no_centre_of_mass(net):
    score = run(net, crystal()).score
    torch.testing.assert_close(score.mean(1), torch.zeros(3, 3, dtype=torch.float64), **TOL)
    assert score.abs().max() > 1e-3


def test_one_atom_has_no_score(net):
    x = crystal(n=1)
    assert run(net, x).score.abs().max() == 0.0


@pytest.mark.parametrize("name", ["time", "log_tc", "stable", "types", "frac", "lattice"])
def test_every_input_matters(net, name):
    x = crystal()
    new = {
        "time": x["time"] * 0.5,
        "log_tc": torch.zeros(3, dtype=torch.float64),
        "stable": torch.tensor([2, 2, 0]),
        "types": (x["types"] + 1) % 90,
        "frac": x["frac"] * 0.9,
        "lattice": x["lattice"] + 1.0,
    }[name]
    assert (run(net, x).lattice - run(net, x | {name: new}).lattice).abs().max() > 1e-6

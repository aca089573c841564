"""Annealed Langevin decoding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnes.errors import SettingsError
from onnes.generate.langevin import Langevin, LangevinSettings, assigned, counts_of
from onnes.generate.process import LatticeScale, score_rms, sigma, wrapped_score
from onnes.nets.cdvae import Cdvae, CdvaeSettings, Decoded, Read
from onnes.nets.denoiser import MAX_Z

SCALE = LatticeScale((0.9, 0.9, 0.9, 0.0, 0.0, 0.0), (0.2,) * 6)


class Oracle:
    """Knows one crystal: exact scores and types, whatever z is."""

    def __init__(self, types, frac, lattice, seen):
        self.types, self.frac, self.lattice, self.seen = types, frac, lattice, seen

    def heads(self, z):
        b = len(z)
        logits = torch.log(counts_of(self.types.tolist()) / len(self.types)).expand(b, -1)
        none = torch.zeros(b)
        lattice = (self.lattice + 0.3).expand(b, -1)
        return Read(torch.zeros(b, 21), lattice, logits, none, none, torch.zeros(b, 2))

    def decoder(self, z, types, frac, lattice, cell, time):
        self.seen.append(float(time[0]))
        s = sigma(time)[:, None, None].expand(frac.shape)
        score = wrapped_score(frac - self.frac, s) / score_rms(time)[:, None, None]
        logits = torch.full((*types.shape, MAX_Z + 1), -20.0)
        logits[:, torch.arange(len(self.types)), self.types] = 0.0
        return Decoded(logits, score, self.lattice.expand(len(z), -1))


def oracle():
    g = torch.Generator().manual_seed(3)
    types = torch.tensor([12, 5, 5])
    frac = torch.rand((3, 3), generator=g)
    return Oracle(types, frac, torch.randn(6, generator=g), [])


@pytest.mark.parametrize("keep", [True, False])
def test_exact_scores_lead_to_the_crystal(keep):
    net = oracle()
    langevin = Langevin(net, SCALE, LangevinSettings(levels=30, steps=3, keep_composition=keep))
    out = langevin.decode(torch.zeros(8, 4), 3, torch.Generator().manual_seed(0))
    assert (out.types == net.types).all()
    miss = out.frac - net.frac
    assert float((miss - miss.round()).abs().max()) < 0.02
    torch.testing.assert_close(out.lattice, net.lattice.expand(8, -1))


def test_levels_fall_from_one_to_zero():
    net = oracle()
    Langevin(net, SCALE, LangevinSettings(levels=5, steps=2)).decode(
        torch.zeros(1, 4), 3, torch.Generator().manual_seed(0)
    )
    assert net.seen == [1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.0, 0.0, 0.0, *5 * [0.0]]


def test_settling_takes_the_noise_of_the_last_level_away():
    net, left = oracle(), {}
    for settle in (0, 1, 5):
        s = LangevinSettings(levels=30, steps=3, settle=settle)
        out = Langevin(net, SCALE, s).decode(torch.zeros(32, 4), 3, torch.Generator().manual_seed(0))
        miss = out.frac - net.frac
        left[settle] = float((miss - miss.round()).square().mean().sqrt())
    # The exact score points home: every step leaves 0.3 of what was away.
    assert left[0] > 3e-3
    assert left[1] == pytest.approx(0.3 * left[0], rel=0.01)
    assert left[5] < 1e-4


def test_without_refinement_the_lattice_is_that_of_z():
    net = oracle()
    langevin = Langevin(net, SCALE, LangevinSettings(levels=5, steps=1, refine=False))
    out = langevin.decode(torch.zeros(2, 4), 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(out.lattice, (net.lattice + 0.3).expand(2, -1))


def test_coordinates_have_the_width_of_the_last_level():
    # With Langevin steps of size c on a Gaussian the variance is sigma^2 / (1 - c / 2).
    net = oracle()
    s = LangevinSettings(levels=30, steps=10, size=0.2)
    langevin = Langevin(net, SCALE, s)
    g = torch.Generator().manual_seed(0)
    frac = net.frac.expand(4000, -1, -1)
    t = torch.tensor(0.3)
    for _ in range(40):
        said = net.decoder(torch.zeros(4000, 4), net.types.expand(4000, -1), frac, None, None, t.expand(4000))
        frac = langevin._move(frac, said.score, t, g)
    miss = frac - net.frac
    miss = miss - miss.round()
    assert float(miss.std()) == pytest.approx(float(sigma(t)) / np.sqrt(1 - 0.1), rel=0.03)


def test_assignment_uses_up_the_atoms_at_the_best_places():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn((5, 4, MAX_Z + 1), generator=g)
    counts = counts_of([3, 3, 8, 9]).expand(5, -1)
    out = assigned(logits, counts)
    from itertools import permutations

    for row, chosen in zip(logits, out, strict=True):
        assert sorted(chosen.tolist()) == [3, 3, 8, 9]
        best = max(sum(float(row[i, z]) for i, z in enumerate(p)) for p in permutations([3, 3, 8, 9]))
        assert sum(float(row[i, z]) for i, z in enumerate(chosen.tolist())) == pytest.approx(best)


def test_counts_asked_for_are_kept_by_any_network():
    torch.manual_seed(0)
    net = Cdvae(CdvaeSettings(hidden=16, encoder_layers=1, decoder_layers=1, latent=6, fourier=3, radial=6))
    counts = torch.stack([counts_of([12, 5, 5]), counts_of([3, 3, 3])])
    z = torch.randn(2, 6)
    langevin = Langevin(net.eval(), SCALE, LangevinSettings(levels=4, steps=1))
    out = langevin.decode(z, 3, torch.Generator().manual_seed(0), counts)
    assert sorted(out.types[0].tolist()) == [5, 5, 12] and out.types[1].tolist() == [3, 3, 3]
    same = langevin.decode(z, 3, torch.Generator().manual_seed(0), counts)
    torch.testing.assert_close(out.frac, same.frac, atol=0, rtol=0)


def test_forbidden_elements_never_appear():
    torch.manual_seed(0)
    net = Cdvae(CdvaeSettings(hidden=16, encoder_layers=1, decoder_layers=1, latent=6, fourier=3, radial=6))
    allowed = torch.full((MAX_Z + 1,), -torch.inf)
    allowed[[5, 6, 7]] = 0.0
    for keep in (True, False):
        s = LangevinSettings(levels=4, steps=2, keep_composition=keep, temperature=2.0)
        out = Langevin(net.eval(), SCALE, s, allowed).decode(
            torch.randn(20, 6), 5, torch.Generator().manual_seed(1)
        )
        assert set(out.types.unique().tolist()) <= {5, 6, 7}


@pytest.mark.parametrize(
    "wrong", [{"levels": 1}, {"steps": 0}, {"size": 1.5}, {"temperature": 0.0}, {"settle": -1}]
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(SettingsError, match="bad-setting"):
        LangevinSettings(**wrong)

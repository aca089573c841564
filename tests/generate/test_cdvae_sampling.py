"""The shipped autoencoder: determinism, obedience, reconstruction, optimisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from onnes.errors import InputError, SettingsError
from onnes.generate.cdvae_sampling import CLOSEST, CdvaeSampler, CdvaeSamplerSettings
from onnes.generate.langevin import LangevinSettings
from onnes.generate.latent import AscentSettings
from onnes.generate.sampling import BLOCK
from onnes.generate.site_sampling import Wish
from onnes.generate.validity import overlapping
from onnes.learn.store import Checkpoint

ROUGH = LangevinSettings(levels=4, steps=1)


def sampler(decoding=ROUGH, **asked):
    prior = asked.pop("prior", "reweighted")
    ascent = asked.pop("ascent", AscentSettings())
    # After few rough steps most crystals overlap.
    again = asked.pop("again", 0)
    search = AscentSettings(steps=10)
    return CdvaeSampler(CdvaeSamplerSettings(Wish(**asked), decoding, prior, ascent, search, again))


def test_same_seed_same_crystals_whatever_the_part_asked_for():
    whole = dict(sampler().sample(40, 52, 3))
    assert list(whole) == list(range(40, 52))
    part = dict(sampler().sample(47, 50, 3))
    assert list(part) == [47, 48, 49]
    assert all(part[i] == whole[i] for i in part)
    other = dict(sampler().sample(47, 48, 4))
    assert other[47] != whole[47]


def test_crystals_whose_atoms_overlap_are_drawn_anew_and_counted():
    decoding = LangevinSettings(levels=10, steps=2)
    once, again = (sampler(decoding, atoms=4, again=k) for k in (0, 2))
    first, last = ([s for _, s in model.sample(0, BLOCK, 1)] for model in (once, again))
    close = [overlapping(s, CLOSEST) for s in first]
    assert 0 < sum(close) < BLOCK
    assert all(a == b for a, b, x in zip(first, last, close, strict=True) if not x)
    assert all(a != b for a, b, x in zip(first, last, close, strict=True) if x)
    left = sum(overlapping(s, CLOSEST) for s in last)
    counted = again.rejected["crystals whose atoms overlap were left aside"]
    assert left < sum(close) <= counted <= 2 * sum(close)
    assert not any("overlap" in reason for reason in once.rejected)


@pytest.mark.slow
def test_two_hundred_crystals_obey_elements_and_number_of_atoms():
    asked = {22, 41, 7}
    drawn = sampler(prior="flow", elements=frozenset(asked), atoms=4).sample(0, 200, 0)
    structures = [s for _, s in drawn]
    assert len(structures) == 200
    for s in structures:
        assert {site.specie.Z for site in s} <= asked
        assert len(s) == 4
    # Not one crystal again and again.
    assert len({s.composition.formula for s in structures}) > 3


@pytest.mark.slow
def test_two_hundred_crystals_obey_the_formula():
    for _, s in sampler(prior="flow", formula={12: 1, 5: 2}).sample(0, 200, 0):
        assert s.composition.reduced_formula == "MgB2"
        assert len(s) in (3, 6, 9, 12, 15, 18)


@pytest.mark.slow
def test_so_does_a_block_with_the_shipped_prior_and_search():
    wish = Wish(elements=frozenset({22, 41, 7}), atoms=4)
    drawn = [s for _, s in CdvaeSampler(CdvaeSamplerSettings(wish, ROUGH)).sample(0, BLOCK, 0)]
    assert len(drawn) == BLOCK and all(len(s) == 4 for s in drawn)
    assert {site.specie.Z for s in drawn for site in s} == {22, 41, 7}


def test_a_target_moves_what_the_head_reads():
    plain, asked = sampler(), sampler(log_tc=1.0)
    generator = torch.Generator().manual_seed(0)
    before, _ = plain.latents(48, generator)
    after, _ = asked.latents(48, generator.manual_seed(0))
    miss = [(s._log_tc(z) - 1.0).abs().mean().item() for s, z in ((plain, before), (asked, after))]
    assert miss[1] < 0.5 * miss[0]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"group": 191}, "no-space-group"),
        ({"elements": frozenset({85})}, "untrained-element"),
        ({"formula": {12: 1, 85: 1}}, "untrained-element"),
        ({"formula": {12: 1, 5: 2}, "atoms": 4}, "cannot-fill"),
        ({"atoms": 400}, "cannot-fill"),
        ({"prior": "uniform"}, "bad-setting"),
    ],
)
def test_what_cannot_be_made_is_refused(asked, code):
    with pytest.raises(SettingsError, match=code):
        sampler(**asked)


def cscl(a=3.2, first="Zr", second="Ru"):
    return Structure(Lattice.cubic(a), [first, second], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_a_common_structure_is_reconstructed():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    good = sampler(decoding=LangevinSettings(levels=30, steps=2))
    crystals = [cscl(), cscl(3.0, "Ni", "Ti"), cscl(4.1, "Cs", "Cl")]
    (copies := good.reconstruct(crystals, seed=0, given="composition"))
    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    assert [c.composition for c in copies] == [c.composition for c in crystals]
    assert sum(matcher.fit(a, b) for a, b in zip(crystals, copies, strict=True)) >= 2


def test_reconstruction_does_not_depend_on_the_cell_given():
    s = sampler()
    z, numbers = s.encode([cscl(), cscl() * (2, 1, 1)])
    torch.testing.assert_close(z[0], z[1], atol=1e-3, rtol=1e-3)
    assert [len(n) for n in numbers] == [2, 2]


def test_crystals_out_of_reach_are_refused():
    rng = np.random.default_rng(0)
    many = Structure(Lattice.cubic(9.0), ["Nb"] * 30, rng.random((30, 3)))
    with pytest.raises(InputError, match="too-many-atoms"):
        sampler().reconstruct([many], seed=0)
    with pytest.raises(SettingsError, match="untrained-element"):
        sampler().reconstruct([cscl(second="At")], seed=0)
    assert sampler().reconstruct([], seed=0) == []


def test_optimisation_raises_the_predicted_tc_and_reports_it():
    s = sampler(ascent=AscentSettings(steps=60))
    found = dict(s.optimise(46, 50, 0))
    assert list(found) == [46, 47, 48, 49]
    assert all(x.after >= x.before - 1e-5 for x in found.values())
    assert np.mean([x.after - x.before for x in found.values()]) > 0.1
    assert all(isinstance(x.structure, Structure) for x in found.values())


def test_fitted_priors_give_likelier_vectors_than_the_gaussian():
    # Judged by the card: mean log density of held-out posteriors.
    nats = sampler().checkpoint.card["latent_prior"]["nats"]
    assert nats["reweighted"] > nats["flow"] > nats["gaussian"] and nats["mixture"] > nats["gaussian"]
    z = sampler(prior="mixture").latents(20, torch.Generator().manual_seed(0))[0]
    assert z.shape == (20, 128)


def test_whole_numbers_are_those_that_crystals_have(tmp_path):
    """The shipped file knows them; one without them takes the nearest."""
    p = torch.zeros(1, 101)
    p[0, [69, 13, 26]] = torch.tensor([1.6, 6.1, 5.3]) / 13
    shipped = sampler()
    assert shipped.langevin.whole(p, 13)[0, [69, 13, 26]].tolist() == [1, 6, 6]
    stored = shipped.checkpoint
    bare = {k: v for k, v in stored.settings.items() if k != "amounts"}
    Checkpoint(stored.kind, bare, stored.card, stored.tensors).save(tmp_path / "old.safetensors")
    old = CdvaeSampler(CdvaeSamplerSettings(), tmp_path / "old.safetensors")
    assert old.langevin.whole(p, 13)[0, [69, 13, 26]].tolist() == [2, 6, 5]


def test_a_number_of_redraws_is_not_negative():
    with pytest.raises(SettingsError, match="again"):
        sampler(again=-1)

"""Fine-tuning of the shipped symmetric generator, with few symbols and few steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from onnes.campaign import retrain_generator as tuning
from onnes.campaign import rounds_models
from onnes.campaign.settings import GeneratePart, Settings
from onnes.generate.asked import SamplerSettings
from onnes.generate.models import open_sampler
from onnes.generate.orbits import Frame
from onnes.generate.site_sampling import SiteSampler, Wish
from onnes.learn.store import Checkpoint, pretrained

SHIPPED = pretrained("symmetric.safetensors")


def rocksalt(a: float, metal: str, other: str) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [metal, other], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(tuning, "REHEARSED", 8)
    monkeypatch.setattr(tuning, "HELD", 4)
    monkeypatch.setattr(tuning, "BATCH", 8)
    yield
    torch.set_num_threads(threads)


HITS = [(rocksalt(4.4, "Nb", "N"), 16.0, 1.0), (rocksalt(4.47, "Nb", "C"), 11.0, 1.0)]


def tune(path, rows=HITS, **other):
    settings = {"target_tc_K": 10.0, "asked_tc_K": 15.0, "steps": 4, "seed": 3, **other}
    return tuning.tune(SHIPPED, rows, path=path, **settings)


def test_hits_become_likelier_and_the_file_draws(tmp_path):
    path = tmp_path / "g.safetensors"
    said = tune(path, [*HITS, (rocksalt(4.24, "Ti", "N"), 5.0, 1.0)])
    assert said["used"] and (said["hits"], said["others"]) == (2, 1)
    assert said["nats_hits"][1] < said["nats_hits"][0]
    assert said["nats_held"][1] - said["nats_held"][0] < tuning.FORGOTTEN
    made, shipped = Checkpoint.load(path, "symmetric"), Checkpoint.load(SHIPPED)
    assert made.hash == said["hash"] != shipped.hash and made.card["tuned"]["from"] == shipped.hash
    # Lattice and free parameters are as shipped; symbols are not, in the same precision.
    assert all(torch.equal(v, shipped.tensors[k]) for k, v in made.tensors.items() if k.startswith("orbits."))
    assert any(not torch.equal(v, shipped.tensors[k]) for k, v in made.tensors.items())
    assert {v.dtype for v in made.tensors.values()} == {v.dtype for v in shipped.tensors.values()}
    sampler = open_sampler(SamplerSettings(), path)
    assert len(sampler.symbols([Wish()] * 2, 0)) == 2
    assert not (tmp_path / "g.fit").exists()


def test_a_tuning_is_repeated_to_the_bit_also_after_one_that_was_cut(tmp_path):
    first = tune(tmp_path / "a.safetensors", steps=2)
    (tmp_path / "b.fit").mkdir()
    (tmp_path / "b.fit" / "last.pt").write_bytes(b"half a file")
    assert tune(tmp_path / "b.safetensors", steps=2)["hash"] == first["hash"]


def test_what_forgets_or_has_nothing_to_learn_is_not_used(tmp_path, monkeypatch):
    path = tmp_path / "g.safetensors"
    assert tune(path, HITS, target_tc_K=50.0)["why"] == "no hit to learn from"
    monkeypatch.setattr(tuning, "FORGOTTEN", -100.0)
    said = tune(path, steps=1)
    assert not said["used"] and "forgot" in said["why"] and not path.exists()


def test_nothing_is_tuned_where_one_formula_is_asked_for(tmp_path):
    """Another network draws there; no label is looked at, hence no ledger."""
    settings = Settings(generate=GeneratePart(formula="Nb3Sn"))
    said = rounds_models._tune(None, settings, 2, tmp_path / "g.safetensors")
    assert not said["used"] and "Nb3Sn" in said["why"] and not any(tmp_path.iterdir())


def test_symbols_of_a_crystal():
    every = {z for z in range(1, 100)}
    frame = tuning.frame_of(rocksalt(4.4, "Nb", "N"), every, 20)
    assert frame is not None and frame.number == 225 and frame.n_atoms == 2 and set(frame.kinds) == {41, 7}
    assert tuning.frame_of(rocksalt(4.4, "Nb", "N"), every - {41}, 20) is None
    assert tuning.frame_of(rocksalt(4.4, "Nb", "N"), every, 1) is None


def test_likelihood_is_that_of_the_sampler():
    """The sampler adds up its own choices; it never offers orbits that cannot be filled, so it is likelier there."""
    net = tuning.Tuning(Checkpoint.load(SHIPPED), 15.0, 0)

    wish = Wish(log_tc=math.log10(12.0))
    drawn = SiteSampler(net.module.net, sorted(net.elements)).draw([wish] * 4, np.random.default_rng(1))
    for one in drawn:
        own = tuning.nats(net.module.net, [tuning.Example(one.frame, math.log10(12.0), 1.0)])
        assert -one.log_p - 1e-3 <= own <= -one.log_p + 2.0


def test_examples_of_many_lengths_are_stacked():
    frames = [Frame(225, (0, 1), (7, 41)), Frame(221, (0, 1, 2, 3, 4), (3, 4, 5, 6, 7))]
    groups = tuning.groups_of([tuning.Example(f, math.nan, 1.0) for f in frames])
    assert {k: len(v["n"]) for k, v in groups.items()} == {3: 1, 5: 1}
    assert groups[3]["n"].tolist() == [2] and groups[3]["letters"].tolist() == [[0, 1, -1]]

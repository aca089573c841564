"""Judges of drawn crystals: they tell trained weights from random ones, and say of how many crystals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from onnes.generate import quality
from onnes.generate.diffusion import OrbitDiffusion
from onnes.generate.langevin import LangevinSettings
from onnes.generate.orbit_sampling import OrbitSettings
from onnes.generate.orbits import FamilyScale, Frame
from onnes.generate.quality import Held, held_out
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.denoiser import DenoiserSettings
from onnes.nets.sites import SiteSettings

CUBE = 3.33


def held() -> list[Held]:
    """NbC, MgB2 and CsCl."""
    half = CUBE * 0.7
    fcc = Lattice([[0, half, half], [half, 0, half], [half, half, 0]])
    return [
        Held(Structure(fcc, [41, 6], [[0, 0, 0], [0.5, 0.5, 0.5]]), Frame(225, (0, 1), (41, 6))),
        Held(
            Structure(
                Lattice.hexagonal(3.08, 3.52),
                [12, 5, 5],
                [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
            ),
            Frame(191, (0, 3), (12, 5)),
        ),
        Held(
            Structure(Lattice.cubic(4.12), [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]]),
            Frame(221, (0, 1), (55, 17)),
        ),
    ]


def shipped(name: str, part: str = "", bare: bool = True):
    """Settings and weights of a shipped model, under the names that the training has."""
    checkpoint = Checkpoint.load(pretrained(name))
    tensors = {k.removeprefix(part): v.float() for k, v in checkpoint.tensors.items() if k.startswith(part)}
    return checkpoint.settings, {("" if bare else "net.") + k: v for k, v in tensors.items()}


def spoilt(weights):
    torch.manual_seed(0)
    return {
        k: torch.randn_like(v) * v.std(correction=0) if v.is_floating_point() else v
        for k, v in weights.items()
    }


def test_held_out_crystals_are_the_same_ones_and_of_trained_elements():
    n = np.array([2, 2, 1, 1])
    arrays = {
        "n": n,
        "start": np.array([0, 2, 4, 5]),
        "types": np.array([41, 6, 55, 17, 41, 6]),
        "frac": np.zeros((6, 3)),
        "cell": np.stack([np.eye(3) * a for a in (3.0, 4.0, 5.0, 6.0)]),
        "number": np.array([225, 221, 229, 0]),
        "n_sites": np.array([2, 2, 1, 0]),
        "site_start": np.array([0, 2, 4, 5]),
        "site_letter": np.array([0, 1, 0, 1, 0]),
        "site_z": np.array([41, 6, 55, 17, 41]),
    }
    every = held_out(arrays, 9, [41, 6, 55, 17])
    assert sorted(h.structure.lattice.a for h in every) == [3.0, 4.0, 5.0, 6.0]
    assert [h.structure for h in held_out(arrays, 2, [41, 6, 55, 17])] == [h.structure for h in every[:2]]
    known = held_out(arrays, 9, [41, 6], framed=True)
    assert {h.frame for h in known} == {Frame(225, (0, 1), (41, 6)), Frame(229, (0,), (41,))}


def test_free_parameters():
    settings, weights = shipped("symmetric.safetensors", "orbits.", bare=False)
    net, scale = DenoiserSettings(**settings["orbits"]), FamilyScale(*settings["lattice_scale"])
    judge = quality.orbits(net, scale, held(), OrbitSettings(steps=12))
    good, bad = judge(weights), judge(spoilt(weights))
    assert good["quality"] == good["figures"]["match_rate_loose"]["value"] == 1.0 > bad["quality"]
    assert (
        good["figures"]["match_rate_loose"]["n"] == 3
        and 0.4 < good["figures"]["match_rate_loose"]["low"] < 0.5
    )
    assert good["figures"]["min_distance_above_1.5_A"]["value"] == 1.0
    assert judge(weights)["figures"] == good["figures"]
    # What the training hands over has these names.
    assert set(OrbitDiffusion(net, scale).state_dict()) == set(weights)


def test_symbols():
    settings, weights = shipped("symmetric.safetensors", "sites.", bare=False)
    judge = quality.sites(SiteSettings(**settings["sites"]), settings["elements"], 6 * held(), 4)
    good, bad = judge(weights), judge(spoilt(weights))
    # CsCl is rarely drawn as itself, the two others are every third time or more often.
    assert good["figures"]["true_symbols"]["value"] > 0.2 > bad["figures"]["true_symbols"]["value"]
    assert good["figures"]["true_symbols"]["n"] == 18 and good["figures"]["P1_share"]["n"] == 4
    # NbC is balanced in this rule, MgB2 is not, CsCl is.
    assert good["held_out"]["compositional_validity"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert good["held_out"]["P1_share"]["value"] == 0.0


def test_joint():
    settings, weights = shipped("diffusion.safetensors", bare=False)
    judge = quality.joint(settings | {"atom_counts": {"2": 1.0, "3": 1.0}}, held(), 4, steps=10)
    good, bad = judge(weights), judge(spoilt(weights))
    assert good["figures"]["structural_validity"] == {"value": 1.0, "n": 4, "low": 0.5101, "high": 1.0}
    assert good["quality"] > bad["quality"] and judge(weights)["figures"] == good["figures"]
    assert good["held_out"]["min_distance_above_1.5_A"] == {"value": 1.0, "n": 3, "low": 0.4385, "high": 1.0}


def test_autoencoder():
    settings, tensors = shipped("cdvae.safetensors")
    parts = ("encoder.", "heads.", "decoder.")
    weights = {k: v for k, v in tensors.items() if k.startswith(parts)}
    judge = quality.cdvae(settings, held(), 2, LangevinSettings(levels=8, steps=1))
    good, bad = judge(weights), judge(spoilt(weights))
    match = good["figures"]["reconstruction_match_rate_loose"]
    assert (
        match["n"] == 3
        and match["value"] >= 2 / 3 > bad["figures"]["reconstruction_match_rate_loose"]["value"]
    )
    assert good["figures"]["structural_validity"]["n"] == 2 and good["quality"] > bad["quality"]

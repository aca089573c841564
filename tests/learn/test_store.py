"""Checkpoints: round trip, damage, wrong kind."""

from __future__ import annotations

import pytest
import torch

from onnes.errors import ModelError
from onnes.learn.store import Checkpoint


def make():
    return Checkpoint("diffusion", {"hidden": 4}, {"seed": 0}, {"w": torch.arange(6.0).reshape(2, 3)})


def test_round_trip_keeps_weights_settings_card_and_hash(tmp_path):
    first = make()
    first.save(tmp_path / "m.safetensors")
    again = Checkpoint.load(tmp_path / "m.safetensors", "diffusion")
    assert torch.equal(again.tensors["w"], first.tensors["w"])
    assert (again.settings, again.card, again.hash) == (first.settings, first.card, first.hash)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_hash_follows_the_weights():
    other = make()
    other.tensors["w"][0, 0] = 9.0
    assert other.hash != make().hash


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "m.safetensors"
    make().save(path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-5], "empty": b"", "text": b"not a checkpoint"}[damage])
    with pytest.raises(ModelError, match="damaged-model"):
        Checkpoint.load(path)


def test_missing_and_wrong_kind(tmp_path):
    with pytest.raises(ModelError, match="no-model"):
        Checkpoint.load(tmp_path / "absent")
    make().save(tmp_path / "m")
    with pytest.raises(ModelError, match="wrong-model"):
        Checkpoint.load(tmp_path / "m", "epc")

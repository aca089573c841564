"""What a run notes of the weights it computes with."""

from __future__ import annotations

from onnes.campaign.models import differences, fingerprints
from onnes.campaign.settings import Settings


def settings(**prescreen):
    return Settings.from_dict({"generate": {"paths": ["x"]}, "prescreen": prescreen})


def test_learned_moduli_count_only_where_the_debye_gate_is_on():
    plain, gated = (fingerprints(settings(min_debye_K=limit))["prescreen"] for limit in (0.0, 300.0))
    assert plain and set(gated) - set(plain) == {"properties.safetensors", "package sevenn"}
    assert "missing" not in gated.values()
    assert "prescreen" not in fingerprints(settings(use="never"))


def test_another_sevenn_is_told_only_where_the_gate_used_it():
    for limit, told in ((0.0, False), (300.0, True)):
        held = {"prescreen": {**fingerprints(settings(min_debye_K=limit))["prescreen"]}}
        if told:
            assert differences(held, settings(min_debye_K=limit)) == []
        held["prescreen"]["package sevenn"] = "0.1"
        found = differences(held, settings(min_debye_K=limit))
        assert bool(found) is told and all(s.startswith("prescreen: package sevenn was 0.1") for s in found)

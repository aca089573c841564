import gzip
import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))
from graph_crystals import al, bain, everyday, lowsym, mgb2, needle, roughness, views
from pymatgen.core import Lattice, Structure

from onnes.crystal.formula import numbers
from onnes.errors import CrystalError, ModelError, SettingsError
from onnes.graph.batch import collate, graph_of
from onnes.graph.settings import GraphSettings
from onnes.nets.alignn import Alignn, AlignnSettings, preset
from onnes.nets.elements import one_hot

SMALL = {
    "nearest": AlignnSettings(alignn_layers=2, gcn_layers=2, hidden=32, embedding=16),
    "soft": replace(preset("onnes"), hidden=32, embedding=16),
}


def network(settings, elements=None):
    torch.manual_seed(0)
    model = Alignn(settings, elements).double().eval()
    with torch.no_grad():
        # Untrained weights hardly tell crystals apart; larger ones make every test below sharper.
        for p in model.parameters():
            p.mul_(1.5)
    return model


def run(model, structures):
    graphs = [graph_of(s, model.settings.graph) for s in structures]
    with torch.no_grad():
        return model(collate(graphs, torch.float64))[:, 0].numpy()


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("s", everyday(), ids=lambda s: s.composition.reduced_formula)
def test_the_same_crystal_has_one_prediction(kind, s):
    model = network(SMALL[kind])
    want = run(model, [s])[0]
    for name, view in views(s).items():
        assert run(model, [view])[0] == pytest.approx(want, abs=1e-5), name


def test_different_crystals_differ():
    for kind, settings in SMALL.items():
        values = run(network(settings), [*everyday(), lowsym(4), needle()])
        gaps = np.diff(np.sort(values))
        assert gaps.min() > 1e-3, kind


@pytest.mark.parametrize("kind", SMALL)
def test_merging_changes_no_output(kind):
    model = network(SMALL[kind])
    full = network(replace(SMALL[kind], graph=replace(SMALL[kind].graph, merge_A=0)))
    full.load_state_dict(model.state_dict())
    structures = [*everyday(), needle()]
    assert np.abs(run(model, structures) - run(full, structures)).max() < 1e-5


@pytest.mark.parametrize("kind", SMALL)
def test_merging_changes_no_output_of_real_crystals(kind, shared):
    """Every 150th Alexandria crystal: full and merged graphs agree, and merging saves most of the angles."""
    with gzip.open(shared / "data" / "alexandria_eph.jsonl.gz", "rt") as handle:
        rows = [json.loads(line) for line in islice(handle, 0, None, 150)]
    structures = [Structure(r["lattice"], r["species"], r["frac"]) for r in rows]
    model = network(SMALL[kind])
    full = network(replace(SMALL[kind], graph=replace(SMALL[kind].graph, merge_A=0)))
    full.load_state_dict(model.state_dict())
    assert np.abs(run(model, structures) - run(full, structures)).max() < 1e-5
    angles = [sum(len(graph_of(s, m.settings.graph).line_src) for s in structures) for m in (model, full)]
    assert angles[0] < 0.5 * angles[1]


@pytest.mark.parametrize("kind", SMALL)
def test_a_batch_is_its_crystals_one_by_one(kind):
    model = network(SMALL[kind])
    structures = everyday() * 2
    assert np.allclose(run(model, structures), [run(model, [s])[0] for s in structures], atol=1e-10)


def test_a_strained_crystal_moves_smoothly_on_soft_graphs():
    """CASES 10. Whole shells come and go on the way, which a k-nearest graph cannot hide."""
    path = [bain(ratio) for ratio in np.linspace(0.9, 1.5, 401)]
    assert roughness(run(network(SMALL["soft"]), path)) < 0.15
    assert roughness(run(network(SMALL["nearest"]), path)) > 0.5


def test_a_crystal_strained_through_the_cut_off_ends_in_a_typed_error():
    model = network(SMALL["soft"])
    values, refused = [], []
    for scale in np.linspace(1.0, 1.6, 121):  # nearest distance from 5.3 A past the cut-off of 8 A
        lattice = 3.07 * scale * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
        try:
            values.append(run(model, [Structure(lattice, ["Cs"], [[0, 0, 0]])])[0])
        except CrystalError as error:
            assert error.code == "no-bonds"
            refused.append(scale)
    assert min(refused) * 3.07 * np.sqrt(3) == pytest.approx(8.0, abs=0.03)
    assert len(values) + len(refused) == 121
    assert np.abs(np.diff(values)).max() < 0.2 * np.ptp(values)
    # The last bonds fade out, they are not cut off: the limit is the crystal without any.
    far = graph_of(
        Structure(Lattice.cubic(20.0), ["Cs"], [[0, 0, 0]]), model.settings.graph, allow_isolated=True
    )
    with torch.no_grad():
        limit = model(collate([far], torch.float64)).item()
    assert abs(values[-1] - limit) < 0.01 * np.ptp(values)


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_are_finite(kind):
    model = network(SMALL[kind]).train()
    batch = collate([graph_of(s, model.settings.graph) for s in everyday()], torch.float64)
    model(batch).square().sum().backward()
    for name, p in model.named_parameters():
        unused = p.grad is None
        # The edge norm of the last layer of either kind feeds nothing.
        assert (not unused and torch.isfinite(p.grad).all()) or "norm_edge" in name, name


def test_gradients_by_position_agree_with_finite_differences():
    settings = replace(SMALL["nearest"], graph=GraphSettings(merge_A=0))
    model = network(settings)
    batch = collate([graph_of(lowsym(), settings.graph)], torch.float64)
    vector = batch.vector.clone().requires_grad_(True)
    model(batch.with_vectors(vector)).sum().backward()
    assert torch.isfinite(vector.grad).all()
    for edge, axis in ((0, 0), (17, 2)):
        step = torch.zeros_like(vector)
        step[edge, axis] = 1e-5
        with torch.no_grad():
            up, down = (model(batch.with_vectors(batch.vector + k * step)).item() for k in (1, -1))
        assert vector.grad[edge, axis].item() == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-8)


def test_graphs_of_other_settings_are_refused():
    model = network(SMALL["nearest"])
    other = collate([graph_of(al(), GraphSettings(neighbours=8))], torch.float64)
    with pytest.raises(ModelError, match="neighbours = 8 instead of 12") as error:
        model(other)
    assert error.value.code == "graph-settings"


def test_an_element_without_features_is_refused():
    s = Structure(Lattice.cubic(4.0), ["Og"], [[0, 0, 0]])
    with pytest.raises(ModelError, match="Z = 118"):
        run(network(SMALL["nearest"]), [s])


def test_settings_and_weights_go_through_a_checkpoint(tmp_path):
    from onnes.learn.store import Checkpoint

    model = network(SMALL["soft"])
    path = tmp_path / "model.safetensors"
    Checkpoint("alignn", model.settings.as_dict(), {}, dict(model.state_dict())).save(path)
    stored = Checkpoint.load(path, "alignn")
    again = Alignn(AlignnSettings.from_dict(stored.settings)).double().eval()
    again.load_state_dict(stored.tensors)
    assert again.settings == model.settings
    assert np.array_equal(run(again, [mgb2()]), run(model, [mgb2()]))
    with pytest.raises(SettingsError):
        AlignnSettings.from_dict({"hiden": 3})


def test_presets_have_the_published_sizes():
    paper = Alignn(preset("paper"))
    assert sum(p.numel() for p in paper.parameters()) == pytest.approx(4.03e6, rel=0.005)
    assert (len(paper.alignn), len(paper.gcn)) == (4, 4)
    assert sum(p.numel() for p in Alignn(preset("onnes")).parameters()) < 1e6
    with pytest.raises(SettingsError, match="onnes"):
        preset("large")


def test_batch_norm_is_there_for_the_code_of_2021():
    model = network(replace(SMALL["nearest"], norm="batch"))
    assert np.isfinite(run(model, everyday())).all()
    with pytest.raises(SettingsError):
        replace(SMALL["nearest"], norm="none")


def test_element_bins_are_one_hot():
    hot = one_hot()
    assert set(np.unique(hot)) == {0.0, 1.0}
    assert hot[0].sum() == 0
    assert hot[13].sum() == 8
    assert len(np.unique(hot[1:95], axis=0)) > 80


def copied(reference, layers):
    """Weights of the public model under the names of ours."""
    parts = {
        "atom_embedding.layer": "atom",
        "edge_embedding.1.layer": "bond.1",
        "edge_embedding.2.layer": "bond.2",
        "angle_embedding.1.layer": "angle.1",
        "angle_embedding.2.layer": "angle.2",
        "fc": "out",
    }
    conv = {"src_gate": "gate_src", "dst_gate": "gate_dst", "edge_gate": "gate_edge", "src_update": "own"}
    conv |= {"dst_update": "message", "bn_nodes": "norm_node", "bn_edges": "norm_edge"}
    for k in range(layers):
        for theirs, ours in conv.items():
            parts[f"alignn_layers.{k}.node_update.{theirs}"] = f"alignn.{k}.on_bonds.{ours}"
            parts[f"alignn_layers.{k}.edge_update.{theirs}"] = f"alignn.{k}.on_angles.{ours}"
            parts[f"gcn_layers.{k}.{theirs}"] = f"gcn.{k}.{ours}"
    state = {}
    for name, value in reference.state_dict().items():
        for theirs, ours in parts.items():
            if name.startswith(theirs + "."):
                state[ours + name[len(theirs) :]] = value
    return state


@pytest.mark.parametrize("merge_A", [0.0, 1e-5])
def test_outputs_equal_those_of_the_public_implementation(merge_A):
    public = pytest.importorskip("alignn.models.alignn_atomwise_pure", reason="needs the extra onnes[alignn]")
    from alignn.torch_graph_builder import TorchGraph

    torch.manual_seed(1)
    width = one_hot().shape[1]
    config = public.ALIGNNAtomWisePureConfig(
        name="alignn_atomwise_pure",
        alignn_layers=4,
        gcn_layers=4,
        hidden_features=256,
        atom_input_features=width,
        calculate_gradient=False,
        use_penalty=False,
        energy_mult_natoms=False,
    )
    reference = public.ALIGNNAtomWisePure(config).double().eval()
    settings = replace(preset("paper"), graph=GraphSettings(merge_A=merge_A))
    model = Alignn(settings).double().eval()
    missing, unexpected = model.load_state_dict(copied(reference, 4), strict=False)
    assert set(missing) <= {
        "elements.values",
        "bond.0.centres",
        "angle.0.centres",
    }
    assert not unexpected
    for s in [*everyday(), lowsym(4), needle()]:
        full = graph_of(s, GraphSettings(merge_A=0))
        src, dst = torch.tensor(full.src), torch.tensor(full.dst)
        line_src, line_dst = torch.tensor(full.line_src), torch.tensor(full.line_dst)
        nodes = torch.tensor(one_hot()[numbers(s)])
        g = TorchGraph(len(s), src, dst, {"atom_features": nodes}, {"r": torch.tensor(full.vector)})
        lg = TorchGraph(len(src), line_src, line_dst, {}, {"h": torch.tensor(full.cosine)})
        with torch.no_grad():
            want = reference((g, lg, torch.tensor(s.lattice.matrix)))["out"].item()
        assert run(model, [s])[0] == pytest.approx(want, abs=1e-5), s.composition

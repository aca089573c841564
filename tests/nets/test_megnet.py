import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))
from graph_crystals import al, bain, cs, everyday, lowsym, mgb2, needle, roughness, views
from pymatgen.core import Lattice, Structure

from onnes.errors import CrystalError, ModelError, SettingsError
from onnes.graph.batch import collate, graph_of
from onnes.graph.settings import GraphSettings
from onnes.nets.elements import PROPERTIES, properties, standardised
from onnes.nets.megnet import PRESETS, Megnet, MegnetSettings, Set2Set, preset

NAMES = ("paper", "invdesflow", "onnes")
CRYSTALS = [s for s in everyday() if s.composition.reduced_formula != "Cs"]


def network(settings):
    torch.manual_seed(0)
    model = Megnet(settings).double().eval()
    with torch.no_grad():
        # Untrained weights hardly tell crystals apart; larger ones make every test below sharper.
        for p in model.parameters():
            p.mul_(2.0)
    return model


def run(model, structures):
    graphs = [graph_of(s, model.settings.graph) for s in structures]
    with torch.no_grad():
        return model(collate(graphs, torch.float64))[:, 0].numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("s", CRYSTALS, ids=lambda s: s.composition.reduced_formula)
def test_the_same_crystal_has_one_prediction(name, s):
    model = network(preset(name))
    want = run(model, [s])[0]
    for view_name, view in views(s).items():
        assert run(model, [view])[0] == pytest.approx(want, abs=1e-5), view_name


@pytest.mark.parametrize("name", NAMES)
def test_merging_changes_no_output_and_crystals_differ(name):
    settings = preset(name)
    model = network(settings)
    full = network(replace(settings, graph=replace(settings.graph, merge_A=0)))
    full.load_state_dict(model.state_dict())
    structures = [*CRYSTALS, needle(), lowsym(4)]
    values = run(model, structures)
    assert np.abs(values - run(full, structures)).max() < 1e-6
    assert np.diff(np.sort(values)).min() > 1e-4


def test_a_batch_is_its_crystals_one_by_one():
    model = network(preset("onnes"))
    structures = everyday() * 2
    assert np.allclose(run(model, structures), [run(model, [s])[0] for s in structures], atol=1e-10)


def test_cesium_is_refused_at_five_angstrom_and_predicted_with_soft_graphs():
    with pytest.raises(CrystalError) as error:
        run(network(preset("paper")), [cs()])
    assert error.value.code == "no-bonds"
    assert "5.32 A" in error.value.message
    assert np.isfinite(run(network(preset("onnes")), [cs()])).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_strained_crystal_moves_smoothly(name):
    settings = preset(name)
    path = [bain(ratio) for ratio in np.linspace(0.9, 1.5, 401)]
    assert roughness(run(network(settings), path)) < 0.15
    if name == "onnes":
        nearest = replace(settings, graph=replace(settings.graph, kind="nearest"))
        assert roughness(run(network(nearest), path)) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_and_reach_every_weight(name):
    model = network(preset(name)).train()
    batch = collate([graph_of(s, model.settings.graph) for s in CRYSTALS], torch.float64)
    model(batch).square().sum().backward()
    for weight, p in model.named_parameters():
        assert p.grad is not None, weight
        assert torch.isfinite(p.grad).all(), weight
        assert p.grad.abs().sum() > 0, weight


def test_it_learns_a_few_energies():
    torch.manual_seed(0)
    model = Megnet(preset("onnes")).train()
    batch = collate([graph_of(s, model.settings.graph) for s in everyday()])
    target = torch.tensor([[0.0], [0.1], [-0.2], [-3.5], [-0.6]])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(batch) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_set2set_counts_equal_rows_by_their_share():
    torch.manual_seed(0)
    read = Set2Set(4, 3).double()
    rows = torch.randn(3, 4, dtype=torch.float64)
    whole = torch.cat([rows, rows[:1], rows[:1], torch.randn(2, 4, dtype=torch.float64)])
    share = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64)
    few = read(rows, share, torch.zeros(3, dtype=torch.int64), 1)
    many = read(whole, torch.ones(7, dtype=torch.float64), torch.tensor([0, 0, 0, 0, 0, 1, 1]), 2)
    assert torch.allclose(few[0], many[0], atol=1e-12)
    large = read(1e3 * rows, share, torch.zeros(3, dtype=torch.int64), 1)
    assert torch.isfinite(large).all()


def test_element_properties_are_those_of_the_elements():
    table = dict(zip(PROPERTIES, properties()[13], strict=True))  # aluminium
    assert table["group"] == 13
    assert table["valence_electrons"] == 3
    assert table["orbital"] == 1
    assert table["electronegativity"] == pytest.approx(1.61)
    assert table["ionisation_energy_eV"] == pytest.approx(5.986, abs=2e-3)
    assert [properties()[z][3] for z in (2, 26, 30, 57, 82)] == [2, 8, 12, 3, 4]
    assert np.isnan(properties()[2][0])  # helium has no electronegativity
    assert np.isfinite(standardised()).all()
    assert np.abs(standardised()[1:].mean(0)).max() < 0.05


def test_properties_matter_only_where_they_are_read():
    for name in ("paper", "onnes"):
        model = network(preset(name))
        before = run(model, [mgb2()])
        model.elements.values += 1.0
        assert (run(model, [mgb2()]) != before).all() == PRESETS[name].properties


def test_settings_travel_and_other_graphs_are_refused():
    for name in NAMES:
        assert MegnetSettings.from_dict(preset(name).as_dict()) == preset(name)
    with pytest.raises(ModelError, match="cutoff_A"):
        network(preset("paper"))(collate([graph_of(al(), GraphSettings(line=False))], torch.float64))
    with pytest.raises(SettingsError):
        preset("small")
    with pytest.raises(SettingsError):
        MegnetSettings(blocks=0)
    with pytest.raises(SettingsError):
        MegnetSettings.from_dict({"cutoff": 5})


def test_a_crystal_without_bonds_is_finite_where_it_is_allowed():
    model = network(preset("onnes"))
    s = Structure(Lattice.cubic(100.0), ["H"], [[0, 0, 0]])
    lone = graph_of(s, model.settings.graph, allow_isolated=True)
    graphs = [lone, graph_of(mgb2(), model.settings.graph)]
    with torch.no_grad():
        both = model(collate(graphs, torch.float64))[:, 0].numpy()
    assert np.isfinite(both).all()
    assert both[1] == pytest.approx(run(model, [mgb2()])[0], abs=1e-10)

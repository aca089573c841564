"""Structures a second on one core: graph building and forward passes, beside the public pure-torch ALIGNN.

    OMP_NUM_THREADS=1 pytest benchmarks/test_graph.py -o addopts=-q --benchmark-only --benchmark-timer=time.process_time

Every benchmark handles the same 64 crystals (every 116th of the Alexandria set of the shared data) in batches of
32, so its time divided into 64 is structures a second (``extra_info``).
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pytest_benchmark")

from ase.data import atomic_numbers

from onnes.graph.batch import build, collate
from onnes.graph.cache import GraphCache
from onnes.graph.settings import GraphSettings
from onnes.nets import alignn, megnet

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[2] / "shared"))
COUNT, BATCH, ROUNDS = 64, 32, 3
FULL = GraphSettings(merge_A=0)
SETTINGS = {
    "paper": alignn.PRESETS["paper"],
    "paper-full-graph": replace(alignn.PRESETS["paper"], graph=FULL),
    "onnes": alignn.PRESETS["onnes"],
}


@pytest.fixture(scope="module")
def rows():
    path = SHARED / "data" / "alexandria_eph.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"shared data not found at {SHARED}; set ONNES_SHARED")
    torch.set_num_threads(1)
    with gzip.open(path, "rt") as handle:
        return [json.loads(line) for line in islice(handle, 0, 116 * COUNT, 116)]


@pytest.fixture(scope="module")
def crystals(rows):
    numbers = [np.array([atomic_numbers[x] for x in r["species"]]) for r in rows]
    return [(z, np.array(r["lattice"]), np.array(r["frac"])) for z, r in zip(numbers, rows, strict=True)]


@pytest.fixture(scope="module")
def public(rows):
    """Crystals, builder and model of the public implementation at 4 + 4 layers, width 256, 12 neighbours, 8 A."""
    model = pytest.importorskip("alignn.models.alignn_atomwise_pure", reason="needs the extra onnes[alignn]")
    from alignn import torch_graph_builder
    from jarvis.core.atoms import Atoms

    config = model.ALIGNNAtomWisePureConfig(
        name="alignn_atomwise_pure",
        alignn_layers=4,
        gcn_layers=4,
        hidden_features=256,
        atom_input_features=92,
        calculate_gradient=False,
        use_penalty=False,
    )
    atoms = [Atoms(lattice_mat=r["lattice"], coords=r["frac"], elements=r["species"]) for r in rows]

    def graph(a):
        return torch_graph_builder.build_pure_torch_graph(a, two_body_cutoff=8.0, max_neighbors=12)

    network = model.ALIGNNAtomWisePure(config).eval()
    return atoms, graph, network, torch_graph_builder.batch_torch_graph_pairs


def timed(benchmark, work):
    result = benchmark.pedantic(work, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["structures_per_s"] = round(COUNT / benchmark.stats.stats.median, 1)
    return result


def predict(model, graphs):
    with torch.no_grad():
        batches = [collate(graphs[k : k + BATCH]) for k in range(0, COUNT, BATCH)]
        return torch.cat([model(b) for b in batches])


@pytest.mark.parametrize("name", SETTINGS)
def test_graphs(benchmark, crystals, name):
    settings = SETTINGS[name].graph
    graphs = timed(benchmark, lambda: [build(*c, settings) for c in crystals])
    benchmark.extra_info["bonds"] = sum(len(g.src) for g in graphs)
    benchmark.extra_info["angles"] = sum(len(g.line_src) for g in graphs)


def test_graphs_from_the_cache(benchmark, crystals, tmp_path):
    cache = GraphCache(tmp_path)
    settings = SETTINGS["onnes"].graph
    timed(benchmark, lambda: [cache.get(*c, settings) for c in crystals])
    assert cache.built == COUNT


def test_graphs_of_the_public_builder(benchmark, public):
    atoms, graph, _, _ = public
    pairs = timed(benchmark, lambda: [graph(a) for a in atoms])
    benchmark.extra_info["bonds"] = sum(len(g.src) for g, _ in pairs)
    benchmark.extra_info["angles"] = sum(len(line.src) for _, line in pairs)


@pytest.mark.parametrize("name", SETTINGS)
def test_graphs_and_forward_of_alignn(benchmark, crystals, name):
    settings = SETTINGS[name]
    model = alignn.Alignn(settings).eval()
    out = timed(benchmark, lambda: predict(model, [build(*c, settings.graph) for c in crystals]))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", megnet.PRESETS)
def test_graphs_and_forward_of_megnet(benchmark, crystals, name):
    settings = megnet.PRESETS[name]
    model = megnet.Megnet(settings).eval()
    out = timed(benchmark, lambda: predict(model, [build(*c, settings.graph) for c in crystals]))
    assert torch.isfinite(out).all()


def test_graphs_and_forward_of_the_public_alignn(benchmark, public):
    atoms, graph, network, batch = public

    def work():
        with torch.no_grad():
            pairs = [graph(a) for a in atoms]
            groups = [batch(pairs[k : k + BATCH]) for k in range(0, COUNT, BATCH)]
            return torch.cat([network((g, line, torch.eye(3)))["out"] for g, line in groups])

    assert torch.isfinite(timed(benchmark, work)).all()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_step_of_alignn(benchmark, crystals, name):
    model = alignn.Alignn(SETTINGS[name]).train()
    batches = [
        collate([build(*c, model.settings.graph) for c in crystals][k : k + BATCH]) for k in (0, BATCH)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step():
        for b in batches:
            optimizer.zero_grad()
            loss = model(b).square().mean()
            loss.backward()
            optimizer.step()
        return loss

    assert torch.isfinite(timed(benchmark, step))


def test_a_training_step_of_the_public_alignn(benchmark, public):
    atoms, graph, network, batch = public
    pairs = [graph(a) for a in atoms]
    groups = [batch(pairs[k : k + BATCH]) for k in range(0, COUNT, BATCH)]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)

    def step():
        for g, line in groups:
            optimizer.zero_grad()
            loss = network((g, line, torch.eye(3)))["out"].square().mean()
            loss.backward()
            optimizer.step()
        return loss

    assert torch.isfinite(timed(benchmark, step))

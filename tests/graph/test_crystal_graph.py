import itertools
import subprocess
import sys

import numpy as np
import pytest
from graph_crystals import al, everyday, lowsym, mgb2, perovskite, supercell
from pymatgen.core import Lattice, Structure

from onnes.errors import CrystalError, ModelError
from onnes.graph.batch import chunks, collate
from onnes.graph.crystal_graph import build, graph_of
from onnes.graph.settings import GraphSettings

FULL = GraphSettings(merge_A=0)


def test_line_graph_joins_every_pair_of_consecutive_bonds():
    g = graph_of(lowsym(), FULL)
    want = [(a, b) for a, b in itertools.product(range(len(g.src)), repeat=2) if g.dst[a] == g.src[b]]
    assert sorted(zip(g.line_src.tolist(), g.line_dst.tolist(), strict=True)) == want
    for t in range(0, len(want), 97):
        a, b = g.line_src[t], g.line_dst[t]
        back, out = -g.vector[a], g.vector[b]
        angle = np.arccos(np.clip(back @ out / np.linalg.norm(back) / np.linalg.norm(out), -1, 1))
        assert g.cosine[t] == pytest.approx(np.cos(angle), abs=1e-9)


def test_angles_of_fcc_are_those_of_the_lattice():
    g = graph_of(al(), FULL)
    cosine, count = np.unique(np.round(g.cosine, 6) + 0.0, return_counts=True)
    assert dict(zip(cosine, count // 12, strict=True)) == {-1.0: 1, -0.5: 4, 0.0: 2, 0.5: 4, 1.0: 1}


def test_fewer_bonds_form_angles_when_asked():
    few = graph_of(lowsym(), GraphSettings(kind="soft", line_neighbours=4, merge_A=0))
    many = graph_of(lowsym(), GraphSettings(kind="soft", merge_A=0))
    assert len(few.src) == len(many.src)
    assert 0 < len(few.line_src) < 0.5 * len(many.line_src)


def test_merging_finds_the_classes_of_known_crystals():
    g = graph_of(al(), GraphSettings())
    assert (len(g.numbers), len(g.src), len(g.line_src)) == (1, 1, 5)
    assert g.weight == [12]
    assert sorted(g.line_weight) == [1, 1, 2, 4, 4]
    g = graph_of(supercell(mgb2()), GraphSettings())
    assert sorted(g.numbers) == [5, 12]
    assert sorted(g.share) == [8, 16]
    assert g.n_atoms == 24
    g = graph_of(perovskite(), GraphSettings())
    assert sorted(g.share) == [1, 1, 3]


def test_merging_leaves_a_crystal_without_symmetry_alone():
    full, merged = graph_of(lowsym(), FULL), graph_of(lowsym(), GraphSettings())
    assert len(full.numbers) == len(merged.numbers)
    assert len(full.line_src) == len(merged.line_src)


@pytest.mark.parametrize("s", everyday(), ids=lambda s: s.composition.reduced_formula)
@pytest.mark.parametrize("kind", ["nearest", "soft"])
def test_merged_counts_add_up_to_the_full_graph(s, kind):
    full, merged = (graph_of(s, GraphSettings(kind=kind, merge_A=m)) for m in (0, 1e-5))
    assert merged.share.sum() == len(s)
    assert merged.bond_share.sum() == pytest.approx(full.weight.sum())
    arriving = np.bincount(merged.dst, merged.weight) * merged.share
    assert arriving.sum() == pytest.approx(full.weight.sum())


def test_h_alone_in_a_large_cell_is_refused_by_name():
    s = Structure(Lattice.cubic(100.0), ["H"], [[0, 0, 0]])
    with pytest.raises(CrystalError) as error:
        graph_of(s, FULL)
    assert error.value.code == "no-bonds"
    for part in ("atom 0 (H)", "100 A", "8 A"):
        assert part in error.value.message
    empty = graph_of(s, FULL, allow_isolated=True)
    assert len(empty.src) == len(empty.line_src) == 0


def test_one_lonely_atom_among_others_is_named():
    s = Structure(Lattice.cubic(30.0), ["C", "O", "He"], [[0, 0, 0], [0, 0, 1.13 / 30], [0.5, 0.5, 0.5]])
    with pytest.raises(CrystalError, match=r"atom 2 \(He\)"):
        graph_of(s, GraphSettings(kind="soft"))


def test_a_batch_joins_no_two_crystals():
    graphs = [graph_of(s, FULL) for s in everyday()]
    batch = collate(graphs)
    assert batch.size == 5
    assert (batch.crystal[batch.src] == batch.crystal[batch.dst]).all()
    assert (batch.bond_crystal[batch.line_src] == batch.bond_crystal[batch.line_dst]).all()
    assert (batch.dst[batch.line_src] == batch.src[batch.line_dst]).all()
    assert batch.n_atoms.tolist() == [len(s) for s in everyday()]


def test_graphs_of_different_settings_do_not_mix():
    with pytest.raises(ModelError, match="settings"):
        collate([graph_of(al(), FULL), graph_of(al(), GraphSettings())])
    with pytest.raises(ModelError):
        collate([])


def test_vectors_give_back_distances_and_cosines():
    batch = collate([graph_of(lowsym(), FULL)])
    again = batch.with_vectors(batch.vector)
    assert (again.distance - batch.distance).abs().max() < 1e-5
    assert (again.cosine - batch.cosine).abs().max() < 1e-5
    with pytest.raises(ModelError):
        collate([graph_of(al(), GraphSettings())]).with_vectors(batch.vector)


def test_chunks_bound_the_rows_and_lose_nothing():
    graphs = [graph_of(s, FULL) for s in everyday() * 3]
    parts = list(chunks(graphs, 1500))
    assert sum(len(p) for p in parts) == 15
    assert all(len(p) == 1 or sum(len(g.src) + len(g.line_src) for g in p) <= 1500 for p in parts)
    assert any(len(p) > 1 for p in parts)


def test_arrays_and_structures_give_one_graph():
    s = mgb2()
    a = graph_of(s, FULL)
    b = build(np.array([12, 5, 5]), s.lattice.matrix, s.frac_coords, FULL)
    assert np.array_equal(a.vector, b.vector)


def test_graphs_need_no_torch():
    code = "import sys, onnes.graph.cache, onnes.graph.crystal_graph; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

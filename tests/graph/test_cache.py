from dataclasses import fields

import numpy as np
import pytest
from graph_crystals import everyday, lowsym, mgb2

from onnes.crystal.formula import numbers
from onnes.errors import CrystalError
from onnes.graph.cache import GraphCache, key
from onnes.graph.crystal_graph import BondGraph
from onnes.graph.settings import GraphSettings

SETTINGS = GraphSettings(kind="soft")


def arrays(s):
    return numbers(s), np.array(s.lattice.matrix), np.array(s.frac_coords)


def assert_same(a: BondGraph, b: BondGraph) -> None:
    for f in fields(BondGraph):
        assert np.array_equal(getattr(a, f.name), getattr(b, f.name)), f.name


def test_a_second_read_gives_the_same_graph(tmp_path):
    cache = GraphCache(tmp_path / "graphs")
    first = [cache.get(*arrays(s), SETTINGS) for s in everyday()]
    again = [cache.get(*arrays(s), SETTINGS) for s in everyday()]
    assert (cache.built, cache.hits, cache.damaged) == (5, 5, 0)
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)


def test_a_graph_without_angles_goes_through(tmp_path):
    cache = GraphCache(tmp_path)
    settings = GraphSettings(kind="radius", cutoff_A=5, line=False)
    assert_same(cache.get(*arrays(mgb2()), settings), cache.get(*arrays(mgb2()), settings))
    assert cache.hits == 1


def test_keys_follow_atoms_cell_and_settings():
    n, lattice, frac = arrays(mgb2())
    keys = {
        key(n, lattice, frac, SETTINGS),
        key(n, lattice, frac, GraphSettings()),
        key(n, lattice * 1.001, frac, SETTINGS),
        key(n, lattice, frac + 0.01, SETTINGS),
        key(n + 1, lattice, frac, SETTINGS),
    }
    assert len(keys) == 5


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flip", "other"])
def test_a_damaged_file_is_rebuilt(tmp_path, damage):
    cache = GraphCache(tmp_path)
    good = cache.get(*arrays(lowsym()), SETTINGS)
    path = cache.path(key(*arrays(lowsym()), SETTINGS))
    body = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(body[: len(body) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "flip":
        body[len(body) // 2] ^= 0xFF
        path.write_bytes(body)
    else:
        cache.get(*arrays(mgb2()), SETTINGS)
        path.write_bytes(cache.path(key(*arrays(mgb2()), SETTINGS)).read_bytes())
    assert_same(cache.get(*arrays(lowsym()), SETTINGS), good)
    assert cache.damaged == 1
    assert_same(cache.get(*arrays(lowsym()), SETTINGS), good)
    assert cache.damaged == 1
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_folder_that_cannot_be_made_costs_no_answer(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = GraphCache(blocked)
    assert cache.get(*arrays(mgb2()), SETTINGS).n_atoms == 3
    assert cache.get(*arrays(mgb2()), SETTINGS).n_atoms == 3
    assert cache.hits == 0


def test_a_refused_crystal_leaves_no_file(tmp_path):
    with pytest.raises(CrystalError):
        GraphCache(tmp_path).get(np.array([1]), np.eye(3) * 100.0, np.zeros((1, 3)), SETTINGS)
    assert not list(tmp_path.rglob("*.npz"))

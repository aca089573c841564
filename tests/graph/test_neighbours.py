import itertools

import numpy as np
import pytest
from graph_crystals import al, cs, everyday, lowsym, mgb2, needle, permuted, shifted, supercell, views
from pymatgen.core import Lattice, Structure

from onnes.errors import CrystalError, SettingsError
from onnes.graph.neighbours import find_bonds, isolated
from onnes.graph.settings import GraphSettings
from onnes.graph.soft import fade, soft_radii

FULL = GraphSettings(merge_A=0)


def bonds_of(s, settings=FULL):
    return find_bonds(np.array(s.lattice.matrix), np.array(s.frac_coords), settings)


def brute(s, cutoff):
    """Every pair within a cut-off from a plain loop over a generous block of cells."""
    lattice, cart = s.lattice.matrix, s.cart_coords
    spans = [int(np.ceil(cutoff * np.linalg.norm(np.linalg.inv(lattice)[:, k]))) + 2 for k in range(3)]
    shift = np.array(list(itertools.product(*(range(-n, n + 1) for n in spans)))) @ lattice
    found = []
    for i, j in itertools.product(range(len(s)), repeat=2):
        d = np.linalg.norm(cart[j] - cart[i] + shift, axis=1)
        found += [(i, j, round(x, 6)) for x in d[(d > 1e-8) & (d <= cutoff)]]
    return sorted(found)


def multiset(bonds):
    return sorted(
        zip(bonds.src.tolist(), bonds.dst.tolist(), np.round(bonds.distance, 6).tolist(), strict=True)
    )


def profile(s, settings=FULL):
    """(element, element, distance) of all bonds per atom of the cell: what no choice of cell may change."""
    b = bonds_of(s, settings)
    names = [x.symbol for x in s.species]
    rows = sorted((names[i], names[j], round(d, 5)) for i, j, d in zip(b.src, b.dst, b.distance, strict=True))
    return {row: rows.count(row) / len(s) for row in set(rows)}


def left_handed():
    s = lowsym()
    return Structure(s.lattice.matrix[[1, 0, 2]], s.species, s.frac_coords[:, [1, 0, 2]])


@pytest.mark.parametrize(
    "s", [needle(), mgb2(), lowsym(), left_handed()], ids=["needle", "mgb2", "lowsym", "left-handed"]
)
def test_a_radius_graph_is_the_brute_force_list(s):
    settings = GraphSettings(kind="radius", cutoff_A=5.0)
    b = bonds_of(s, settings)
    assert multiset(b) == brute(s, 5.0)
    assert np.allclose(np.linalg.norm(b.vector, axis=1), b.distance)


def test_a_needle_cell_has_the_nearest_of_the_brute_force_list():
    s = needle()
    everything = brute(s, 8.0)
    b = bonds_of(s)
    for atom in range(len(s)):
        d = sorted(x for i, _, x in everything if i == atom)
        mine = np.sort(b.distance[b.src == atom])
        assert len(mine) >= 12
        assert np.allclose(mine[:12], d[:12], atol=1e-5)


def test_shells_are_kept_whole():
    counts = {"al": (al(), 12), "cs": (cs(), 14)}
    for s, n in counts.values():
        b = bonds_of(s)
        assert len(b.src) == n
    # k = 9 cuts the second shell of bcc: all of it stays
    assert len(bonds_of(cs(), GraphSettings(neighbours=9, merge_A=0)).src) == 14
    assert len(bonds_of(cs(), GraphSettings(neighbours=8, merge_A=0)).src) == 8


def test_cesium_is_bonded_at_five_angstrom():
    b = bonds_of(cs())
    assert b.distance.min() == pytest.approx(6.14 * np.sqrt(3) / 2)


@pytest.mark.parametrize("s", everyday(), ids=lambda s: s.composition.reduced_formula)
@pytest.mark.parametrize("kind", ["nearest", "soft"])
def test_the_same_crystal_has_the_same_bonds(s, kind):
    settings = GraphSettings(kind=kind, merge_A=0)
    want = profile(s, settings)
    for name, view in views(s).items():
        got = profile(view, settings)
        near = {k: v for k, v in got.items() if k not in want or abs(v - want[k]) > 1e-9}
        # A distance on a rounding edge may print one step apart; nothing else may differ.
        assert sum(got.values()) == pytest.approx(sum(want.values())), name
        assert len(near) <= 2 or name == "noisy", (name, near)


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_change_the_number_of_bonds(seed):
    rng = np.random.default_rng(seed)
    for s, n in ((al(), 12), (cs(), 14), (supercell(al()), 96)):
        moved = Structure(
            s.lattice.matrix + rng.uniform(-1e-9, 1e-9, (3, 3)),
            s.species,
            s.frac_coords + rng.uniform(-1e-10, 1e-10),
        )
        assert len(bonds_of(moved).src) == n


def test_a_shell_at_the_cut_off_is_whole_under_noise():
    for seed in range(10):
        noise = np.random.default_rng(seed).uniform(-1e-9, 1e-9, (3, 3))
        s = Structure(8.0 * np.eye(3) + noise, ["Cs"], [[0, 0, 0]])
        assert len(bonds_of(s).src) == 6


def test_every_bond_is_there_in_both_directions():
    for s, kind in itertools.product(everyday(), ("nearest", "radius", "soft")):
        b = bonds_of(s, GraphSettings(kind=kind, cutoff_A=6.5, merge_A=0))
        there = sorted(map(tuple, np.round(np.c_[b.src, b.dst, b.vector, b.weight], 5) + 0.0))
        back = sorted(map(tuple, np.round(np.c_[b.dst, b.src, -b.vector, b.weight], 5) + 0.0))
        assert np.allclose(there, back, atol=2e-5)


def test_soft_radii_hold_the_count_asked_for():
    s = lowsym()
    b = bonds_of(s, GraphSettings(kind="radius", cutoff_A=8.0))
    for k, r in zip((12, 5), soft_radii(b.src, b.distance, len(s), (12, 5), 8.0, 0.3), strict=True):
        count = np.bincount(b.src, fade(b.distance / r[b.src], 0.3))
        assert np.allclose(count, k - 0.5, atol=1e-7)
    # too few neighbours: the radius stops at the cap
    assert np.all(soft_radii(b.src, b.distance, len(s), [199], 8.0, 0.3) == 8.0)


def test_soft_weights_move_smoothly_with_the_crystal():
    """Strain an orthorhombic cell so that shells cross: no weight may jump, however many bonds come and go."""
    totals = []
    for x in np.linspace(0.9, 1.15, 501):
        s = Structure(Lattice.orthorhombic(3.0 * x, 3.2, 3.4), ["Al"], [[0, 0, 0]])
        b = bonds_of(s, GraphSettings(kind="soft", merge_A=0))
        totals.append([np.sum(b.weight), np.sum(b.weight * b.distance)])
    steps = np.abs(np.diff(totals, axis=0)).max(axis=0)
    assert np.all(steps < [0.15, 0.8])


def test_an_isolated_atom_is_found():
    s = Structure(Lattice.cubic(100.0), ["H"], [[0, 0, 0]])
    for kind in ("nearest", "radius", "soft"):
        b = bonds_of(s, GraphSettings(kind=kind))
        assert len(b.src) == 0
        assert isolated(b).tolist() == [0]


@pytest.mark.parametrize(
    ("lattice", "frac", "code"),
    [
        (np.eye(3) * 4, [[0, 0, np.nan]], "non-finite"),
        ([[4, 0, 0], [0, 4, 0], [4, 4, 0]], [[0, 0, 0]], "zero-volume"),
        (np.eye(3) * 4, [[0, 0, 0], [0, 0, 0.001]], "overlapping-atoms"),
        (np.eye(3) * 4, np.zeros((0, 3)), "no-atoms"),
    ],
)
def test_what_no_graph_can_hold_is_refused(lattice, frac, code):
    with pytest.raises(CrystalError) as error:
        find_bonds(np.array(lattice, float), np.array(frac, float), FULL)
    assert error.value.code == code


def test_settings_go_through_a_checkpoint_and_refuse_nonsense():
    settings = GraphSettings(kind="soft", line_neighbours=6)
    assert GraphSettings.from_dict(settings.as_dict()) == settings
    for bad in ({"kind": "knn"}, {"neighbours": 0}, {"cutoff_A": float("nan")}, {"line_neighbours": 4}):
        with pytest.raises(SettingsError):
            GraphSettings(**bad)
    with pytest.raises(SettingsError, match="max_neighbors"):
        GraphSettings.from_dict({"max_neighbors": 12})


def test_origin_and_order_only_relabel():
    s = lowsym()
    want = np.sort(bonds_of(s).distance)
    assert np.allclose(np.sort(bonds_of(shifted(permuted(s))).distance), want, atol=1e-9)


@pytest.mark.parametrize("kind", ["nearest", "soft"])
def test_the_first_search_radius_never_shows(monkeypatch, kind):
    """A search that is too short is repeated: the bonds are those of one long search."""
    settings = GraphSettings(kind=kind, merge_A=0)
    # A dense cluster beside a lone pair: the mean density says little about either.
    mixed = Structure(
        Lattice.cubic(9.5),
        ["Cu"] * 4 + ["Xe"] * 2,
        [[0, 0, 0], [0.2, 0.2, 0], [0.2, 0, 0.2], [0, 0.2, 0.2], [0.6, 0.6, 0.6], [0.9, 0.7, 0.65]],
    )
    for s in [*everyday(), needle(), mixed]:
        found = []
        for factor in (0.4, 0.9, 1.3, 100.0):
            monkeypatch.setattr("onnes.graph.neighbours._FIRST_SEARCH", {kind: factor})
            b = bonds_of(s, settings)
            found.append(
                np.array(sorted(map(tuple, np.round(np.c_[b.src, b.dst, b.vector, b.weight], 6) + 0.0)))
            )
        assert all(np.allclose(f, found[-1], atol=2e-6) for f in found)

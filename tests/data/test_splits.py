"""Groups, folds and reports: what is alike is never parted, and every record is used once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnes.data.records import Record, read_records
from onnes.data.splits import fold_table, groups, kfold, size_histogram, train_val_test
from onnes.data.twins import duplicates, leak_report
from onnes.errors import DataError


def cubic(id, species, a=4.0, shift=0.0):
    cell = [[a, 0, 0], [0, a, 0], [0, 0, a]]
    frac = [[shift, shift, shift], [0.5 + shift, 0.5 + shift, 0.5 + shift]]
    return Record.from_row({"id": id, "lattice": cell, "species": species, "frac": frac})


def rock_salt(id, a, b, edge):
    """Primitive cell of the rock salt type, another crystal than `cubic` of equal formula."""
    h = edge / 2
    row = {"id": id, "lattice": [[0, h, h], [h, 0, h], [h, h, 0]], "species": [a, b]}
    return Record.from_row({**row, "frac": [[0, 0, 0], [0.5, 0.5, 0.5]]})


SMALL = [
    cubic("a", ["Cs", "Cl"]),
    cubic("b", ["Cl", "Cs"], shift=0.25),  # the same crystal, another origin and order
    rock_salt("c", "Cs", "Cl", 6.9),  # the same formula, another crystal
    cubic("d", ["Cs", "Br"]),
]

group_lists = st.lists(st.integers(0, 12), min_size=2, max_size=60)


@settings(max_examples=150, deadline=None)
@given(group_lists, st.integers(2, 6), st.integers(0, 5))
def test_kfold_invariants(labels, n, seed):
    number = len(set(labels))
    if number < n:
        with pytest.raises(DataError) as error:
            kfold(labels, n, seed)
        assert error.value.code == "too-few-groups"
        return
    folds = kfold(labels, n, seed)
    tests = np.concatenate([fold.test for fold in folds])
    assert sorted(tests) == list(range(len(labels))), "each record is tested once"
    for fold in folds:
        assert len(fold.test) and len(fold.train) + len(fold.test) == len(labels)
        assert not {labels[i] for i in fold.train} & {labels[i] for i in fold.test}, "a group was cut"
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= max(np.bincount(labels)), "folds are as even as the groups allow"
    again = kfold(labels, n, seed)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(folds, again, strict=True))


@settings(max_examples=100, deadline=None)
@given(group_lists, st.integers(0, 5))
def test_three_way_invariants(labels, seed):
    if len(set(labels)) < 3:
        with pytest.raises(DataError):
            train_val_test(labels, seed=seed)
        return
    parts = train_val_test(labels, seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    sides = [{labels[i] for i in part} for part in parts]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_seed_matters_and_numbers_of_groups_do_not():
    labels = [k // 2 for k in range(40)]
    first = kfold(labels, 5, 0)
    assert any(not np.array_equal(a.test, b.test) for a, b in zip(first, kfold(labels, 5, 1), strict=True))
    renamed = kfold([1000 - k for k in labels], 5, 0)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(first, renamed, strict=True))


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (0.5, 0.5)])
def test_bad_fractions(fractions):
    with pytest.raises(DataError) as error:
        train_val_test([0, 1, 2], fractions)
    assert error.value.code == "bad-fractions"


def test_bad_folds_and_empty_sets():
    for n in (1, 0, -3):
        with pytest.raises(DataError) as error:
            kfold([0, 1, 2], n)
        assert error.value.code == "bad-folds"
    assert len(groups([])) == 0
    with pytest.raises(DataError):
        kfold([], 2)


def test_groups_by_formula_and_by_fingerprint():
    assert groups(SMALL).tolist() == [0, 0, 0, 1]
    assert groups(SMALL, by="fingerprint").tolist() == [0, 0, 1, 2]
    assert groups(SMALL, by="fingerprint", links=[(2, 3), (3, 0)]).tolist() == [0, 0, 0, 0]
    assert size_histogram(groups(SMALL)) == {1: 1, 3: 1}
    with pytest.raises(DataError) as error:
        groups(SMALL, by="colour")
    assert error.value.code == "unknown-option"


def test_fold_table_holds_ids():
    table = fold_table(SMALL, 3, seed=1, by="fingerprint")
    assert (table["n"], table["groups"], table["by"], table["seed"]) == (4, 3, "fingerprint", 1)
    assert sorted(name for f in table["folds"] for name in f["test"]) == ["a", "b", "c", "d"]
    assert any({"a", "b"} <= set(f["test"]) for f in table["folds"])


def test_duplicate_report():
    report = duplicates(SMALL)
    assert report.pairs == [("a", "b")] and report.indices == [(0, 1)]
    assert (report.n, report.compared, report.not_compared) == (4, 3, 0)
    cut = duplicates(SMALL, max_pairs=1)
    assert (cut.compared, cut.not_compared) == (1, 2), "what was not compared is said"


def test_many_of_one_formula_are_searched_near_each_other(monkeypatch):
    monkeypatch.setattr("onnes.data.twins.MANY", 10)
    edges = np.linspace(5.0, 9.0, 6)
    records = [rock_salt(f"r{k}", "Na", "Cl", a) for k, a in enumerate(edges)] + [
        cubic("x", ["Na", "Cl"]),
        cubic("y", ["Cl", "Na"], shift=0.1),
    ]
    pairs = duplicates(records).pairs
    assert ("x", "y") in pairs
    assert all({a, b} == {"x", "y"} or ("r" in a and "r" in b) for a, b in pairs)


def test_leak_report():
    report = leak_report(SMALL[:1], SMALL[1:])
    assert report.equal_pairs == [("a", "b")] and report.leaked_test_ids == ["b", "c"]
    assert report.shared_formulas == ["ClCs"] and len(report.shared_fingerprints) == 1
    assert not report.clean and report.to_dict()["clean"] is False
    clean = leak_report(SMALL[:3], SMALL[3:])
    assert clean.clean and clean.to_dict()["clean"] is True
    assert leak_report([SMALL[0]], [cubic("a", ["K", "Br"])]).shared_ids == ["a"]


@pytest.fixture(scope="module")
def jarvis(shared_data):
    return read_records(shared_data / "jarvis_supercon.jsonl.gz")


def test_mgb2_twice_in_the_public_set(jarvis):  # CASES 24
    where = {record.id: k for k, record in enumerate(jarvis)}
    first, second = where["JVASP-1151"], where["JVASP-19821"]
    for by in ("formula", "fingerprint"):
        group = groups(jarvis, by=by)
        assert group[first] == group[second], by
    report = duplicates(jarvis)
    assert {"JVASP-1151", "JVASP-19821"} in [set(pair) for pair in report.pairs]
    assert report.not_compared == 0
    assert 50 <= len(report.pairs) <= 60, "the set's own notes count 56 pairs"


def test_twins_of_the_public_tc_test_set(jarvis):
    train = [r for r in jarvis if r.meta.get("split_616") in ("train", "val")]
    test = [r for r in jarvis if r.meta.get("split_616") == "test"]
    leaked = {b for _, b in leak_report(train, test).equal_pairs}
    assert leaked == {"JVASP-16164", "JVASP-19729", "JVASP-20524"}

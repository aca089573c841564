"""``onnes evaluate`` of a folder of crystals."""

import csv
import json
import shutil

import pytest
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from onnes.cli.main import app
from onnes.errors import OnnesError
from onnes.stability.assess import STABILITY_COLUMNS
from onnes.stability.novelty import KNOWN, NEW


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three crystals, their relaxed ones, and two of them as known: written once, which takes seconds."""
    path = tmp_path_factory.mktemp("written")
    for name in ("made", "known", "relaxed"):
        (path / name).mkdir()
    for name, a, x, y in (("one", 5.64, "Na", "Cl"), ("two", 4.21, "Mg", "O"), ("three", 4.24, "Ti", "N")):
        s = Structure.from_spacegroup(225, Lattice.cubic(a), [x, y], [[0, 0, 0], [0.5, 0, 0]])
        s.to(str(path / "made" / f"{name}.cif"))
        s.scale_lattice(s.volume * 1.03)
        s.to(str(path / "relaxed" / f"{name}.cif"))
        if name != "three":
            s.to(str(path / "known" / f"{name}.cif"))
    return path


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def run(*args):
    result = CliRunner().invoke(app, ["evaluate", *map(str, args)])
    if isinstance(result.exception, OnnesError):
        return 2, "", str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def no_measure(monkeypatch):
    """What is wrong with the arguments must be told before anything that takes long."""

    def late(*_, **__):
        raise AssertionError("measured before the arguments were checked")

    monkeypatch.setattr("onnes.generate.metrics.measure", late)


def table_of(path, rows):
    """A table of ``onnes stability``: (id, e_hull, novelty, same_as) each."""
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(stream, STABILITY_COLUMNS)
        table.writeheader()
        for name, high, novelty, same in rows:
            table.writerow(
                {"id": name, "e_hull_eV_atom": high, "novelty": novelty, "same_as": same, "status": "ok"}
            )
    return path


def test_json_holds_every_figure_with_n_and_interval(folder):
    code, text, _ = run(
        folder / "made", "--reference", folder / "known", "--relaxed", folder / "relaxed", "--json"
    )
    assert code == 0
    found = json.loads(text)
    figures = found["figures"]
    assert figures["structural_validity"]["value"] == 1.0 and figures["structural_validity"]["n"] == 3
    assert figures["novel"]["value"] == pytest.approx(1 / 3)
    assert figures["relative_volume_change"]["value"] == pytest.approx(0.03, abs=1e-4)
    assert figures["rmsd_to_relaxed_A"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert figures["coverage_recall"]["n"] == 2 and found["space_groups"] == {"225": 3}
    assert all(f["n"] > 0 and {"low", "high", "interval"} <= f.keys() for f in figures.values())


def test_table_and_csv_files(folder):
    code, text, _ = run(folder / "made", "--out", folder / "out")
    assert code == 0 and "structural_validity" in text and "225 (3)" in text
    lines = (folder / "out" / "metrics.csv").read_text().splitlines()
    assert lines[0] == "metric,value,n,low,high,interval,reference_halves"
    assert (folder / "out" / "space_groups.csv").read_text().splitlines()[1] == "225,3"


def test_a_refused_crystal_counts_as_invalid_and_sets_the_exit_code(folder):
    bad = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.05, 0, 0]])
    bad.to(str(folder / "made" / "overlap.cif"))
    code, text, err = run(folder / "made", "--json")
    assert code == 1 and "overlapping-atoms" in err
    figure = json.loads(text)["figures"]["structural_validity"]
    assert (figure["value"], figure["n"]) == (0.75, 4)


def test_what_is_no_set_of_crystals_needs_data(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for model in ("trees", tmp_path / "empty", tmp_path / "missing"):
        code, _, err = run(model)
        assert code == 2 and "no-data" in err
    code, _, err = run(folder / "made", "--symprec", "-1")
    assert code == 2 and "bad-setting" in err


def test_structure_prediction_by_name(folder):
    """Three true crystals: one guessed, one of another structure, one without a guess."""
    (folder / "true").mkdir()
    for name, source in (("one", "one"), ("two", "two"), ("four", "three")):
        (folder / "true" / f"{name}.cif").write_text((folder / "relaxed" / f"{source}.cif").read_text())
    wrong = Structure.from_spacegroup(221, Lattice.cubic(2.6), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    wrong.to(str(folder / "made" / "two.cif"))
    code, text, _ = run(folder / "made", "--truth", folder / "true", "--json")
    found = json.loads(text)
    for name in ("loose", "default"):
        rate, rmsd = found["figures"][f"match_rate_{name}"], found["figures"][f"rmsd_{name}"]
        assert code == 0 and rate["value"] == pytest.approx(1 / 3) and rate["n"] == 3
        assert rmsd["n"] == 1 and rmsd["value"] == pytest.approx(0.0, abs=1e-4)
    assert any("1 of them without a guess" in note for note in found["notes"])
    code, *_ = run(folder / "made", "--truth", folder / "made" / "three.cif", "--json")
    assert code == 0


def test_an_unreadable_true_crystal_is_named_and_sets_the_exit_code(folder):
    (folder / "known" / "three.cif").write_text("data_three\n_cell_length_a 4.2\n")
    code, text, _ = run(folder / "made", "--truth", folder / "known", "--json")
    found = json.loads(text)
    rate = found["figures"]["match_rate_loose"]
    assert code == 1 and (rate["value"], rate["n"]) == (1.0, 2)
    assert [n for n in found["notes"] if "1 of 3 true crystals could not be read" in n and "three" in n]


def test_without_a_readable_true_crystal_the_message_says_so(folder, no_measure):
    bad = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.05, 0, 0]])
    (folder / "true").mkdir()
    bad.to(str(folder / "true" / "one.cif"))
    code, _, err = run(folder / "made", "--truth", folder / "true")
    assert code == 2 and "no-truth" in err and "could be read: one" in err


def test_a_guess_that_could_not_be_read_is_a_wrong_one(folder):
    bad = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.05, 0, 0]])
    bad.to(str(folder / "made" / "one.cif"))
    code, text, _ = run(folder / "made", "--truth", folder / "known" / "one.cif", "--json")
    rate = json.loads(text)["figures"]["match_rate_loose"]
    assert code == 1 and (rate["value"], rate["n"]) == (0.0, 1)


def test_names_of_the_true_ones_are_compared_before_anything_is_measured(folder, no_measure):
    (folder / "known" / "one.cif").rename(folder / "one_only.cif")
    code, _, err = run(folder / "made", "--truth", folder / "one_only.cif")
    assert code == 2 and "no-pairs" in err


@pytest.mark.parametrize("option", ["--truth", "--relaxed"])
@pytest.mark.parametrize("side", ["made", "known"])
def test_two_crystals_of_one_name_are_not_paired_by_chance(folder, no_measure, side, option):
    (folder / side / "again").mkdir()
    (folder / side / "again" / "one.cif").write_text((folder / "made" / "two.cif").read_text())
    code, _, err = run(folder / "made", option, folder / "known")
    assert code == 2 and "duplicate-id" in err and "called one;" in err


def test_two_of_a_name_that_nothing_is_paired_with_do_no_harm(folder):
    """Nor does a file whose own name looks like the second of two."""
    (folder / "made" / "again").mkdir()
    (folder / "made" / "again" / "three.cif").write_text((folder / "made" / "three.cif").read_text())
    for side in ("made", "known"):
        (folder / side / "one~2.cif").write_text((folder / "made" / "two.cif").read_text())
    code, text, _ = run(folder / "made", "--truth", folder / "known", "--json")
    rate = json.loads(text)["figures"]["match_rate_default"]
    assert code == 0 and (rate["value"], rate["n"]) == (1.0, 3)


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_measured(folder, no_measure):
    (folder / "file").write_text("")
    code, _, err = run(folder / "made", "--out", folder / "file" / "figures")
    assert code == 2 and "cannot-write" in err


def test_stable_unique_novel_of_the_table_of_stability(folder):
    """Of four crystals one is all three; one is high, one known, one has no row and counts as none."""
    s = Structure.from_spacegroup(225, Lattice.cubic(4.47), ["Nb", "C"], [[0, 0, 0], [0.5, 0, 0]])
    s.to(str(folder / "made" / "four.cif"))
    given = [("one", 0.02, NEW, ""), ("two", 0.3, NEW, ""), ("three", 0.0, KNOWN, ""), ("else", 0.0, NEW, "")]
    table = table_of(folder / "stability.csv", given)
    code, text, _ = run(folder / "made", "--stability", table, "--json")
    figures = json.loads(text)["figures"]
    assert code == 0
    assert [figures[k]["value"] for k in ("stable", "novel_to_index", "stable_unique_novel")] == [
        0.5,
        0.5,
        0.25,
    ]
    assert figures["stable_unique_novel"]["n"] == 4 and figures["unique_relaxed"]["value"] == 0.75
    _, text, _ = run(folder / "made", "--stability", table, "--stable-below", "0.4", "--json")
    assert json.loads(text)["figures"]["stable_unique_novel"]["value"] == 0.5


def test_unique_is_among_the_crystals_of_the_folder(folder):
    """The table is of more: two are the same as one outside, which leaves one of them; `two` is its own."""
    rows = [
        ("else", 0.0, NEW, ""),
        ("one", 0.0, NEW, "else"),
        ("three", 0.0, NEW, "else"),
        ("two", 0.0, NEW, ""),
    ]
    table = table_of(folder / "stability.csv", rows)
    _, text, _ = run(folder / "made", "--stability", table, "--json")
    assert json.loads(text)["figures"]["unique_relaxed"]["value"] == pytest.approx(2 / 3)
    table_of(table, [("one", 0.0, NEW, "two"), ("two", 0.0, NEW, ""), ("three", 0.0, NEW, "two")])
    _, text, _ = run(folder / "made", "--stability", table, "--json")
    assert json.loads(text)["figures"]["unique_relaxed"]["value"] == pytest.approx(1 / 3)


def test_ids_that_look_like_a_missing_value(folder):
    """And no energy above the hull is no mistake: an element has no reference."""
    for old, new in (("one", "NA"), ("two", "null"), ("three", "007")):
        (folder / "made" / f"{old}.cif").rename(folder / "made" / f"{new}.cif")
    rows = [("NA", 0.0, NEW, ""), ("null", "", NEW, ""), ("007", 0.0, NEW, "NA")]
    _, text, _ = run(folder / "made", "--stability", table_of(folder / "stability.csv", rows), "--json")
    found = json.loads(text)
    assert [found["figures"][k]["value"] for k in ("stable", "unique_relaxed", "stable_unique_novel")] == [
        pytest.approx(x / 3) for x in (2, 2, 1)
    ]
    assert any("0 refused, failed or not in the table, 1 without a reference" in n for n in found["notes"])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "missing-path"),
        ("", "bad-table"),
        ("id,status\none,ok\n", "bad-table"),
        ("id,e_hull_eV_atom,novelty,same_as,status\none,low,new,,ok\n", "bad-table"),
        ("id,e_hull_eV_atom,novelty,same_as,status\nnobody,0.1,new,,ok\n", "no-pairs"),
        ("id,e_hull_eV_atom,novelty,same_as,status\none,0.1,new,,ok\none,0.9,new,,ok\n", "bad-table"),
    ],
)
def test_a_table_that_is_none_is_refused(folder, no_measure, text, code):
    table = folder / "stability.csv"
    if text is not None:
        table.write_text(text)
    exit_code, _, err = run(folder / "made", "--stability", table)
    assert exit_code == 2 and code in err

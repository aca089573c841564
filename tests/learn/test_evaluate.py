"""onnes evaluate: plans that do not leak, scores that can be recomputed from the csv, round trips of the command."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from onnes.cli.main import app
from onnes.data.records import Record, read_records, write_records
from onnes.errors import DataError, ModelError, OnnesError, SettingsError
from onnes.learn import shipped
from onnes.learn.baselines import baseline
from onnes.learn.evaluate import Options, _share, data_hash, evaluate, labelled, learning_curve
from onnes.learn.plan import folds_plan, named_plan

METALS = ["Al", "Cu", "Nb", "Pb", "V", "Ta", "Mo", "W", "Ti", "Zr", "Hf", "Sn", "In", "Ga", "Mg", "Be"]
PARTS = ["train", "train", "train", "val", "test"]


def crystal(k: int, x: str, y: str, **fields) -> Record:
    side = 3.0 + 0.01 * k
    row = {
        "id": f"own-{k}",
        "lattice": [[side, 0, 0], [0, side, 0], [0, 0, side]],
        "species": [x, y],
        "frac": [[0, 0, 0], [0.5, 0.5, 0.5]],
        **fields,
    }
    return Record.from_row(row, source="own")


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """120 CsCl cells whose lambda follows the elements; a part of the formulas comes twice."""
    rng, out = np.random.default_rng(0), []
    pairs = [(a, b) for i, a in enumerate(METALS) for b in METALS[i + 1 :]][:96]
    for k, (x, y) in enumerate([*pairs, *pairs[:24]]):
        lam = 0.1 + 0.05 * (METALS.index(x) + METALS.index(y)) + 0.02 * rng.random()
        part = PARTS[k % 5] if k < 96 else "train"
        more = {"lambda": lam, "Tc_K": 8.0 * lam, "part": part, "kind": "abc"[k % 3], "flag": k % 2 == 0}
        out.append(crystal(k, x, y, **more))
    return out


@pytest.fixture
def data(records, tmp_path):
    path = tmp_path / "own.jsonl.gz"
    write_records(path, records)
    return path


@pytest.fixture
def run():
    runner = CliRunner()

    def call(*args):
        result = runner.invoke(app, ["evaluate", *map(str, args)])
        if isinstance(result.exception, OnnesError):
            return 2, "", str(result.exception)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


def test_folds_score_every_row_once_a_repeat_and_cut_no_formula(records):
    plan = folds_plan(records, 4, 3, seed=1)
    for r in range(3):
        tests = [turn.test for turn in plan.turns if turn.repeat == r]
        assert sorted(np.concatenate(tests)) == list(range(120))
    for turn in plan.turns:
        assert not {records[i].formula for i in turn.train} & {records[i].formula for i in turn.test}
    other = folds_plan(records, 4, 3, seed=1)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(plan.turns, other.turns, strict=True))
    assert any(
        not np.array_equal(plan.turns[k].test, plan.turns[4 + k].test) for k in range(4)
    )  # repeats differ


def test_named_split_finds_what_leaks(records):
    plan = named_plan(records, "part")
    (turn,) = plan.turns
    assert {records[i].meta["part"] for i in turn.test} == {"test"}
    assert {records[i].meta["part"] for i in turn.train} == {"train"}
    learned = {records[i].formula for i in [*turn.train, *turn.val]}
    assert plan.leaked.tolist() == [i for i in turn.test if records[i].formula in learned]
    assert 0 < len(plan.leaked) < len(turn.test)
    assert "share formula or crystal" in plan.notes[0]
    with pytest.raises(DataError, match=r"these have: part \[unknown-split\]"):
        named_plan(records, "nothing")
    with pytest.raises(DataError, match=r"\[empty-part\]"):
        named_plan([r for r in records if r.meta["part"] != "test"], "part")


def test_figures_follow_from_the_rows(records):
    found = evaluate(
        "trees", records, folds_plan(records, 4, 2), Options(by="kind", draws=100, target="Tc_K")
    )
    table = pd.DataFrame(found.rows)
    assert len(table) == 240
    error = (table["predicted"] - table["truth"]).abs()
    scores = {(line.rows, line.score.name): line for line in found.lines}
    everything = scores["all", "mae"]
    assert everything.score.value == pytest.approx(error.mean(), abs=1e-12)
    assert everything.constant == pytest.approx((table["median"] - table["truth"]).abs().mean(), abs=1e-12)
    assert everything.score.n == 120
    assert everything.score.low < everything.score.value < everything.score.high
    gain = scores["all", "gain"].score
    assert gain.value == pytest.approx(everything.constant - everything.score.value, abs=1e-12)
    assert 0.0 < gain.low < gain.value < gain.high
    kind = table["id"].map({r.id: r.meta["kind"] for r in records})
    for value in "abc":
        assert scores[f"kind={value}", "mae"].score.value == pytest.approx(error[kind == value].mean())
        assert scores[f"kind={value}", "mae"].score.n == 40
    assert scores["all", "average_precision"].constant == pytest.approx((table["truth"] > 5).mean())
    ranges = [line.score.n for line in found.lines if line.rows.startswith("truth")]
    assert sum(ranges) == 120
    assert found.curve is not None and found.curve.n == 120


def test_medians_come_from_the_training_rows_only(records):
    plan = folds_plan(records, 3)
    found = evaluate("median", records, plan, Options(draws=10))
    for turn in plan.turns:
        expected = np.median([records[i].labels["lambda"] for i in turn.train])
        ids = {records[i].id for i in turn.test}
        assert all(row["predicted"] == row["median"] == expected for row in found.rows if row["id"] in ids)
    assert {line.score.value for line in found.lines if line.score.name == "gain"} == {0.0}


def test_intervals_are_calibrated_on_other_formulas(records):
    """An impossible label must not stretch its own interval."""
    moved = [*records]
    row = records[50].to_row()
    moved[50] = Record.from_row({**row, "lambda": 50.0})
    found = evaluate("trees", moved, folds_plan(moved, 5), Options(draws=10))
    wild = next(r for r in found.rows if r["id"] == records[50].id)
    assert wild["high"] < 50.0
    assert found.coverage[0].n == 120
    assert found.coverage[0].share == pytest.approx(0.9, abs=0.06)


def test_intervals_per_range():
    """Errors ten times larger above lambda 0.6: one width cannot serve both ranges."""
    rng, out = np.random.default_rng(1), []
    names = [(a, b) for a in METALS for b in METALS if a < b]
    for k in range(960):
        high = k % 2 == 0
        x, y = names[(k // 8) % len(names)]
        # A marker element, so that trees can tell the ranges apart.
        species = [x, y, "U" if high else "He"]
        side = 3.0 + 0.01 * rng.random()
        lam = 0.9 + 0.2 * rng.normal() if high else 0.4 + 0.02 * rng.normal()
        row = {"id": f"s{k}", "lattice": (side * np.eye(3)).tolist(), "species": species}
        frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0]]
        out.append(Record.from_row({**row, "frac": frac, "lambda": max(lam, 0.1)}))
    plan = folds_plan(out, 3)
    one = evaluate("trees", out, plan, Options(draws=2))
    own = evaluate("trees", out, plan, Options(draws=2, by_range=True))
    low, high = (part for part in own.coverage[1:] if part.n > 400)
    assert low.share == pytest.approx(0.9, abs=0.03)
    assert high.share == pytest.approx(0.9, abs=0.03)
    assert [part.share for part in one.coverage[1:] if part.n > 400][1] < high.share - 0.04


def test_learning_curve_ends_at_the_figure_of_the_table(records):
    found = evaluate("boosting", records, folds_plan(records, 3), Options(draws=20, learning_curve=True))
    mae = next(line.score for line in found.lines if line.score.name == "mae")
    assert found.learning[-1]["score"].value == pytest.approx(mae.value, abs=1e-12)
    sizes = [point["n_train"] for point in found.learning]
    assert sizes == sorted(sizes) and sizes[-1] == 80


def test_learning_curve_of_repeats_and_nested_shares(records):
    plan = folds_plan(records, 3, 2)
    truth = np.array([r.labels["lambda"] for r in records])
    plain = Options(draws=5, target="ehull_eV_atom")  # learned as it is: medians are those of the table
    points = learning_curve(baseline("median"), np.zeros((120, 0)), truth, plan, plain)
    mae = next(x.score for x in evaluate("median", records, plan, Options(draws=5)).lines)
    assert points[-1]["score"].value == pytest.approx(mae.value, abs=1e-9)
    assert [p["fraction"] for p in points] == [0.05, 0.1, 0.2, 0.4, 0.7, 1.0]
    for turn in plan.turns:
        parts = [set(_share(turn, plan, f, 0).tolist()) for f in (0.1, 0.4, 1.0)]
        assert parts[0] < parts[1] < parts[2] == set(turn.train.tolist())


def test_hash_sees_labels_and_crystals(records):
    first = data_hash(records, "lambda")
    assert first == data_hash([*records], "lambda")
    assert first != data_hash(records, "Tc_K")
    assert first != data_hash(records[:-1], "lambda")


def test_refused(records):
    with pytest.raises(DataError, match=r"the records carry: Tc_K, lambda \[no-label\]"):
        labelled(records, "gap_eV")
    with pytest.raises(
        ModelError, match="use one of shipped, shipped-spectrum, median, trees, boosting, cfid"
    ):
        evaluate("forest", records, folds_plan(records), Options())
    with pytest.raises(DataError, match=r"\[unknown-field\]"):
        evaluate("median", records, folds_plan(records), Options(by="colour", draws=2))
    with pytest.raises(SettingsError, match=r"\[bad-repeats\]"):
        evaluate("shipped", records, folds_plan(records, 5, 2), Options())
    with pytest.raises(ModelError, match=r"predicts no magmom.*\[unknown-target\]"):
        shipped.predict_column(records, "magmom_oszicar_muB", mu_star=0.1, formula="allen-dynes")


# --- the shipped model, with its network replaced by a known table


@pytest.fixture
def known(monkeypatch, records):
    """A predictor that is exact but for one refused crystal."""

    def predict(items, **settings):
        by_id = {r.id: r for r in records}
        lam = [by_id[item.id].labels["lambda"] if item.id != "own-7" else np.nan for item in items]
        low = [8.0 * x - 1 for x in lam]
        tc = {"tc_K": [8.0 * x for x in lam], "tc_low_K": low, "tc_high_K": [x + 2 for x in low]}
        return pd.DataFrame({"id": [item.id for item in items], "lambda": lam, **tc})

    monkeypatch.setattr("onnes.prediction.predict", predict)
    monkeypatch.setattr("onnes.learn.shipped_folds.out_of_fold", lambda *args, **settings: None)


def test_shipped_is_scored_on_the_same_folds(known, records):
    found = evaluate("shipped", records, folds_plan(records), Options(draws=20, target="Tc_K"))
    scores = {line.score.name: line for line in found.lines if line.rows == "all"}
    assert scores["mae"].score.value == pytest.approx(0.0, abs=1e-12)
    assert (scores["mae"].score.n, scores["mae"].score.missing) == (119, 1)
    median = evaluate("median", records, folds_plan(records), Options(draws=20, target="Tc_K"))
    assert scores["mae"].constant == next(x.constant for x in median.lines)
    assert (found.coverage[0].n, found.coverage[0].share, found.coverage[0].missing) == (119, 1.0, 1)
    assert any("names no training set" in note for note in found.notes)


def test_rows_of_the_training_set_are_named(records):
    seen, notes = shipped.honesty([r.model_copy(update={"id": f"agm{r.id}"}) for r in records], "lambda")
    assert seen == 120
    assert notes[0].startswith("NOT A TEST: 120 rows of Alexandria")
    assert any("out of fold" in note and "MAE" in note for note in notes)


def test_rows_in_sample_never_go_by_another_name(known, records):
    """The names of database rows tell; the first figures leave them out, or say what they are."""
    mixed = [r.model_copy(update={"id": f"agm{r.id}"}) if k < 50 else r for k, r in enumerate(records)]
    by_id = {r.id: r for r in mixed}

    def predict(items, **settings):
        return pd.DataFrame({"lambda": [by_id[i.id].labels["lambda"] + 0.1 * (i.id < "b") for i in items]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnes.prediction.predict", predict)
        found = evaluate("shipped", mixed, folds_plan(mixed), Options(draws=5))
        only = evaluate("shipped", mixed, folds_plan(mixed), Options(draws=5, unseen_only=True))
        seen = evaluate("shipped", mixed[:50], folds_plan(mixed[:50]), Options(draws=5))
        with pytest.raises(DataError, match=r"50 in sample.*\[all-seen\]"):
            evaluate("shipped", mixed[:50], folds_plan(mixed[:50]), Options(draws=5, unseen_only=True))
    mae = {line.rows: line.score for line in found.lines if line.score.name == "mae"}
    assert (mae["all"].n, mae["in sample"].n) == (70, 50)
    assert mae["all"].value == pytest.approx(0.0, abs=1e-12)
    assert mae["in sample"].value == pytest.approx(0.1)
    assert sum(e.n for e in found.elements) == 140
    assert {line.rows for line in only.lines} & {"in sample"} == set() and len(only.rows) == 70
    assert all(line.rows.startswith("in sample") for line in seen.lines)
    assert seen.headline == "in sample" and any("NOT A TEST" in note for note in seen.notes)


def test_predictions_of_a_csv(run, data, records, tmp_path):
    path = tmp_path / "other.csv"
    lines = [f"{r.id},{r.labels['lambda'] + 0.05}" for r in records[:-1]]
    path.write_text("\n".join(["id,lambda_pred", *lines, f"{records[-1].id},"]) + "\n")
    code, text, _ = run(path, "--data", data, "--json")
    found = json.loads(text)
    assert code == 0
    mae = next(line for line in found["lines"] if line["name"] == "mae")
    assert (mae["n"], mae["missing"]) == (119, 1)
    assert mae["value"] == pytest.approx(0.05)
    assert any("is not known here" in note for note in found["notes"])
    assert run(path, "--data", data, "--folds", 3)[2].endswith("[conflicting-options]")
    path.write_text("id,gap\nown-1,2\n")
    assert run(path, "--data", data)[2].endswith("[missing-field]")
    path.write_text("id,predicted\nown-1,two\n")
    assert run(path, "--data", data)[2].endswith("[not-a-number]")
    path.write_text("id,predicted\nelse-1,2\n")
    assert run(path, "--data", data)[2].endswith("[no-rows]")


# --- the command


def test_round_trip(run, data, tmp_path):
    out = tmp_path / "found here"
    code, text, _ = run("trees", "--data", data, "--target", "Tc_K", "--folds", 3, "--out", out, "--json")
    assert code == 0
    printed = json.loads(text)
    assert printed == json.loads((out / "evaluation.json").read_text())
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert len(rows) == 120
    error = np.mean([abs(float(r["predicted"]) - float(r["truth"])) for r in rows])
    mae = next(line for line in printed["lines"] if line["name"] == "mae")
    assert mae["value"] == pytest.approx(error, rel=1e-7)
    assert (mae["n"], mae["missing"]) == (120, 0)
    for name in ("parity", "elements", "precision_recall", "learning_curve"):
        assert (out / f"{name}.png").stat().st_size > 5000
        assert (out / f"{name}.svg").read_text().count("<path") > 5
    assert len(list(csv.DictReader((out / "elements.csv").open()))) == len(
        {s for r in read_records(data) for s in r.species}
    )
    again = tmp_path / "again"
    run("trees", "--data", data, "--target", "Tc_K", "--folds", 3, "--out", again, "--no-learning-curve")
    assert (again / "predictions.csv").read_bytes() == (out / "predictions.csv").read_bytes()


def test_table_for_people(run, data):
    code, text, _ = run(
        "boosting", "--data", data, "--split", "part", "--where", "flag=true", "--where", "kind=a"
    )
    assert code == 0
    for words in (
        "as published",
        "leak-free",
        "95 % CI",
        "constant",
        "flag=true: 60 of 120 rows",
        "kind=a: 20 of 60",
    ):
        assert words in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["forest"], "unknown-model"),
        (["median", "--target", "gap_eV"], "no-label"),
        (["median", "--target", "part"], "no-label"),
        (["median", "--folds", "1"], "bad-folds"),
        (["median", "--folds", "500"], "too-few-groups"),
        (["median", "--repeats", "0"], "bad-repeats"),
        (["median", "--group-by", "colour"], "unknown-option"),
        (["median", "--split", "part", "--folds", "3"], "conflicting-options"),
        (["median", "--split", "colour"], "unknown-split"),
        (["median", "--where", "part"], "bad-condition"),
        (["median", "--where", "part=nothing"], "no-rows"),
        (["median", "--level", "1.5"], "bad-level"),
        (["median", "--by", "colour"], "unknown-field"),
        (["shipped", "--mu-star", "2"], "bad-mu-star"),
    ],
)
def test_one_line_for_each_mistake(run, data, args, code):
    status, out, error = run(args[0], "--data", data, *args[1:])
    assert (status, out) == (2, "")
    assert error.endswith(f"[{code}]")
    assert "\n" not in error


def test_missing_file_and_folder_in_the_way(run, data, tmp_path):
    assert run("median", "--data", tmp_path / "no.jsonl")[2].endswith("[no-such-file]")
    (tmp_path / "file").write_text("x")
    status, _, error = run("median", "--data", data, "--out", tmp_path / "file")
    assert status == 2
    assert error.endswith("[cannot-write]")


def test_public_tc_split(shared, run):
    """536 of the 556 training rows are here; the test part is whole, three entries have a twin."""
    path = shared / "data" / "jarvis_supercon.jsonl.gz"
    code, text, _ = run("median", "--data", path, "--target", "Tc616_K", "--split", "split_616", "--json")
    assert code == 0
    found = json.loads(text)
    lines = {line["rows"]: line for line in found["lines"] if line["name"] == "mae"}
    assert (lines["as published"]["n"], lines["leak-free"]["n"]) == (30, 27)
    assert "536 train, 30 val, 30 test" in found["split"]
    assert any("JVASP-16164, JVASP-19729, JVASP-20524" in note for note in found["notes"])
    test = [r for r in read_records(path) if r.meta.get("split_616") == "test"]
    train = [r.labels["Tc616_K"] for r in read_records(path) if r.meta.get("split_616") == "train"]
    expected = np.mean([abs(r.labels["Tc616_K"] - np.median(train)) for r in test])
    assert lines["as published"]["value"] == pytest.approx(expected, abs=1e-12)
    assert math.isclose(lines["as published"]["constant"], lines["as published"]["value"])

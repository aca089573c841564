"""``onnes data``: round trips through the command line, exit codes, one line for each refusal."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from onnes.cli.main import app
from onnes.data.records import Record, read_records, write_records
from onnes.errors import OnnesError

CELL = [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]
PAIRS = [("a", "Cs", "Cl"), ("b", "Cl", "Cs"), ("c", "K", "Br"), ("d", "Rb", "I")]


def record(id, x, y):
    row = {"id": id, "lattice": CELL, "species": [x, y], "frac": [[0, 0, 0], [0.5, 0.5, 0.5]], "Tc_K": 1.5}
    return Record.from_row(row, source="set")


@pytest.fixture
def run():
    """Run in this process; a typed error becomes exit code 2, as in `onnes.cli.main.main`."""
    runner = CliRunner()

    def call(*args):
        result = runner.invoke(app, ["data", *map(str, args)])
        if isinstance(result.exception, OnnesError):
            return 2, "", str(result.exception)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "set.jsonl.gz"
    write_records(path, [record(*p) for p in PAIRS])
    return path


def test_list(run):
    code, text, _ = run("list")
    assert code == 0 and "jarvis-sc-3d" in text and "CC BY 4.0" in text
    code, text, _ = run("list", "--json")
    assert {"3dsc", "materials-project"} <= {item["name"] for item in json.loads(text)}


def test_import_gives_the_same_records(run, small, tmp_path):
    out = tmp_path / "again.jsonl"
    code, text, _ = run("import", small, "--out", out, "--json")
    assert code == 0 and json.loads(text) == {"out": str(out), "records": 4, "bad": []}
    assert list(read_records(out)) == list(read_records(small))


def test_import_goes_on_after_a_bad_file(run, small, tmp_path):
    (tmp_path / "bad file é.cif").write_text("")
    code, text, error = run("import", small, tmp_path / "bad file é.cif", "--out", tmp_path / "o.jsonl")
    assert code == 1 and "4 records" in text and "1 inputs refused" in text
    assert "[empty-file]" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "out", "code"),
    [
        ("f.csv", "formula,Tc\nMgB2,39\n", "o.jsonl", "[not-crystals]"),
        ("f.json", "[1]", "o.jsonl", "[not-an-object]"),
        ("f.json", "[1]", "o.csv", "[bad-name]"),
    ],
)
def test_import_refusals(run, tmp_path, name, content, out, code):
    (tmp_path / name).write_text(content)
    status, _, error = run("import", tmp_path / name, "--out", tmp_path / out)
    assert status == 2 and code in error and not (tmp_path / out).exists()


@pytest.mark.parametrize("by", ["formula", "fingerprint"])
def test_splits_round_trip(run, small, tmp_path, by):
    out = tmp_path / "s.json"
    args = ("splits", small, "--folds", 3, "--seed", 4, "--by", by)
    code, text, _ = run(*args, "--out", out)
    assert code == 0 and "3 groups" in text
    table = json.loads(out.read_text())
    assert json.loads(run(*args)[1]) == table
    assert sorted(name for f in table["folds"] for name in f["test"]) == ["a", "b", "c", "d"]
    assert all(not set(f["train"]) & set(f["test"]) for f in table["folds"])
    assert any({"a", "b"} <= set(f["test"]) for f in table["folds"]), "one crystal, one side"


@pytest.mark.parametrize(
    ("args", "code"),
    [(("--folds", 1), "bad-folds"), (("--folds", 9), "too-few-groups"), (("--by", "mood"), "unknown-option")],
)
def test_splits_refusals(run, small, args, code):
    status, _, error = run("splits", small, *args)
    assert status == 2 and f"[{code}]" in error


def test_bad_rows_give_exit_1(run, small, tmp_path):
    path = tmp_path / "with bad.jsonl"
    write_records(path, read_records(small))
    path.write_text(path.read_text() + "{broken\n")
    code, text, error = run("splits", path, "--folds", 2)
    assert code == 1 and json.loads(text)["n"] == 4 and "line 5" in error
    code, text, _ = run("check", path, "--json")
    assert code == 1 and json.loads(text)["bad_rows"] == 1


def test_check_finds_twins_and_leaks(run, small, tmp_path):
    code, text, _ = run("check", small)
    assert code == 0 and "a = b" in text
    assert run("check", small, "--strict")[0] == 1
    other = tmp_path / "train.jsonl"
    write_records(other, [record("t", "Br", "K")])
    code, text, _ = run("check", small, "--against", other, "--json")
    report = json.loads(text)
    assert code == 0 and report["leaks"]["equal_pairs"] == [["t", "c"]]
    assert report["duplicates"]["pairs"] == [["a", "b"]] and not report["leaks"]["clean"]
    assert "train t = test c" in run("check", small, "--against", other)[1]


def test_check_of_mgb2(run, shared_data):  # CASES 24
    code, text, _ = run("check", shared_data / "jarvis_supercon.jsonl.gz", "--json")
    pairs = [set(pair) for pair in json.loads(text)["duplicates"]["pairs"]]
    assert code == 0 and {"JVASP-1151", "JVASP-19821"} in pairs


def test_fetch(run, site, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNES_CACHE", str(tmp_path / "cache"))
    web = site(b"zip content")
    checksum = hashlib.sha256(b"zip content").hexdigest()
    code, text, error = run("fetch", "3dsc", "--url", web.url, "--json")
    done = json.loads(text)
    assert code == 0 and done["sha256"] == checksum and done["status"] == "downloaded"
    assert "pinned" in error and "CC BY 4.0" in error
    code, text, error = run("fetch", "3dsc", "--url", web.url, "--sha256", checksum)
    assert code == 0 and text.strip() == done["path"] and "pinned" not in error
    assert len(web.asked) == 1, "the second one came from the cache"


def test_fetch_refusals(run, site, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNES_CACHE", str(tmp_path / "cache"))
    web = site(b"bad content")
    cases = [
        (("fetch", "nothing"), "unknown-data-set"),
        (("fetch", "materials-project"), "no-file"),
        (("fetch", "alexandria-eph-archive"), "choose-file"),
        (("fetch", "3dsc", "--url", web.url, "--sha256", "0" * 64), "checksum-mismatch"),
        (("fetch", "3dsc", "--url", "data.csv"), "bad-url"),
    ]
    for args, code in cases:
        status, _, error = run(*args)
        assert status == 2 and f"[{code}]" in error, args
    assert not list((tmp_path / "cache").rglob("*.csv"))


def test_one_line_and_exit_2_from_the_real_command(tmp_path):
    command = [sys.executable, "-m", "onnes.cli.main", "data", "check", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "[is-a-folder]" in done.stderr


def test_negative_seed_is_a_usage_error(tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "onnes.cli.main", "data", "splits", "x.jsonl", "--seed", "-1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr

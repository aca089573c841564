"""``onnes verify --dry-run`` and ``onnes pseudo``: tables, files, exit codes, one line for each refusal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from contextlib import suppress

import pytest
from pymatgen.core import Lattice, Structure
from test_pseudopotentials import packed
from test_run import ALL, TIER, Desk
from typer.testing import CliRunner
from upf import folder_of, upf

from onnes.campaign.labels import Chosen, Verify
from onnes.campaign.settings import Settings
from onnes.campaign.stages import plain
from onnes.cli.main import app
from onnes.dft import run as run_module
from onnes.dft.run import only_one
from onnes.errors import OnnesError


@pytest.fixture
def run():
    runner = CliRunner()

    def call(*args):
        result = runner.invoke(app, list(map(str, args)))
        if isinstance(result.exception, OnnesError):
            return 2, "", str(result.exception)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def mgb2(tmp_path):
    structure = Structure(
        Lattice.hexagonal(3.085, 3.523),
        ["Mg", "B", "B"],
        [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
    )
    structure.to(filename=str(tmp_path / "mgb2.cif"))
    return tmp_path / "mgb2.cif"


def test_dry_run_needs_no_pseudopotentials_and_writes_all_inputs(run, mgb2, tmp_path):
    code, out, _ = run("verify", mgb2, "--dry-run", "--tier", "standard", "--out", tmp_path / "run")
    assert code == 0 and "q 4x4x3" in out and "caution" in out
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["irreducible_q"] == 8 and (tmp_path / "run" / "q008" / "ph.in").is_file()
    assert not (tmp_path / "run" / "q009").exists()
    assert plan["pseudopotentials"]["B"]["sha256"] == ""


def test_with_pseudopotentials_their_copies_and_checksums_go_along(run, mgb2, tmp_path):
    folder = folder_of(tmp_path / "pp", "Mg", "B")
    code, out, _ = run("verify", mgb2, "--dry-run", "--pseudo", folder, "--out", tmp_path / "run", "--json")
    (row,) = json.loads(out)
    assert code == 0 and row["electrons"] == 16 and row["ecutwfc_Ry"] == 84 and row["irreducible_q"] > 1
    copy = tmp_path / "run" / "pseudo" / "B.upf"
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["pseudopotentials"]["B"]["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest()


def test_two_dry_runs_write_the_same_bytes(run, mgb2, tmp_path):
    for name in ("a", "b"):
        assert run("verify", mgb2, "--dry-run", "--out", tmp_path / name)[0] == 0
    for file in (tmp_path / "a").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def test_missing_and_wrong_elements_are_refused_before_anything_is_written(run, mgb2, tmp_path):
    folder = folder_of(tmp_path / "pp", "Mg")
    code, _, err = run("verify", mgb2, "--dry-run", "--pseudo", folder, "--out", tmp_path / "run")
    assert code == 1 and "missing-pseudopotential" in err and not list((tmp_path / "run").iterdir())
    (folder / "B.upf").write_text(upf("Mg"))
    code, _, err = run("verify", mgb2, "--dry-run", "--pseudo", folder)
    assert code == 1 and "wrong-element" in err


def test_several_crystals_get_folders_of_their_own(run, mgb2, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a", "b"):
        (tmp_path / "more" / f"{name}.cif").write_bytes(mgb2.read_bytes())
    (tmp_path / "more" / "bad.cif").write_text("data_x\n_cell_length_a 1\n")
    code, out, _ = run("verify", tmp_path / "more", "--dry-run", "--out", tmp_path / "run", "--json")
    rows = json.loads(out)
    assert code == 1 and sorted(r["status"] for r in rows) == ["ok", "ok", "refused"]
    assert (tmp_path / "run" / "a" / "scf" / "scf.in").is_file() and (
        tmp_path / "run" / "b" / "plan.json"
    ).is_file()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--dry-run", "--tier", "huge"], "unknown-tier"),
        (["--dry-run", "--ecut", "0.1"], "bad-cutoff"),
        (["--dry-run", "--pseudo", "nowhere"], "no-such-folder"),
        ([], "no-folder"),
        (["--out", "run", "--qe", "."], "no-qe"),
        (["--dry-run", "--smearing", "warm"], "unknown-smearing"),
        (["--dry-run", "--degauss", "7"], "bad-degauss"),
        (["--dry-run", "--ladder", "--out", "run"], "bad-setting"),
        (["--dry-run", "--mu-star", "nan"], "mu"),
        (["--dry-run", "--mu-star", "-0.1"], "mu"),
        (["--dry-run", "--engine", "slurm.toml", "--cores", "8"], "cores_per_node = 4"),
    ],
)
def test_refusals(run, mgb2, options, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm.toml").write_text('[engine]\nkind = "slurm"\ncores_per_node = 4\n')
    code, _, err = run("verify", mgb2, *options)
    assert code in (1, 2) and expected in err and "Traceback" not in err


def test_install_and_list(run, tmp_path):
    content = packed("Al", "Mg")
    (tmp_path / "q.tar.gz").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    code, out, err = run("pseudo", "install", "--archive", tmp_path / "q.tar.gz", "--sha256", sha256)
    assert code == 0 and "licence" in err and "cite" in err and "2 pseudopotentials" in err
    code, listed, _ = run("pseudo", "list")
    assert code == 0 and listed.splitlines()[1].startswith("Al,3,PBEsol,scalar,NC") and out.strip()
    assert run("pseudo", "install", "--archive", tmp_path / "q.tar.gz")[0] == 2
    assert run("pseudo", "list", tmp_path / "nowhere")[0] == 2


def test_installed_set_is_found_by_verify(run, mgb2, tmp_path):
    content = packed("B", "Mg")
    (tmp_path / "q.tar.gz").write_bytes(content)
    run(
        "pseudo",
        "install",
        "--archive",
        tmp_path / "q.tar.gz",
        "--sha256",
        hashlib.sha256(content).hexdigest(),
    )
    code, out, _ = run("verify", mgb2, "--dry-run")
    assert code == 0 and "no pseudopotentials given" not in out


AL = Structure(Lattice.cubic(3.97), ["Al"] * 4, [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


@pytest.fixture
def small(monkeypatch):
    """The quick tier with the grids of the captured run."""
    from onnes.dft import tiers

    monkeypatch.setitem(tiers.TIERS, tiers.TierName.QUICK, TIER)


def test_run_with_fake_programs_to_the_curve(run, small, tmp_path):
    desk = Desk(tmp_path)
    AL.to(filename=str(tmp_path / "al.cif"))
    arguments = [
        "verify",
        tmp_path / "al.cif",
        "--qe",
        desk.place,
        "--pseudo",
        tmp_path / "pp",
        "--ecut",
        "15",
    ]
    arguments += ["--out", tmp_path / "out", "--floor", "1"]
    desk.fault(q002="kill")
    code, _, err = run(*arguments)
    assert code == 1 and "[killed]" in err
    code, out, err = run(*arguments)
    rows = out.strip().splitlines()
    assert code == 0 and len(rows) == 11 and "q001: done before" not in err
    assert float(rows[5].split(",")[1]) == pytest.approx(0.5507, rel=0.01)  # a2F.dos5 of the captured run
    assert (tmp_path / "out" / "lambda.csv").read_text() == out
    desk.fault(dense="insulator")
    arguments[arguments.index(tmp_path / "out")] = tmp_path / "other"
    code, _, err = run(*arguments)
    assert code == 0 and "insulator: a gap of 0.62 eV" in err


def options(tmp_path, desk, out="out"):
    return [
        "--qe",
        desk.place,
        "--pseudo",
        tmp_path / "pp",
        "--ecut",
        "15",
        "--out",
        tmp_path / out,
        "--floor",
        "1",
    ]


def test_verdict_result_and_record_of_a_finished_run(run, small, tmp_path):
    desk = Desk(tmp_path)
    AL.to(filename=str(tmp_path / "al.cif"))
    code, out, err = run("verify", tmp_path / "al.cif", *options(tmp_path, desk), "--json")
    (row,) = json.loads(out)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    (record,) = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert code == 0 and row["verdict"] == result["verdict"] == record["meta"]["verdict"]
    assert f"onnes: {row['verdict']}: " in err and len(row["curve"]) == 10
    sha256 = record["meta"]["dft"]["pseudopotentials"]["Al"]["sha256"]
    assert sha256 == hashlib.sha256((tmp_path / "pp" / "Al.upf").read_bytes()).hexdigest()
    assert record["meta"]["dft"]["quantum_espresso"] == "6.7MaX"
    assert (tmp_path / "out" / "figures" / "phonons.png").is_file()


def test_a_folder_of_another_crystal_is_left_alone(run, small, mgb2, tmp_path):
    desk = Desk(tmp_path)
    AL.to(filename=str(tmp_path / "al.cif"))
    assert run("verify", tmp_path / "al.cif", *options(tmp_path, desk))[0] == 0
    before = (tmp_path / "out" / "result.json").read_bytes()
    folder_of(tmp_path / "pp", "Mg", "B")
    (desk.place / "CALLS").write_text("")
    for more in ([], ["--dry-run"]):
        code, out, err = run("verify", mgb2, *options(tmp_path, desk), "--json", *more)
        (row,) = json.loads(out)
        assert code == 1 and row["reason"] == "other-crystal" and "a run of Al, not of B2Mg" in err
    assert (tmp_path / "out" / "result.json").read_bytes() == before and desk.called == []


def test_result_states_its_own_settings_and_does_not_outlive_them(run, small, tmp_path):
    desk = Desk(tmp_path)
    AL.to(filename=str(tmp_path / "al.cif"))
    arguments = ["verify", tmp_path / "al.cif", *options(tmp_path, desk)]
    assert run(*arguments)[0] == 0
    held = json.loads((tmp_path / "out" / "result.json").read_text())["settings"]
    assert held["tier"]["name"] == "quick" and held["grids"]["q"] == [2, 2, 2]
    # A look at what another tier would cost writes another plan.
    assert run(*arguments, "--dry-run", "--tier", "tight")[0] == 0
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["tier"]["name"] == "tight"
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["settings"] == held and result["verdict"] != "failed"
    # Cut while it runs with other settings, it has no result rather than that of the old ones.
    desk.fault(dense="kill")
    assert run(*arguments, "--degauss", "0.04")[0] == 1
    assert json.loads((tmp_path / "out" / "result.json").read_text())["verdict"] == "failed"
    assert not (tmp_path / "out" / "lambda.csv").exists() and not (tmp_path / "out" / "alpha2F.csv").exists()


def test_records_of_a_batch_are_kept_as_they_come(run, small, tmp_path, monkeypatch):
    desk = Desk(tmp_path)
    (tmp_path / "cifs").mkdir()
    for name in ("a", "b"):
        AL.to(filename=str(tmp_path / "cifs" / f"{name}.cif"))
    arguments = ["verify", tmp_path / "cifs", *options(tmp_path, desk)]
    file = tmp_path / "out" / "records.jsonl"
    whole = run_module.Runner.run

    def cut(self, plan):
        if self.folder.name == "b":
            raise KeyboardInterrupt
        return whole(self, plan)

    monkeypatch.setattr(run_module.Runner, "run", cut)
    with suppress(KeyboardInterrupt):
        run(*arguments)
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["a"]
    monkeypatch.setattr(run_module.Runner, "run", whole)
    assert run(*arguments)[0] == 0
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["a", "b"]
    # Gone through again and cut: nothing is taken away.
    monkeypatch.setattr(run_module.Runner, "run", cut)
    with suppress(KeyboardInterrupt):
        run(*arguments)
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_batch_shares_one_engine_and_is_not_joined(run, small, tmp_path, monkeypatch):
    from onnes.campaign import engine

    desk, opened = Desk(tmp_path), []
    (tmp_path / "cifs").mkdir()
    for name in ("a", "b"):
        AL.to(filename=str(tmp_path / "cifs" / f"{name}.cif"))
    (tmp_path / "e.toml").write_text('[engine]\nkind = "local"\nworkers = 2\n')
    whole = engine.open_engine

    def counted(part, workers, out, *more):
        opened.append(out)
        return whole(part, workers, out, *more)

    monkeypatch.setattr(engine, "open_engine", counted)
    arguments = ["verify", tmp_path / "cifs", *options(tmp_path, desk), "--engine", tmp_path / "e.toml"]
    code, out, _ = run(*arguments, "--json")
    assert code == 0 and [row["id"] for row in json.loads(out)] == ["a", "b"]
    assert opened == [tmp_path / "out"] and sorted(desk.called) == sorted(2 * ALL)
    with only_one(tmp_path / "out"):
        code, _, err = run(*arguments)
    assert code == 2 and "in-use" in err and len(opened) == 1


def test_a_folder_in_use_is_a_row_and_the_other_crystals_go_on(run, small, tmp_path):
    desk = Desk(tmp_path)
    (tmp_path / "cifs").mkdir()
    for name in ("a", "b"):
        AL.to(filename=str(tmp_path / "cifs" / f"{name}.cif"))
    (tmp_path / "out" / "a").mkdir(parents=True)
    with only_one(tmp_path / "out" / "a"):
        code, out, err = run("verify", tmp_path / "cifs", *options(tmp_path, desk), "--json")
    held, done = json.loads(out)
    assert code == 1 and held == {"id": "a", "status": "failed", "reason": "in-use"} and "[in-use]" in err
    assert done["id"] == "b" and done["verdict"] not in ("", "failed")
    records = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == ["b"]


def test_a_campaign_waits_for_a_verify_that_still_runs(tmp_path, monkeypatch):
    desk = Desk(tmp_path)
    monkeypatch.setenv("PATH", str(desk.place), prepend=os.pathsep)
    active = {"rounds": 1, "labeller": "verify", "pseudo": str(tmp_path / "pp")}
    by = Verify(Settings.from_dict({"active": active}))
    asked = [Chosen("g000000", plain(AL.get_primitive_structure()))]
    folder = tmp_path / "verify" / "g000000" / "run"
    folder.mkdir(parents=True)
    with only_one(folder):
        assert list(by.labels(asked, tmp_path)) == []
    assert "in-use" in by.waiting(asked, tmp_path) and not (desk.place / "CALLS").exists()


def test_wrong_element_is_named_and_the_rerun_completes(run, small, tmp_path):
    desk = Desk(tmp_path)
    AL.to(filename=str(tmp_path / "al.cif"))
    good = (tmp_path / "pp" / "Al.upf").read_text()
    (tmp_path / "pp" / "Al.upf").write_text(upf("Ga"))
    code, _, err = run("verify", tmp_path / "al.cif", *options(tmp_path, desk))
    assert code == 1 and "wrong-element" in err and not (desk.place / "CALLS").exists()
    (tmp_path / "pp" / "Al.upf").write_text(good)
    assert run("verify", tmp_path / "al.cif", *options(tmp_path, desk))[0] == 0


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ({"scf": "not converged"}, "not-converged"),
        ({"dense": "empty files"}, "failed"),
        ({"a2f": "kill"}, "failed"),
    ],
)
def test_run_that_failed_has_a_named_verdict_no_record_and_a_rerun_completes(
    run, small, tmp_path, fault, verdict
):
    desk = Desk(tmp_path)
    AL.to(filename=str(tmp_path / "al.cif"))
    desk.fault(**fault)
    code, out, _ = run("verify", tmp_path / "al.cif", *options(tmp_path, desk), "--json")
    (row,) = json.loads(out)
    assert code == 1 and row["verdict"] == row["status"] == verdict and row["reason"] and row["tc_K"] is None
    assert not (tmp_path / "out" / "records.jsonl").exists()
    assert json.loads((tmp_path / "out" / "result.json").read_text())["verdict"] == verdict
    assert run("verify", tmp_path / "al.cif", *options(tmp_path, desk))[0] == 0


@pytest.fixture
def small_ladder(monkeypatch):
    """Every tier with the grids of the captured run, told apart by a threshold that enters the inputs."""
    from onnes.dft import tiers

    for n, name in enumerate(tiers.TierName):
        tier = dataclasses.replace(TIER, name=name, ph_threshold=10.0 ** -(12 + n))
        monkeypatch.setitem(tiers.TIERS, name, tier)


@pytest.mark.slow
def test_ladder_climbs_goes_on_where_it_was_cut_and_gathers_the_highest_rungs(run, small_ladder, tmp_path):
    desk = Desk(tmp_path)
    (tmp_path / "cifs").mkdir()
    for name in ("a", "b"):
        AL.to(filename=str(tmp_path / "cifs" / f"{name}.cif"))
    arguments = ["verify", tmp_path / "cifs", "--ladder", *options(tmp_path, desk), "--best", "1"]
    (desk.place / "FAULT").write_text(json.dumps({"q002": "kill"}))
    code, out, err = run(*arguments)
    rows = [line.split(",")[:3] for line in out.splitlines()[1:]]
    assert code == 1 and rows[0] == ["a", "quick", "failed"] and "2 of 2 crystals" in err
    (desk.place / "CALLS").write_text("")
    code, out, err = run(*arguments)
    rows = [line.split(",") for line in out.splitlines()[1:]]
    verdicts = {(r[0], r[1]): r[2] for r in rows}
    assert code == 0 and len({r[2] for r in rows}) == 1 and verdicts[("a", "quick")] != "failed"
    # Both climb, whatever the captured curve's verdict is; the fault cost only its own q.
    assert [(r[0], r[1]) for r in rows[:4]] == [(n, t) for t in ("quick", "standard") for n in ("a", "b")]
    assert (tmp_path / "out" / "ladder.csv").read_text() == out
    first = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in first] == ["a", "b"]
    tiers = [json.loads(line)["meta"]["dft"]["tier"]["name"] for line in first]
    assert tiers[1] == "standard" and tiers[0] in ("standard", "tight")
    (desk.place / "CALLS").write_text("")
    assert run(*arguments)[1] == out and desk.called == []


def test_epw_inputs_on_demand(run, mgb2, tmp_path):
    arguments = ["verify", mgb2, "--dry-run", "--tier", "standard", "--epw"]
    code, _, err = run(*arguments, "--epw-grid", "72", "72", "36", "--out", tmp_path / "run")
    assert code == 0 and "experimental" in err
    text = (tmp_path / "run" / "epw" / "epw.in").read_text()
    assert "nkf1=72" in text and "nqf3=18" in text and (tmp_path / "run" / "epw" / "collect.sh").is_file()
    assert "no-folder" in run(*arguments)[2]


def test_smearing_and_its_width_reach_the_inputs(run, mgb2, tmp_path):
    arguments = ["verify", mgb2, "--dry-run", "--out", tmp_path / "run"]
    assert run(*arguments, "--smearing", "mp", "--degauss", "0.03")[0] == 0
    text = (tmp_path / "run" / "scf" / "scf.in").read_text()
    assert "smearing='mp'" in text and "degauss=0.030000" in text

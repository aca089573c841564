"""Settings: complete, strict, and the same after a round trip."""

from __future__ import annotations

import subprocess
import sys

import pytest

from onnes.campaign.settings import Settings
from onnes.errors import SettingsError


def test_defaults_are_those_of_the_seeds():
    s = Settings()
    assert (s.run.n, s.predict.min_tc_K, s.hull.max_formation_energy_eV_atom) == (96, 5.0, 0.0)


def test_toml_round_trip(tmp_path):
    s = Settings.from_dict(
        {"run": {"n": 7}, "generate": {"elements": ["B", "C"]}, "predict": {"formula": "xie", "min_tc_K": 2}}
    )
    path = tmp_path / "a b.toml"
    path.write_text(s.to_toml())
    assert Settings.from_toml(path) == s


def test_paths_are_meant_relative_to_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[generate]\npaths = ["crystals"]\n')
    assert Settings.from_toml(path).generate.paths == [str(tmp_path / "crystals")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[run]\nm = 3\n", "unknown-setting"),
        ("[runn]\nn = 3\n", "unknown-setting"),
        ("[run]\nn = 0\n", "bad-setting"),
        ("[run]\nn = 2.5\n", "bad-setting"),
        ('[run]\nn = "5"\n', "bad-setting"),
        ("[predict]\nmu_star = 1.0\n", "bad-setting"),
        ("[predict]\nmin_tc_K = nan\n", "bad-setting"),
        ('[predict]\nformula = "magic"\n', "unknown-formula"),
        ('[relax]\npotential = "magic"\n', "unknown-potential"),
        ('[relax]\npotential = "7net-mf-0-r2scan"\n', "no-hull-table"),
        ("[check]\nmin_packing = 3\n", "bad-setting"),
        ('[chemistry]\nexclude = ["Xx"]\n', "unknown-element"),
        ("[chemistry]\nmin_abundance_ppm = -1\n", "bad-setting"),
        ("[run\n", "not-toml"),
    ],
)
def test_bad_settings_are_named(tmp_path, text, code):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        Settings.from_toml(path)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\nm = 3\n", "run.m: there is no such setting; [run] has n, seed, workers"),
        ("[run]\nsed = 3\n", "run.sed: there is no such setting; did you mean run.seed?"),
        ("[runn]\nn = 3\n", "runn: there is no such setting; did you mean run? the tables are"),
        (
            "[relax]\nmin_tc_K = 3\n",
            "relax.min_tc_K: there is no such setting; did you mean prescreen.min_tc_K?",
        ),
        ("run = 3\n", "run = 3: must be a table, [run]"),
        ("[run]\nn = 0\n", "run.n = 0: must be greater than or equal to 1 (crystals to generate)"),
        ('[novel]\nkeep = "some"\n', "novel.keep = \"some\": must be 'new' or 'all'"),
        ("[predict]\nmin_tc_K = nan\n", "predict.min_tc_K = nan: must be a finite number"),
        ('[generate]\nelements = ["B", 3]\n', "generate.elements[1] = 3: must be a valid string"),
        ('[predict]\nformula = "magic"\n', "predict.formula: unknown formula 'magic'; use one of"),
        ('[relax]\npotential = "magic"\n', "relax.potential: unknown potential 'magic'; use one of 7net-0"),
        ("[check]\nmin_packing = 3\n", "check.min_packing = 3.0: must lie below check.max_packing = 2.5"),
        ('[chemistry]\nrequire = ["Xx"]\n', "chemistry: require: 'Xx' is no element"),
    ],
)
def test_errors_name_key_value_and_what_is_allowed(tmp_path, text, words):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        Settings.from_toml(path)
    assert words in error.value.message


def test_15_and_15_point_0_are_one_setting():
    one, two = (Settings.from_dict({"generate": {"target_tc_K": t}}) for t in (15, 15.0))
    assert one == two and isinstance(one.generate.target_tc_K, float)
    assert one.model_dump_json() == two.model_dump_json()


def test_unreadable_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot-read"):
        Settings.from_toml(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot-read"):
        Settings.from_toml(tmp_path / "binary")


def test_command_line_prints_settings_and_refuses_bad_ones(tmp_path):
    command = [sys.executable, "-m", "onnes.cli.main", "discover"]
    done = subprocess.run([*command, "--print-config", "--n", "5"], capture_output=True, text=True)
    assert done.returncode == 0
    path = tmp_path / "c.toml"
    path.write_text(done.stdout)
    assert Settings.from_toml(path).run.n == 5
    path.write_text("[run]\nnn = 1\n")
    bad = subprocess.run([*command, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and "unknown-setting" in bad.stderr
    assert not (tmp_path / "run").exists()

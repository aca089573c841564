"""Presets: complete, overridden by the file and the command line, and honest about what they cannot do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from onnes.campaign.presets import MAGNETIC_3D, PRESETS, completed, merged
from onnes.campaign.settings import Settings
from onnes.campaign.source import source
from onnes.cli.discover import _settings
from onnes.errors import SettingsError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_changes_what_it_says_and_nothing_else(name):
    chosen, plain = Settings.from_dict({"preset": name}).model_dump(), Settings().model_dump()
    for table, values in PRESETS[name].values.items():
        for key, value in values.items():
            assert chosen[table][key] == value
            assert plain[table][key] != value, f"{table}.{key} is the default: it need not be in the preset"
            plain[table][key] = value
    assert chosen == {**plain, "preset": name}


@pytest.mark.parametrize("name", ["quick", "ambient-high-tc", "hydride"])
def test_generators_know_the_elements_of_a_preset(name):
    assert source(Settings.from_dict({"preset": name, "run": {"n": 1}})).digest


def test_magnetic_elements_are_excluded_where_high_tc_is_asked_for():
    s = Settings.from_dict({"preset": "ambient-high-tc"})
    assert set(MAGNETIC_3D) <= set(s.generate.exclude) and set(MAGNETIC_3D) <= set(s.chemistry.exclude)
    assert not {"La", "Lu", "Nb", "B", "C", "N"} & set(s.generate.exclude)


def test_2d_needs_layers_of_ones_own(tmp_path):
    with pytest.raises(SettingsError, match=r"bulk crystals only.*--from.*\[bulk-generator\]"):
        source(Settings.from_dict({"preset": "2d"}))


def test_the_file_overrides_the_preset_and_the_command_line_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('preset = "quick"\n[run]\nn = 7\n[predict]\nmodel = "trees"\n')
    s = Settings.from_toml(path)
    assert (s.preset, s.run.n, s.predict.model, s.relax.max_steps) == ("quick", 7, "trees", 100)
    s = _settings(path, None, "hydride", [], False, {"n": 5})
    assert (s.preset, s.run.n, s.predict.model, s.relax.max_steps) == ("hydride", 5, "trees", 300)


def test_reading_files_keeps_known_crystals_unless_told_otherwise(tmp_path):
    s = _settings(None, None, "", [tmp_path / "a"], True, {})
    assert (
        s.generate.paths == [str(tmp_path / "a")] and s.novel.keep == "all" and s.relax.skip and s.prescreens
    )
    path = tmp_path / "c.toml"
    path.write_text('[generate]\npaths = ["b"]\n[novel]\nkeep = "new"\n[prescreen]\nuse = "never"\n')
    s = Settings.from_toml(path)
    assert s.generate.paths == [str(tmp_path / "b")] and s.novel.keep == "new" and not s.prescreens
    assert Settings().novel.keep == "new" and not Settings().prescreens
    with pytest.raises(SettingsError, match="--n counts generated crystals"):
        _settings(None, None, "", [tmp_path], False, {"n": 5})


def test_what_is_given_lies_above_and_is_not_changed():
    given = {"preset": "quick", "run": {"seed": 4}}
    assert completed(given)["run"] == {"n": 24, "seed": 4} and given == {
        "preset": "quick",
        "run": {"seed": 4},
    }
    assert merged({"a": {"b": 1}}, {"a": 3}) == {"a": 3}
    for wrong in ("fast", 3, ["quick"]):
        with pytest.raises(SettingsError, match="use one of quick, ambient-high-tc, hydride, 2d"):
            completed({"preset": wrong})


def test_print_config_with_a_preset_is_complete_and_comes_back(tmp_path):
    command = [sys.executable, "-m", "onnes.cli.main", "discover", "--print-config", "--preset", "2d"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        'preset = "2d"' in done.stdout and "# Limits: the generators draw bulk crystals only" in done.stdout
    )
    path = tmp_path / "c.toml"
    path.write_text(done.stdout)
    assert Settings.from_toml(path) == Settings.from_dict({"preset": "2d"})
    # Every setting is there: nothing is left for a preset to change.
    path.write_text(done.stdout.replace('preset = "2d"', 'preset = "quick"'))
    assert Settings.from_toml(path).model_dump() == {
        **Settings.from_dict({"preset": "2d"}).model_dump(),
        "preset": "quick",
    }

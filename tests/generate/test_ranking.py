"""Ranking of candidates: votes and energy, equal crystals merged, what is asked for kept."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from onnes.cli.generate_ranked import _templates
from onnes.cli.main import app
from onnes.crystal.read import read
from onnes.crystal.wyckoff import describe
from onnes.errors import InputError, SettingsError
from onnes.generate.asked import SamplerSettings
from onnes.generate.prototypes import Templates, template
from onnes.generate.ranking import (
    Candidate,
    candidates,
    fitting,
    frame_of,
    key_of,
    lowest,
    merged,
    ranked,
    with_energies,
)
from onnes.generate.site_sampling import Wish
from onnes.generate.symmetric import SymmetricSampler


def crystal(group, a, one, two, frac):
    return Structure.from_spacegroup(group, Lattice.cubic(a), [one, two], [[0, 0, 0], frac])


def rock_salt(a=5.6, one="Na", two="Cl"):
    return crystal(225, a, one, two, [0.5, 0, 0])


def caesium_chloride(a=3.6, one="Na", two="Cl"):
    return crystal(221, a, one, two, [0.5, 0.5, 0.5])


def test_key_is_that_of_the_crystal_and_not_of_its_description():
    one = rock_salt()
    shifted = one.copy()
    shifted.translate_sites(range(len(one)), [0.5, 0.5, 0.5])  # the other element at the origin
    keys = {key_of(frame_of(describe(s, canonical=False))) for s in (one, shifted, rock_salt(4.0))}
    assert len(keys) == 1
    assert key_of(frame_of(describe(caesium_chloride()))) not in keys


def test_votes_energy_and_both_rank_differently():
    usual = Candidate(rock_salt(), 0.9, 0.8, -3.00)
    low = Candidate(caesium_chloride(), 0.05, 0.0, -3.10)
    assert ranked([low, usual], math.inf) == [usual, low]
    assert ranked([usual, low], 0.0) == [low, usual]
    # A share of the draws counts 0.3: ln(1.07 / 0.015) = 4.27, worth 0.1 eV/atom where the scale is below 0.0234.
    assert usual.votes == pytest.approx(1.07) and low.votes == pytest.approx(0.015)
    assert ranked([usual, low], 0.022)[0] is low and ranked([usual, low], 0.025)[0] is usual


def test_equal_crystals_become_one_with_their_votes_added():
    same = [
        Candidate(rock_salt(5.6), 0.2, 0.0, -3.000),
        Candidate(rock_salt(5.7), 0.0, 0.3, -3.001),
        Candidate(caesium_chloride(), 0.1, 0.0, -2.9),
        Candidate(rock_salt(5.65), 0.0, 0.1, -2.5),
    ]
    found = merged(same)
    assert [c.energy_eV_atom for c in found] == [-3.001, -2.9, -2.5]
    assert found[0].drawn == pytest.approx(0.2) and found[0].substituted == pytest.approx(0.3)


class Spring:
    """A potential with its minimum at a volume per atom; one that knows no caesium."""

    def __init__(self, volume):
        self.volume = volume

    def attempt(self, structures):
        for s in structures:
            if "Cs" in s.symbol_set:
                yield ValueError("Cs")
            else:
                strain = math.log(s.volume / len(s) / self.volume)
                yield SimpleNamespace(energy_eV_atom=-3.0 + 5.0 * strain**2)


def test_candidates_take_the_volume_of_lowest_energy():
    given = rock_salt(5.6)
    volume = given.volume / len(given)
    (near,) = with_energies([Candidate(given, 0.5, 0.0)], Spring(1.05 * volume))
    assert near.structure.volume == pytest.approx(1.05 * given.volume)
    assert near.energy_eV_atom == pytest.approx(-3.0)
    # No further than the parabola can be trusted, and the candidate given is left as it was.
    (far,) = with_energies([Candidate(given, 0.5, 0.0)], Spring(1.5 * volume))
    assert far.structure.volume == pytest.approx(math.exp(0.12) * given.volume)
    assert given.volume == pytest.approx(5.6**3)


def test_a_candidate_without_energy_is_left_out():
    pair = [Candidate(caesium_chloride(4.1, "Cs", "Cl"), 0.4, 0.0), Candidate(rock_salt(), 0.5, 0.0)]
    found = with_energies(pair, Spring(20.0))
    assert math.isnan(found[0].energy_eV_atom) and math.isfinite(found[1].energy_eV_atom)
    assert [c.drawn for c in merged(found)] == [0.5]


def test_energies_that_curve_downwards_give_the_lowest_of_them():
    assert lowest([-1.0, -0.5, -1.2]) == (0.06, -1.2)
    assert lowest([-1.0, -1.1, -1.2]) == (0.06, -1.2)
    assert all(math.isnan(x) for x in lowest([-1.0, math.nan, -1.2]))


@pytest.fixture(scope="module")
def known():
    return Templates(
        [template("MgO", rock_salt(4.2, "Mg", "O")), template("CsBr", caesium_chloride(4.3, "Cs", "Br"))]
    )


def test_candidates_have_the_composition_and_come_from_both_sources(known):
    sampler = SymmetricSampler(SamplerSettings(formula="NaCl", steps=2))
    found = candidates(sampler, known, draws=12)
    assert {c.structure.composition.reduced_formula for c in found} == {"NaCl"}
    assert sum(c.substituted for c in found) == pytest.approx(1.0)
    # Those drawn once or twice are kept only among the first: their shares do not add up to one.
    assert 0 < sum(c.drawn for c in found) <= 1.0
    assert [c.votes for c in found] == sorted((c.votes for c in found), reverse=True)
    again = candidates(sampler, known, draws=12)
    assert [c.votes for c in again] == [c.votes for c in found]
    assert all(
        np.allclose(a.structure.lattice.matrix, b.structure.lattice.matrix)
        for a, b in zip(found, again, strict=True)
    )


def test_candidates_keep_group_and_number_of_atoms(known):
    sampler = SymmetricSampler(SamplerSettings(formula="NaCl", space_group=221, atoms=2, steps=2))
    found = candidates(sampler, known, draws=4)
    assert [(describe(c.structure).number, len(c.structure)) for c in found] == [(221, 2)]
    assert found[0].substituted > 0 and found[0].drawn == 1.0


def test_ranking_needs_a_formula():
    with pytest.raises(SettingsError) as refused:
        candidates(SymmetricSampler(SamplerSettings(steps=2)))
    assert refused.value.code == "no-formula"


@pytest.fixture
def templates(tmp_path):
    folder = tmp_path / "known"
    folder.mkdir()
    rock_salt(6.6, "K", "Br").to(filename=str(folder / "KBr.cif"))
    caesium_chloride(4.3, "Cs", "Br").to(filename=str(folder / "CsBr.cif"))
    Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]]).to(filename=str(folder / "Cu.cif"))
    return folder


def test_prototypes_are_a_mode_of_the_command(tmp_path, templates):
    out = tmp_path / "out"
    command = ["generate", "--model", "prototypes", "--formula", "NaCl", "--n", "2", "--out", str(out)]
    runner = CliRunner()
    assert runner.invoke(app, [*command, "--templates", str(templates)]).exit_code == 0
    found = {c.id: describe(c.structure).number for c in read([out]) if hasattr(c, "structure")}
    assert found == {"g000000": 225, "g000001": 221}  # K is nearer to Na than Cs
    table = (out / "ranking.csv").read_text().splitlines()
    assert table[0].startswith("id,atoms,space_group") and len(table) == 3
    assert json.loads((out / "manifest.txt").read_text())["model"] == "prototypes"
    # Done already: nothing is computed again; without templates there is nothing to start from.
    (templates / "KBr.cif").touch()
    assert runner.invoke(app, [*command, "--templates", str(templates)]).exit_code == 0
    refused = runner.invoke(app, [*command[:-1], str(tmp_path / "new")])
    assert refused.exit_code != 0


def substituted(out, templates, n, formula="NaCl"):
    command = ["generate", "--model", "prototypes", "--formula", formula, "--out", str(out)]
    return CliRunner().invoke(app, [*command, "--n", str(n), "--templates", str(templates)])


def test_another_number_in_the_same_folder_is_refused_and_not_called_done(tmp_path, templates):
    out = tmp_path / "out"
    assert substituted(out, templates, 1).exit_code == 0
    refused = substituted(out, templates, 2).exception
    assert isinstance(refused, InputError) and refused.code == "other-run" and "(n)" in refused.message
    assert len((out / "ranking.csv").read_text().splitlines()) == 2
    assert substituted(tmp_path / "new", templates, 2).stdout.startswith("2 crystals")


def test_what_was_mistyped_leaves_the_folder_free(tmp_path, templates):
    out = tmp_path / "out"
    broken = tmp_path / "broken.cif"
    broken.write_text("data_nothing\n")
    wrong = [(tmp_path / "knwon", "NaCl"), (broken, "NaCl"), (templates, "NaClO4")]
    codes = [substituted(out, path, 2, formula).exception.code for path, formula in wrong]
    assert codes[0] == "missing-path" and codes[2] == "no-candidates" and "other-run" not in codes
    assert not list(out.glob("*"))
    assert substituted(out, templates, 2).exit_code == 0
    # In a folder that is taken, too, a missing file is called missing.
    assert substituted(out, tmp_path / "knwon", 2).exception.code == "missing-path"


@pytest.mark.parametrize(
    ("name", "source"), [("jarvis_supercon", None), ("mine", "jarvis-sc-3d"), ("mine", None)]
)
def test_crystals_of_the_home_data_set_are_counted_whatever_their_amounts(tmp_path, name, source):
    path = tmp_path / f"{name}.jsonl"
    cube = {"lattice": (4.2 * np.eye(3)).tolist()}
    rows = [
        cube | {"id": "a", "species": ["Cs", "Cl"], "frac": [[0, 0, 0], [0.5, 0.5, 0.5]]},
        cube | {"id": "b", "species": ["Cu"], "frac": [[0, 0, 0]]},
    ]
    path.write_text("".join(json.dumps(r | ({"source": source} if source else {})) + "\n" for r in rows))
    home = name == "jarvis_supercon" or source is not None
    found = _templates(path, "NaCl", "")
    assert len(found) == 1 and found.at_home == 2 * home
    # The learned order is not for crystals like another data set's.
    assert (
        _templates(path, "NaCl", "mp").at_home == 0 and _templates(path, "NaCl", "jarvis").at_home == 2 * home
    )


def test_templates_of_an_isotope_have_the_amounts_of_the_element(tmp_path):
    row = {"id": "a", "species": ["Cl", "H", "H"], "lattice": (4.2 * np.eye(3)).tolist()}
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row | {"frac": [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]}) + "\n")
    assert len(_templates(path, "HDO", "")) == 1 and len(_templates(path, "HO", "")) == 0


def test_chances_of_what_is_asked_for_add_up(known):
    both = fitting(Wish(formula={11: 1, 17: 1}), known)
    assert len(both) == 2 and sum(chance for _, chance in both) == pytest.approx(1.0)
    assert [c for _, c in fitting(Wish(formula={11: 1, 17: 1}, group=221), known)] == [pytest.approx(1.0)]

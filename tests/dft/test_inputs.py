"""Input files: every rule of the chain, byte stability, the plan and its hashes."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.crystal import as_crystal, read
from onnes.dft import inputs
from onnes.dft.plan import Program, make_cell, make_plan
from onnes.dft.tiers import TIERS, Smearing, TierName, tier_named
from onnes.errors import InputError, SettingsError

MGB2 = Structure(
    Lattice.hexagonal(3.085, 3.523), ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
)
SLAB = Structure(
    Lattice.hexagonal(3.0, 25.0), ["Nb", "S", "S"], [[0, 0, 0.5], [1 / 3, 2 / 3, 0.56], [1 / 3, 2 / 3, 0.44]]
)


def plan_of(structure=MGB2, tier=TierName.QUICK, **options):
    chosen = TIERS[tier]
    return make_plan(make_cell(structure, chosen, **options), chosen)


def namelist(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\s+(\w+)=(.+?),?$", text, re.MULTILINE))


@pytest.mark.parametrize("tier", list(TierName))
def test_every_rule_of_the_chain(tier):
    plan = plan_of(tier=tier)
    texts = {s.name: s.text for s in plan.steps}
    assert not any("recover" in t for t in texts.values())
    assert [s.name for s in plan.steps[:3]] == ["relax", "dense", "scf"]
    assert "la2F=.true." in texts["dense"] and "la2F" not in texts["scf"] and "la2F" not in texts["relax"]
    phonons = [s for s in plan.steps if s.program is Program.PH]
    assert len(phonons) == len(plan.q_weights) and len({s.folder for s in phonons}) == len(phonons)
    for n, step in enumerate(phonons, start=1):
        found = namelist(step.text)
        assert step.text.splitlines()[0] and not step.text.startswith("&")  # the title line comes first
        assert (found["start_q"], found["last_q"]) == (str(n), str(n))
        assert found["electron_phonon"] == "'interpolated'" and found["trans"] == found["ldisp"] == ".true."
        assert found["fildvscf"] == "'dvscf'" and found["fildyn"] == "'onnes.dyn'"
        assert found["el_ph_nsigma"] == "10" and float(found["el_ph_sigma"]) == 0.005
        assert found["tr2_ph"] == "1.0d-14"
        assert [int(found[f"nq{i}"]) for i in (1, 2, 3)] == list(plan.grids.q)
        assert step.needs == ("scf",)
    assert namelist(texts["q2r"])["zasr"] == "'simple'" and namelist(texts["q2r"])["la2F"] == ".true."
    a2f = namelist(texts["a2f"])
    assert a2f["dos"] == a2f["la2F"] == ".true." and a2f["asr"] == "'simple'" and a2f["ndos"] == "200"
    assert namelist(texts["bands"])["dos"] == ".false."
    for name in ("dense", "scf"):
        assert namelist(texts[name])["conv_thr"] == "1.0d-12"
        assert namelist(texts[name])["prefix"] == "'onnes'" and namelist(texts[name])["outdir"] == "'./tmp'"
    assert (
        next(s for s in plan.steps if s.name == "dense").folder
        == next(s for s in plan.steps if s.name == "scf").folder
    )


def test_grids_of_the_inputs():
    plan = plan_of()
    for name, grid in (("relax", plan.grids.k), ("dense", plan.grids.dense), ("scf", plan.grids.k)):
        text = next(s.text for s in plan.steps if s.name == name)
        assert text.endswith(f"K_POINTS automatic\n  {grid[0]} {grid[1]} {grid[2]} 0 0 0\n")


def test_same_bytes_for_the_same_crystal_and_other_hashes_for_other_settings():
    one, two = plan_of(), plan_of(MGB2.copy())
    assert [s.text for s in one.steps] == [s.text for s in two.steps] and one.hashes() == two.hashes()
    moved = plan_of(ecut_Ry=77.0)
    assert all(one.hashes()[name] != h for name, h in moved.hashes().items())
    quiet = dataclasses.replace(TIERS[TierName.QUICK], ph_threshold=1e-16)
    other = make_plan(make_cell(MGB2, quiet), quiet)
    same = {n for n in one.hashes() if one.hashes()[n] == other.hashes()[n]}
    assert same == {"relax", "dense", "scf"}


def test_no_minus_zero_and_no_exponent_in_coordinates():
    text = next(s.text for s in plan_of().steps if s.name == "scf")
    assert not re.search(r"-0\.0+\s", text) and not re.search(r"\d[eE][-+]\d", text)


def test_written_cell_reads_back_with_its_symmetry(tmp_path):
    plan = plan_of()
    plan.write(tmp_path)
    (back,) = read(tmp_path / "scf" / "scf.in")
    assert back.structure.lattice.matrix == pytest.approx(plan.cell.structure.lattice.matrix, abs=1e-11)
    names = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*.in")}
    assert {
        "relax/relax.in",
        "scf/dense.in",
        "scf/scf.in",
        "q001/ph.in",
        "bands/q2r.in",
        "bands/a2f.in",
    } <= names
    assert len([n for n in names if n.startswith("q0")]) == len(plan.q_weights)


def test_supercell_is_computed_as_the_primitive_cell():
    double = MGB2.copy()
    double.make_supercell([2, 1, 1])
    assert len(make_cell(double, TIERS[TierName.QUICK]).structure) == 3


def test_slab_relaxes_in_its_plane():
    text = next(s.text for s in plan_of(SLAB).steps if s.name == "relax")
    assert "cell_dofree='2Dxy'" in text and "calculation='vc-relax'" in text
    assert "cell_dofree" not in next(s.text for s in plan_of().steps if s.name == "relax")


def test_isotopes_give_the_mass_and_mixed_ones_are_refused():
    hydride = Structure(Lattice.cubic(4.0), ["Pd", "H"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert inputs.masses_of(hydride, {1: 2.014101778})["H"] == pytest.approx(2.014102)
    assert inputs.masses_of(hydride)["H"] == pytest.approx(1.008, abs=1e-3)
    two = Structure(Lattice.cubic(4.0), ["H", "H"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(InputError, match="mixed-isotopes"):
        inputs.masses_of(two, {1: 2.014101778})


def test_deuteride_from_a_file_keeps_its_mass(tmp_path):
    (tmp_path / "pdd.cif").write_text(
        "data_PdD\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\nloop_\n_atom_site_type_symbol\n_atom_site_label\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nPd Pd1 0 0 0\nD D1 0.5 0.5 0.5\n"
    )
    (item,) = read(tmp_path / "pdd.cif")
    cell = make_cell(item.structure, TIERS[TierName.QUICK], isotopes=item.meta["isotopes"])
    text = next(s.text for s in make_plan(cell, TIERS[TierName.QUICK]).steps if s.name == "scf")
    assert re.search(r"^  H 2\.014\d+ H\.upf$", text, re.MULTILINE)


@pytest.mark.parametrize("structure", [MGB2, SLAB, as_crystal(MGB2).structure.get_primitive_structure()])
def test_band_path_begins_at_gamma_and_stays_in_the_plane_of_a_slab(structure):
    points = np.array(inputs.band_path(structure))
    assert points[0] == pytest.approx([0, 0, 0]) and len(points) > 40
    if structure is SLAB:
        assert np.abs(points[:, 2]).max() == 0.0
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert steps.min() > 0.0


def test_element_without_a_cutoff_is_refused_before_anything_runs():
    cerium = Structure(Lattice.cubic(4.0), ["Ce"], [[0, 0, 0]])
    with pytest.raises(InputError, match=r"Ce.*no-cutoff"):
        plan_of(cerium)
    assert plan_of(cerium, ecut_Ry=60.0).cell.ecutwfc_Ry == 60.0


def test_lambda_input_counts_its_points():
    text = inputs.lambda_input([(0, 0, 0), (0.5, 0.5, 0.5)], [1, 4], 12.0, 0.1)
    assert text.splitlines()[0] == "12.0000 0.12 1" and text.splitlines()[1] == "2"
    assert text.splitlines()[3].endswith(" 4.0") and text.endswith("elph_dir/elph.inp_lambda.2\n0.1000\n")


def test_tiers_grow_and_smearings_are_those_of_pw():
    quick, standard, tight = TIERS.values()
    assert quick.q_density_A < standard.q_density_A < tight.q_density_A == 15.0 and tight.k_density_A == 40.0
    assert {str(s) for s in Smearing} == {"mv", "mp", "gauss", "fd"}
    with pytest.raises(SettingsError, match="unknown-tier"):
        tier_named("fast")

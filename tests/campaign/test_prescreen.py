"""The pre-screen: the cheapest gate first, numbers of the file before those of networks."""

from __future__ import annotations

import gzip
import json
import math
import sys
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from pymatgen.core import Lattice, Structure

from onnes.campaign import prescreen as module
from onnes.campaign.funnel import RETRY, Item, guarded
from onnes.campaign.ledger import Ledger
from onnes.campaign.prescreen import given, model_hash, prescreen, settings_of
from onnes.campaign.settings import Settings
from onnes.campaign.stages import build, check, plain, predict, single_point, stage_names
from onnes.cli.main import main
from onnes.errors import CrystalError, ModelError, PhysicsError
from onnes.report.words import REASONS
from onnes.theory.debye import debye_temperature

NB = Structure.from_spacegroup("Im-3m", Lattice.cubic(3.30), ["Nb"], [[0, 0, 0]]).get_primitive_structure()
NACL = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
MGB2 = Structure(
    Lattice.hexagonal(3.086, 3.524), ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
)
LAYER = Structure(
    Lattice.hexagonal(3.086, 20.0), MGB2.species, [[0, 0, 0.5], [1 / 3, 2 / 3, 0.59], [2 / 3, 1 / 3, 0.59]]
)
RECORDS = {"Nb": NB, "NaCl": NACL.get_primitive_structure(), "MgB2": MGB2}


def limits(**change):
    s = Settings.from_dict({"prescreen": change})
    return settings_of(s.prescreen, s.predict)


def item(name, structure, **numbers):
    first = Item(name, 0, plain(structure), dict(numbers), 0)
    s = Settings()
    (found,) = check([first], {**s.check.model_dump(), "chemistry": s.chemistry.model_dump()})
    return Item(name, 0, first.structure, {**numbers, **found.numbers}, 0)


def test_numbers_of_a_record_travel_with_it():
    assert given({"bulk_modulus_GPa": 170.0, "shear_modulus_GPa": 40.0, "Tc_K": 9.2}, 1) == {
        module.BULK: 170.0,
        module.SHEAR: 40.0,
    }
    assert given({"debye_T_K": 275.0, "dos_ef_states_eV_cell": 3.0}, 2) == {
        module.DEBYE: 275.0,
        module.DOS: 1.5,
    }
    assert given({"bulk_modulus_GPa": 170.0}, 1) == {}


def test_what_the_file_says_stops_a_crystal_before_any_network(monkeypatch):
    monkeypatch.setattr("onnes.learn.predictors.predictor", lambda name: Nobody())
    (one,) = prescreen([item("a", NB, **{module.DOS: 0.05})], limits())
    assert not one.passed and one.reason == "dos-low: 0.05 states/eV/atom"
    soft = item("b", NB, **{module.BULK: 170.0, module.SHEAR: 30.0})
    (two,) = prescreen([soft], limits(min_debye_K=300.0))
    debye = debye_temperature(170.0, 30.0, soft.numbers["density_g_cm3"], soft.numbers["volume_per_atom_A3"])
    assert two.reason == f"debye-low: {debye:.0f} K" and two.numbers["prescreen_debye_source"] == "file"
    assert two.numbers["prescreen_debye_K"] == pytest.approx(float(debye))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.5"])
def test_a_density_of_states_that_is_none_is_not_called_low_or_high(monkeypatch, value):
    monkeypatch.setattr("onnes.learn.predictors.predictor", lambda name: Nobody())
    (one,) = prescreen([item("a", NB, **{module.DOS: float(value)})], limits())
    assert not one.passed and one.reason == f"dos-unknown: N(EF) is given as {value}"
    assert plain_reason(one.reason) != plain_reason("dos-low: 0.05")
    monkeypatch.setattr("onnes.learn.predictors.predictor", lambda name: Somebody())
    off = limits(min_dos_ef_states_eV_atom=0, min_debye_K=0)
    (kept,) = prescreen([item("a", NB, **{module.DOS: float(value)})], off)
    assert kept.passed and math.isfinite(kept.numbers.get("prescreen_dos_ef_states_eV_atom", 0.0))


def plain_reason(reason):
    return REASONS[reason.split(":")[0]]


def test_moduli_of_the_file_count_only_with_the_gate_on_and_only_when_positive(monkeypatch):
    monkeypatch.setattr("onnes.learn.predictors.predictor", lambda name: Somebody())
    monkeypatch.setattr("onnes.heads.predicted", moduli(bulk=170.0, shear=40.0))
    for bulk, shear in ((-1.0, 30.0), (170.0, 0.0), (float("nan"), 30.0)):
        bad = item("a", NB, **{module.BULK: bulk, module.SHEAR: shear})
        (off,) = prescreen([bad], limits())
        assert off.passed and "prescreen_debye_K" not in off.numbers
        (on,) = prescreen([bad], limits(min_debye_K=100.0))
        assert on.passed and on.numbers["prescreen_debye_source"] == "learned"
        # What the file states comes before what is learned.
        stated = Item("a", 0, bad.structure, {**bad.numbers, module.DEBYE: 99.0}, 0)
        (low,) = prescreen([stated], limits(min_debye_K=100.0))
        assert low.reason == "debye-low: 99 K" and low.numbers["prescreen_debye_source"] == "file"


def test_only_what_lies_with_the_crystal_is_its_verdict(monkeypatch):
    monkeypatch.setattr("onnes.learn.predictors.predictor", lambda name: Somebody())
    one = partial(prescreen, settings=limits(min_debye_K=100.0))
    for error in (
        PhysicsError("unstable-moduli", "shear"),
        CrystalError("no-bonds", "far"),
        ModelError("unknown-element", "7net-0 does not know Es"),
    ):
        monkeypatch.setattr("onnes.heads.predicted", raising(error))
        (found,) = one([item("a", NB)])
        assert found.reason == f"debye-unknown: {error.message}" and not found.passed
    # A missing model ends the run; too little memory is a fault of the machine, tried again on resume.
    monkeypatch.setattr("onnes.heads.predicted", raising(ModelError("no-model", "no weights")))
    with pytest.raises(ModelError, match="no weights"):
        guarded(one, [item("a", NB)])
    monkeypatch.setattr("onnes.heads.predicted", raising(CrystalError("out-of-memory", "9 atoms")))
    ((found,), _) = guarded(one, [item("a", NB)])
    assert found.reason.split(":")[0] in RETRY


def test_the_hash_holds_what_the_gates_use():
    plain_hash, gated = model_hash(limits()), model_hash(limits(min_debye_K=300.0))
    assert gated.startswith(plain_hash + "+") and gated.endswith("+" + version("sevenn"))
    assert version("sevenn") not in plain_hash


def moduli(bulk, shear):
    return lambda structure: SimpleNamespace(bulk_GPa=[bulk], shear_GPa=[shear])


def raising(error):
    def fail(structure):
        raise error

    return fail


class Somebody:
    """A network that refuses nothing."""

    def rows(self, structures, mu_star, formula):
        row = {"lambda": 1.0, "omega_log_K": 200.0, "tc_K": 9.0, "p_superconductor": 1.0}
        return [{**row, "dos_ef_states_eV_atom": 1.0} for _ in structures]


class Nobody:
    def rows(self, structures, mu_star, formula):
        assert not structures, "a network was asked"
        return []


def test_gates_of_the_networks():
    items = [item("Nb", NB), item("NaCl", RECORDS["NaCl"])]
    off = {o.id: o for o in prescreen(items, limits(min_tc_K=0, min_dos_ef_states_eV_atom=0, min_debye_K=0))}
    assert (
        off["Nb"].passed
        and not off["NaCl"].passed
        and off["NaCl"].reason.startswith("classifier: probability 0.0")
    )
    numbers = off["Nb"].numbers
    assert "prescreen_debye_K" not in numbers and 1.0 < numbers["prescreen_dos_ef_states_eV_atom"] < 2.0
    tc = numbers["prescreen_tc_K"]
    for change, code in (
        ({"min_tc_K": tc + 0.1}, "tc-below-limit"),
        ({"min_dos_ef_states_eV_atom": 5.0}, "dos-low"),
        ({"min_debye_K": 2000.0}, "debye-low"),
    ):
        (found,) = prescreen([items[0]], limits(**{"min_tc_K": 0.0, "min_debye_K": 0.0, **change}))
        assert not found.passed and found.reason.split(":")[0] == code
    # The file's Debye temperature is asked before the learned moduli.
    (kept,) = prescreen([item("Nb", NB, **{module.DEBYE: 301.0})], limits(min_tc_K=0, min_debye_K=300.0))
    assert kept.passed and kept.numbers["prescreen_debye_source"] == "file"


def test_stages_hold_the_prescreen_only_where_files_are_read(tmp_path):
    for change, there in (
        ({}, False),
        ({"prescreen": {"use": "always"}}, True),
        ({"generate": {"paths": ["x"]}}, True),
        ({"generate": {"paths": ["x"]}, "prescreen": {"use": "never"}}, False),
    ):
        s = Settings.from_dict(change)
        names = [stage.name for stage in build(s)]
        assert ("prescreen" in names) is there and names == stage_names(s)


def test_crystals_as_they_are_get_one_energy_and_bad_ones_are_refused():
    settings = {"potential": "7net-0", "max_force_eV_A": 1.0}
    bent = MGB2.copy()
    bent.translate_sites([1], [0.08, 0.0, 0.0])
    good, bad = single_point([Item("a", 0, plain(MGB2), {}, 0), Item("b", 1, plain(bent), {}, 0)], settings)
    assert good.passed and good.structure is None and good.numbers["fmax_eV_A"] < 0.1
    assert good.numbers["energy_eV_atom"] < bad.numbers["energy_eV_atom"]
    assert not bad.passed and bad.reason.startswith("not-relaxed: a force of ")


def test_layers_are_told_from_bulk_and_marked_out_of_domain():
    s = Settings.from_dict({"preset": "2d", "predict": {"model": "fast"}})
    gate = {**s.check.model_dump(), "chemistry": s.chemistry.model_dump()}
    layer, bulk = check([Item("l", 0, plain(LAYER), {}, 0), Item("b", 1, plain(MGB2), {}, 0)], gate)
    assert layer.passed and bulk.reason == "wrong-dimensions: bulk, not slab"
    (found,) = predict([Item("l", 0, plain(LAYER), {}, 0)], s.predict.model_dump())
    assert found.numbers["in_domain"] is False and "slab" in found.numbers["domain_note"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of CIFs (one broken) and records with labels."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    RECORDS["NaCl"].to(str(folder / "NaCl.cif"))
    MGB2.to(str(folder / "MgB2.cif"))
    (folder / "broken.cif").write_text("data_x\n_cell_length_a 3\n")
    rows = [{"id": "soft", **plain(NB), "debye_T_K": 105.0}, {"id": "Nb", **plain(NB), "debye_T_K": 310.0}]
    with gzip.open(tmp_path / "r.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_and_records_are_screened_and_a_finished_reading_is_not_repeated(home, monkeypatch, capsys):
    (home / "c.toml").write_text(
        '[run]\nworkers = 1\n[prescreen]\nmin_tc_K = 0.5\nmin_debye_K = 300\n[predict]\nmodel = "fast"\n'
        "min_tc_K = 0.5\n[dossier]\ntop = 0\n"
    )

    def run(*more):
        command = [
            "onnes",
            "discover",
            "c.toml",
            "--from",
            "cifs",
            "--from",
            "r.jsonl.gz",
            "--relaxed",
            "--out",
            "run",
        ]
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, capsys.readouterr().err
        return capsys.readouterr()

    assert "prescreen: 4/4" in run().err
    with Ledger.open("run", read_only=True) as ledger:
        assert ledger.ids() == ["MgB2", "NaCl", "soft", "Nb"]
        refused = {v.candidate: (v.stage, v.code) for v in ledger.verdicts() if not v.passed}
        assert refused == {"NaCl": ("prescreen", "classifier"), "soft": ("prescreen", "debye-low")}
        assert {v.candidate for v in ledger.verdicts(stage="rank")} == {"MgB2", "Nb"}
        # Known crystals are what one screens: they stay, and are named.
        assert {v.numbers["novelty"] for v in ledger.verdicts(stage="novel")} == {"known"}
        (broken,) = ledger.get_meta("refused_inputs")
        assert "broken.cif" in broken[0]
    monkeypatch.setattr("onnes.campaign.reading._candidate", None)
    assert "read: 5 of 5 already in the ledger" in run("--resume").err

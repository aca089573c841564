"""Tables of formulas in checkpoints, and the shipped heads asked only about formulas they left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnes.data.records import Record
from onnes.errors import ModelError
from onnes.learn import fold_of, shipped_folds
from onnes.learn.calibrate import Conformal, Space
from onnes.learn.ensemble import EpcEnsemble
from onnes.learn.evaluate import Options, evaluate
from onnes.learn.features import AtomFeatures
from onnes.learn.fold_of import KEY, UNSEEN, FormulaTable, fold_table, held_out
from onnes.learn.plan import folds_plan
from onnes.learn.properties import TARGETS, PropertyEnsemble
from onnes.learn.store import Checkpoint

FOLDS = {f"Al{a}Nb{b}": (a * b) % 5 for a in range(1, 60) for b in range(1, 60)}


def test_round_trip_through_a_checkpoint(tmp_path):
    table = fold_table(FOLDS, "abc", members_per_fold=3)
    path = tmp_path / "m.safetensors"
    Checkpoint("epc", {KEY: table.settings()}, {}, table.tensors()).save(path)
    back = FormulaTable.read(Checkpoint.load(path))
    assert back is not None
    assert {f: back.part(f) for f in FOLDS} == FOLDS
    assert back.part("MgB2") == UNSEEN
    assert (back.members_per_fold, back.names[4]) == (3, "fold 4")
    assert sum(t.numel() * t.element_size() for t in table.tensors().values()) == 5 * len(FOLDS)
    assert not any(f.encode() in path.read_bytes() for f in FOLDS)


def test_no_table_and_damaged_tables():
    assert FormulaTable.read(Checkpoint("epc", {}, {}, {})) is None
    table = fold_table(FOLDS, "abc", members_per_fold=3)
    with pytest.raises(ModelError, match=r"\[damaged-model\]"):
        FormulaTable.read(Checkpoint("epc", {KEY: table.settings()}, {}, {}))
    short = {**table.tensors(), f"{KEY}.part": torch.zeros(3, dtype=torch.uint8)}
    with pytest.raises(ModelError, match=r"\[damaged-model\]"):
        FormulaTable.read(Checkpoint("epc", {KEY: table.settings()}, {}, short))
    with pytest.raises(ModelError, match=r"\[bad-folds\]"):
        FormulaTable.of({"Al": 2}, ["one", "two"], "s")


def test_a_shared_hash_changes_the_salt(monkeypatch):
    """Two formulas of different folds must never be taken for each other."""
    plain = fold_of._key
    monkeypatch.setattr(
        fold_of, "_key", lambda salt, f: plain(salt, f) % 7 if salt == "s" else plain(salt, f)
    )
    table = fold_table(FOLDS, "s", members_per_fold=1)
    assert table.salt == "s.1"
    assert {f: table.part(f) for f in FOLDS} == FOLDS


def test_held_out_members():
    outputs = np.arange(6 * 4 * 2, dtype=float).reshape(6, 4, 2)
    folds = np.array([2, 0, 1, 2])
    found = held_out(outputs, folds, 2)
    assert found.shape == (2, 4, 2)
    for i, k in enumerate(folds):
        assert np.array_equal(found[:, i], outputs[2 * k : 2 * k + 2, i])
    for bad in (np.array([3, 0, 0, 0]), np.array([-1, 0, 0, 0]), np.array([0])):
        with pytest.raises(ModelError, match=r"\[bad-folds\]"):
            held_out(outputs, bad, 2)
    with pytest.raises(ModelError, match=r"\[bad-folds\]"):
        held_out(outputs, folds, 4)


# --- the ensemble


METALS = ["Al", "Cu", "Nb", "Pb", "V", "Ta", "Mo", "W", "Ti", "Zr"]


def lam(member: int) -> float:
    return 0.2 + 0.1 * member


class Known(EpcEnsemble):
    """Six members (three folds of two); member m says lambda = 0.2 + 0.1 m of every crystal."""

    def __init__(self, table=None):
        settings = {KEY: table.settings()} if table else {}
        self.checkpoint = Checkpoint("epc", settings, {}, table.tensors() if table else {})
        self.members = 6
        self.width_limits = dict.fromkeys(("lambda", "omega_log_K", "tc_K"), 1.0)
        self.calibration = {
            name: Conformal(0.9, Space(0.3), 0.1, (), (1.0,), (9,), (9,))
            for name in ("lambda", "omega_log_K", "tc_K")
        }

    def look(self, structures):
        return structures

    def outputs(self, crystals):
        one = np.array([[np.log(lam(m)), np.log(200.0), 0.0, np.log(1.2)] for m in range(6)])
        return np.repeat(one[:, None], len(crystals), axis=1)


@pytest.fixture
def records():
    out = []
    for k, symbol in enumerate(METALS):
        cell = {"lattice": (np.eye(3) * 3.2).tolist(), "species": [symbol], "frac": [[0, 0, 0]]}
        out.append(Record.from_row({"id": f"agm{k}", **cell, "lambda": 0.5, "Tc_K": 4.0}))
    return out


def test_each_crystal_by_the_heads_that_left_it_out(records):
    folds = {r.formula: k % 3 for k, r in enumerate(records[:7])}
    ensemble = Known(fold_table(folds, "s", members_per_fold=2))
    found = shipped_folds.out_of_fold(records, "lambda", mu_star=0.1, formula="xie", ensemble=ensemble)
    assert found is not None
    value, low, _, marks, notes = found
    for k in range(7):
        pair = [lam(2 * (k % 3)), lam(2 * (k % 3) + 1)]
        assert value[k] == pytest.approx(np.exp(np.mean(np.log(pair))))
    assert value[7:] == pytest.approx(np.exp(np.mean(np.log([lam(m) for m in range(6)]))))
    assert marks == ["out of fold"] * 7 + ["unseen"] * 3
    assert np.isnan(low).all()
    assert "7 rows" in notes[0] and "2 of 6 heads" in notes[0]
    tc = shipped_folds.out_of_fold(records, "tc_K", mu_star=0.1, formula="allen-dynes", ensemble=ensemble)
    assert tc is not None and (tc[1] < tc[0]).all() and (tc[0] < tc[2]).all()
    other = [k for k in range(7) if k % 3 == 2]
    assert (tc[0][other] > tc[0][0]).all()
    assert shipped_folds.out_of_fold(records, "lambda", mu_star=0.1, formula="xie", ensemble=Known()) is None


def test_evaluate_shipped_with_a_table(monkeypatch, records):
    folds = {r.formula: k % 3 for k, r in enumerate(records[:7])}
    known = Known(fold_table(folds, "s", members_per_fold=2))
    monkeypatch.setattr(shipped_folds, "EpcEnsemble", lambda: known)
    found = evaluate("shipped", records, folds_plan(records, 2), Options(draws=5))
    mae = {line.rows: line.score for line in found.lines if line.score.name == "mae"}
    assert (mae["out of fold"].n, mae["unseen"].n, mae["out of fold or unseen"].n) == (7, 3, 10)
    error = [abs(np.sqrt(lam(2 * (k % 3)) * lam(2 * (k % 3) + 1)) - 0.5) for k in range(7)]
    assert mae["out of fold"].value == pytest.approx(np.mean(error))
    assert not any("NOT A TEST" in note for note in found.notes)
    assert {row["known"] for row in found.rows} == {"out of fold", "unseen"}


# --- the property heads


class Energies:
    """A potential that says -1 eV/atom of everything but tungsten, which it refuses."""

    def attempt(self, structures):
        for s in structures:
            if s[0].specie.symbol == "W":
                yield ModelError("unknown-element", "no W")
            else:
                yield AtomFeatures(np.zeros((len(s), 4), dtype=np.float32), -1.0)


class Heads(PropertyEnsemble):
    """Six members (three folds of two); member m corrects the formation energy by m eV/atom."""

    def __init__(self, table=None):
        settings = {KEY: table.settings()} if table else {}
        card = {"caution": "the potential saw it"}
        self.checkpoint = Checkpoint("properties", settings, card, table.tensors() if table else {})
        self.heads, self.potential = [None] * 6, "none"
        self.elements = {z: -3.0 for z in range(1, 101)}

    def outputs(self, crystals):
        out = np.zeros((6, len(crystals), len(TARGETS)))
        out[:, :, 0] = np.arange(6)[:, None]
        return out


def test_properties_by_the_heads_that_left_the_formula_out(records):
    folds = {r.formula: k % 3 for k, r in enumerate(records[:6])}
    heads = Heads(fold_table(folds, "s", members_per_fold=2))
    found = shipped_folds.properties_out_of_fold(
        records, "formation_energy_eV_atom", heads=heads, potential=Energies()
    )
    assert found is not None
    value, low, _, marks, notes = found
    # 2 eV/atom by the potential, and the mean of the members.
    expected = [2.0 + 2 * (k % 3) + 0.5 for k in range(6)] + [4.5] * 4
    expected[METALS.index("W")] = np.nan
    np.testing.assert_allclose(value, expected)
    assert marks == ["out of fold"] * 6 + ["unseen"] * 4 and np.isnan(low).all()
    assert "6 rows" in notes[0] and "2 of 6 heads" in notes[0] and notes[1] == "the potential saw it"
    assert (
        shipped_folds.properties_out_of_fold(records, "gap_eV", heads=Heads(), potential=Energies()) is None
    )


def test_shipped_property_heads_carry_their_folds():
    table = FormulaTable.read(PropertyEnsemble().checkpoint)
    assert table is not None
    assert (len(table.keys), len(table.names), table.members_per_fold) == (19282, 5, 2)
    assert len(PropertyEnsemble().heads) == 10
    # NaCl and MgO of the Materials Project are in, a formula nobody made is not.
    assert (table.parts_of(["ClNa", "MgO"]) >= 0).all() and table.part("Ag17Xe19") == UNSEEN


def test_spectral_networks_by_the_members_that_left_the_formula_out(monkeypatch, records):
    """Members m of six say lambda = 0.2 + 0.1 m, whatever the crystal."""
    from onnes.learn import shipped_folds
    from onnes.learn.spectrum import SpectrumEnsemble
    from onnes.theory.spectral_grid import SpectralGrid

    table = FormulaTable.of({"Al": 0, "Cu": 1, "Nb": 2}, ("a", "b", "c"), "salt", members_per_fold=2)

    class Spectral(SpectrumEnsemble):
        def __init__(self):
            self.checkpoint = Checkpoint("spectrum", {KEY: table.settings()}, {}, table.tensors())
            self.sources, self.members, self.grid = ("alexandria", "jarvis"), 6, SpectralGrid.quadratic()
            self.asked = []
            known = Known()
            self.calibration = dict.fromkeys(self.sources, known.calibration)
            self.width_limits = dict.fromkeys(self.sources, known.width_limits)
            self.band = (1.0, 0.1)

        def features(self, structures):
            return [{} for _ in structures]

        def prepare(self, structure, features, sites=None, *, name=""):
            return structure

        def shares(self, crystals, source=""):
            self.asked.append((source, len(crystals)))
            log = np.log([[lam(m)] * len(crystals) for m in range(6)])
            shares = np.zeros((*log.shape, 100))
            shares[..., :60] = 1.0 / 60.0
            # The curve of the last one runs into the end of the grid.
            shares[:, [s.species[0].symbol == "Zr" for s in crystals]] = np.eye(100)[99]
            return log, shares

    records[1] = records[1].model_copy(update={"id": "JVASP-1"})
    shown = Spectral()
    value, low, high, marks, notes = shipped_folds.spectrum_out_of_fold(
        records, "lambda", mu_star=0.1, formula="allen-dynes", ensemble=shown
    )
    assert value[:3] == pytest.approx([lam(0.5), lam(2.5), lam(4.5)])
    assert value[3:-1] == pytest.approx(lam(2.5)) and np.isnan(low).all() and np.isnan(high).all()
    assert np.isnan(value[-1])
    assert marks[0] != marks[5] and "2 of 6" in notes[0]
    assert sorted(shown.asked) == [("alexandria", 9), ("jarvis", 1)]

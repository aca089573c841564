"""Standard, fast and trees behind one interface."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import onnes
from onnes.errors import OnnesError, SettingsError
from onnes.learn import predictors
from onnes.learn.predictors import PREDICTORS, choose, model_hash, predictor

NB = Structure(Lattice.cubic(3.30), ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]])
NACL = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0, 0]])
#: Einsteinium: beyond what any of the three was trained on.
ES = Structure(Lattice.cubic(4.0), ["Es"], [[0, 0, 0]])


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_each_gives_a_row_and_keeps_the_order(name):
    found = predictor(name).rows([NB, ES, NB], 0.10, "allen-dynes")
    first, unknown, last = found
    assert not isinstance(first, OnnesError) and not isinstance(last, OnnesError)
    for column, value in first.items():
        assert last[column] == (
            value if isinstance(value, str) else pytest.approx(value, rel=1e-5, nan_ok=True)
        )
    assert first["tc_low_K"] <= first["tc_K"] <= first["tc_high_K"] and first["tc_K"] > 2.0
    assert isinstance(unknown, OnnesError) or unknown["outside"]


@pytest.mark.parametrize("name", ["standard", "fast"])
def test_an_insulator_is_outside(name):
    (row,) = predictor(name).rows([NACL], 0.10, "allen-dynes")
    assert row["outside"] and row["p_superconductor"] < 0.05


def test_auto_is_trees_without_a_potential(monkeypatch):
    assert choose("auto") == "standard"
    monkeypatch.setattr(predictors, "find_spec", lambda name: None)
    assert choose("auto") == "trees"
    with pytest.raises(OnnesError) as error:
        predictors.Standard()
    assert error.value.code == "no-potential"


def test_unknown_model_is_refused():
    with pytest.raises(SettingsError) as error:
        onnes.predict(NB, model="oracle")
    assert error.value.code == "unknown-model"


def test_hashes_differ():
    assert len({model_hash(name) for name in PREDICTORS}) == len(PREDICTORS)


def test_trees_load_neither_torch_models_nor_sevenn():
    code = (
        "import sys, onnes; from pymatgen.core import Lattice, Structure;"
        "s = Structure(Lattice.cubic(3.3), ['Nb', 'Nb'], [[0, 0, 0], [.5, .5, .5]]);"
        "t = onnes.predict(s, model='trees'); assert t.status[0] == 'ok' and t.model[0] == 'trees';"
        "assert 'sevenn' not in sys.modules and 'e3nn' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_columns_a_model_does_not_give_are_empty():
    table = onnes.predict([NB], model="trees")
    assert np.isnan(table.gap_eV[0]) and np.isnan(table.p_superconductor[0]) and np.isfinite(table.tc_K[0])

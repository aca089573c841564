"""The trees fallback: our arrays against scikit-learn, calibrated intervals, domain, and no potential anywhere."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from sklearn.ensemble import HistGradientBoostingRegressor

from onnes.errors import ModelError
from onnes.learn import domain
from onnes.learn.descriptors import invariant_of
from onnes.learn.fallback import OUTPUTS, TreesEpc
from onnes.learn.store import Checkpoint, pretrained
from onnes.learn.tree_arrays import TreeArrays, from_boosting
from onnes.theory.tc import tc_array

CRYSTALS = {
    "Al": Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.05), ["Al"], [[0, 0, 0]]),
    "Nb": Structure.from_spacegroup("Im-3m", Lattice.cubic(3.30), ["Nb"], [[0, 0, 0]]),
    "NbN": Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.39), ["Nb", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "MgB2": Structure(
        Lattice.hexagonal(3.086, 3.524),
        ["Mg", "B", "B"],
        [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
    ),
}


@pytest.fixture(scope="module")
def trees() -> TreesEpc:
    return TreesEpc()


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_arrays_equal_scikit_learn(loss):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6))
    x[:, 5] = rng.integers(0, 3, 400)  # ties with the thresholds
    y = x[:, 0] * x[:, 1] + x[:, 5] + 0.1 * rng.normal(size=400)
    model = HistGradientBoostingRegressor(max_iter=40, loss=loss, random_state=0, early_stopping=False).fit(
        x, y
    )
    ours = from_boosting(model)
    new = np.vstack([x, rng.normal(size=(300, 6)) * 3, np.full((1, 6), 1e9), np.full((1, 6), -1e9)])
    assert np.abs(ours.predict(new) - model.predict(new)).max() < 1e-9
    assert np.ptp(ours.predict(new)) > 1.0
    new[3, 2] = np.nan
    assert np.isnan(ours.predict(new)).tolist() == [k == 3 for k in range(len(new))]
    back = TreeArrays.read({k: v.clone() for k, v in ours.tensors("a").items()}, "a", ours.base)
    assert np.array_equal(back.predict(x), ours.predict(x))


def test_damaged_arrays():
    model = HistGradientBoostingRegressor(max_iter=2, early_stopping=False).fit(np.eye(60), np.arange(60.0))
    tensors = from_boosting(model).tensors("a")
    with pytest.raises(ModelError, match=r"\[damaged-model\]"):
        TreeArrays.read({k: v for k, v in tensors.items() if k != "a.left"}, "a", 0.0)
    with pytest.raises(ModelError, match=r"\[damaged-model\]"):
        TreeArrays.read({**tensors, "a.left": tensors["a.left"][:-1]}, "a", 0.0)


def test_shipped_trees_are_those_of_the_card(trees):
    """Descriptors or arrays that changed since the training would move these numbers."""
    stated = trees.checkpoint.card["check"]
    found = trees.outputs(list(CRYSTALS.values()))
    for row, name in zip(found, CRYSTALS, strict=True):
        assert row.tolist() == pytest.approx([stated[name][k] for k in OUTPUTS], rel=1e-6)
    assert pretrained("trees.safetensors").stat().st_size < 2_000_000


def test_predictions_and_intervals(trees):
    p = trees.predict(list(CRYSTALS.values()), mu_star=0.12, formula="mcmillan-allen-dynes")
    expected = tc_array(p.lam, p.omega_log_K, p.omega_2_K, mu_star=0.12, formula="mcmillan-allen-dynes")
    assert p.tc_K == pytest.approx(expected)
    assert (p.tc_low_K <= p.tc_K).all() and (p.tc_K <= p.tc_high_K).all() and (p.tc_low_K >= 0).all()
    assert p.tc_K[1] > p.tc_K[0]  # Nb above Al
    assert (p.lam_std > 0).all() and (p.omega_log_K_std > 0).all() and (p.dos_ef > 0).all()
    # One width in ln(Tc + 0.3 K), the one of the reference Tc's range, whatever mu* is asked for.
    width = np.log(p.tc_high_K + 0.3) - np.log(p.tc_K + 0.3)
    other = trees.predict(list(CRYSTALS.values()))
    assert width == pytest.approx(np.log(other.tc_high_K + 0.3) - np.log(other.tc_K + 0.3))
    assert width == pytest.approx(trees.calibration["Tc_K"].reach(other.tc_K))


def test_cells_and_order_do_not_matter(trees):
    """Supercell, sheared cell, primitive instead of conventional, other order of sites."""
    doubled = CRYSTALS["MgB2"] * [2, 1, 1]
    sheared = Structure(
        np.array([[1, 0, 0], [1, 1, 0], [0, 2, 1]]) @ CRYSTALS["NbN"].lattice.matrix,
        CRYSTALS["NbN"].species,
        CRYSTALS["NbN"].cart_coords,
        coords_are_cartesian=True,
    )
    primitive = Structure(
        Lattice.cubic(4.05).matrix @ [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], ["Al"], [[0] * 3]
    )
    names = ["MgB2", "NbN", "Al"]
    found = trees.outputs([doubled, sheared, primitive])
    assert found == pytest.approx(trees.outputs([CRYSTALS[k] for k in names]), rel=1e-9)
    turned = Structure.from_sites(CRYSTALS["NbN"].sites[::-1])
    assert trees.outputs([turned]) == pytest.approx(trees.outputs([CRYSTALS["NbN"]]))


def test_an_element_without_properties_is_not_predicted(trees):
    strange = Structure(Lattice.cubic(4.0), ["Rf"], [[0, 0, 0]])
    p = trees.predict([strange, CRYSTALS["Al"]])
    assert (
        np.isnan(p.lam).tolist()
        == np.isnan(p.tc_K).tolist()
        == np.isnan(p.tc_high_K).tolist()
        == [True, False]
    )


def test_domain(trees):
    def outside(structure: Structure) -> str:
        z = np.array([site.specie.Z for site in structure])
        return trees.outside(z, structure.volume / len(z))

    assert outside(CRYSTALS["NbN"]) == ""
    assert "Xe" in outside(Structure(Lattice.cubic(4.0), ["Xe"], [[0, 0, 0]]))
    assert "volume per atom" in outside(Structure(Lattice.cubic(8.0), ["Al"], [[0, 0, 0]]))
    assert sum(n >= domain.LEAST for n in trees.element_counts.values()) >= 60


def test_coverage_counts_crystals_not_atoms():
    counts, (low, high) = domain.coverage_of([np.array([13, 13, 41]), np.array([41])], [10.0, 20.0])
    assert counts == {"13": 1, "41": 2}
    assert 10.0 <= low < 10.1 and 19.9 < high <= 20.0


def test_wrong_checkpoints(tmp_path, trees):
    c = trees.checkpoint
    Checkpoint(c.kind, {**c.settings, "columns": 9}, {}, c.tensors).save(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"trained on 9 descriptors, not 211 \[wrong-model\]"):
        TreesEpc(tmp_path / "a.safetensors").predict([CRYSTALS["Al"]])
    with pytest.raises(ModelError, match=r"\[wrong-model\]"):
        TreesEpc(pretrained("properties.safetensors"))


def test_card_beats_the_constant_with_intervals(trees):
    table = trees.checkpoint.card["cross_validation"]["table"]["all"]
    for name in ("lambda", "omega_log_K", "Tc_K"):
        low, high = table[name]["ci95"]
        assert low < table[name]["mae"] < high < table[name]["constant"]
    shares = trees.checkpoint.card["interval"]["coverage"]["Tc_K"]["by_prediction"]
    assert all(abs(share - 0.9) < 0.02 for _, _, share, n in shares if n > 200)
    path = pretrained("trees.safetensors").with_suffix(".card.json")
    assert json.loads(path.read_text()) == trees.checkpoint.card


def test_works_without_sevenn():
    code = (
        "import sys; sys.modules['sevenn'] = None\n"
        "from pymatgen.core import Lattice, Structure\n"
        "from onnes.learn.fallback import TreesEpc\n"
        "p = TreesEpc().predict([Structure(Lattice.cubic(3.3), ['Nb', 'Nb'], [[0, 0, 0], [.5, .5, .5]])])\n"
        "print(float(p.lam[0])); assert 'sklearn' not in sys.modules and 'lightning' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(TreesEpc().predict([CRYSTALS["Nb"]]).lam[0]), rel=1e-6)


def test_descriptors_are_those_of_evaluate():
    from onnes.data.records import Record
    from onnes.learn.descriptors import DESCRIPTORS

    record = Record.from_structure(CRYSTALS["MgB2"], "x")
    assert np.array_equal(DESCRIPTORS["invariant"](record), invariant_of(record.structure()))

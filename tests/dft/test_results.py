"""From a finished run to the curve: lambda and Tc at every broadening, or why there is none."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from qe_fixtures import FIXTURES

from onnes.dft.results import COLUMNS, read_results, write_results
from onnes.dft.tiers import TIERS, TierName


@pytest.fixture
def finished(tmp_path):
    def make(folder: str, q: int):
        (tmp_path / "bands").mkdir()
        for n in range(1, q + 1):
            file = FIXTURES / folder / f"al.dyn{n}"
            if not file.exists():
                file = FIXTURES / folder / f"q00{n}" / f"onnes.dyn{n}"
            shutil.copyfile(file, tmp_path / "bands" / f"onnes.dyn{n}")
        for s in range(1, 11):
            shutil.copyfile(FIXTURES / "al_222" / "bands" / f"a2F.dos{s}", tmp_path / "bands" / f"a2F.dos{s}")
        plan = SimpleNamespace(q_weights=(1,) * q, tier=TIERS[TierName.QUICK])
        return plan, tmp_path

    return make


def test_curve_of_a_stable_crystal(finished):
    plan, folder = finished("al_222", 3)
    found = read_results(plan, folder)
    assert found.unstable is None and len(found.rows) == 10
    assert [r.sigma_Ry for r in found.rows[:2]] == [0.005, 0.01]
    assert found.rows[4].lam == pytest.approx(0.5507, rel=0.01)
    assert found.rows[1].tc_K > found.rows[4].tc_K > found.rows[9].tc_K > 0.0
    text = write_results(found, folder).read_text()
    assert text.splitlines()[0] == COLUMNS and len(text.splitlines()) == 11


def test_another_mu_star_gives_another_tc(finished):
    plan, folder = finished("al_222", 3)
    low, high = (read_results(plan, folder, m).rows[4].tc_K for m in (0.10, 0.14))
    assert low > high > 0.0


def test_imaginary_modes_leave_no_number_though_the_files_have_one(finished):
    plan, folder = finished("sc_al", 4)
    found = read_results(plan, folder)
    assert found.unstable is not None and "-157.4 cm-1" in found.unstable.detail
    assert all(r.lam is None and r.tc_K is None and r.reason == "imaginary-modes" for r in found.rows)


def test_damaged_curve_is_a_reason_and_not_a_number(finished):
    plan, folder = finished("al_222", 3)
    (folder / "bands" / "a2F.dos4").write_text("nothing of use\n")
    rows = read_results(plan, folder).rows
    assert rows[3].lam is None and rows[3].reason == "no-numbers" and rows[4].lam is not None

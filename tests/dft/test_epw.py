"""EPW: inputs by their text, output by two captured runs of epw.x 5.3.1 (one ended, one stopped above Tc)."""

from __future__ import annotations

import dataclasses
import re

import pytest
from pymatgen.core import Lattice, Structure
from qe_fixtures import captured

from onnes.dft.epw_inputs import collect_script, epw_input, nscf_input, semicore_bands, write_epw
from onnes.dft.epw_output import parse_epw
from onnes.dft.failures import Reason
from onnes.dft.plan import make_cell, make_plan
from onnes.dft.tiers import TIERS, TierName
from onnes.errors import SettingsError

MGB2 = Structure(
    Lattice.hexagonal(3.085, 3.523), ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
)


@pytest.fixture(scope="module")
def plan():
    tier = dataclasses.replace(TIERS[TierName.QUICK], k_density_A=16.0, q_density_A=8.0)
    return make_plan(make_cell(MGB2, tier), tier, relax=False)


def test_route_of_mgb2(plan):
    text = epw_input(plan, fermi_eV=7.0, fine_k=(72, 72, 36), tc_K=40.0)
    for line in ("nkf1=72", "nkf3=36", "nqf1=36", "nqf3=18", "proj(1)='B:s;p'", "proj(2)='Mg:s;p'"):
        assert f"  {line}\n" in text
    q, k = plan.grids.q, plan.grids.k
    assert f"  nq3={q[2]}\n" in text and f"  nk1={k[0]}\n" in text
    # epw.x glues the name of the folder to the prefix, and does not come to an end above Tc.
    assert "outdir='./tmp/'\n" in text and "  temps=8.000 16.000 24.000 32.000\n" in text
    assert "\n  dis_froz_max=8.0000\n" in text and "! FILL IN" not in text
    # epw.x' own default freezes every band: without a Fermi energy a person has to fill in the window.
    assert "! FILL IN" in epw_input(plan) and "\n  dis_froz_max" not in epw_input(plan)
    assert "  nbndsub=12\n" in text and "  bands_skipped='exclude_bands = 1:4'\n" in text
    # What epw.x asks of grids: k of both kinds a multiple of q.
    assert all(a % b == 0 for a, b in zip(k, q, strict=True)) and "  mp_mesh_k=.true.\n" in text


def test_semicore_bands_have_no_functions():
    def one(*symbols, a=4.2):
        at = [[0, 0, 0], [0.5, 0.5, 0.5]]
        tier = TIERS[TierName.QUICK]
        made = Structure(Lattice.cubic(a), symbols, at[: len(symbols)])
        return make_plan(make_cell(made, tier), tier, relax=False)

    # Electrons of the pseudopotentials less those of the shell: 13 - 5, 14 - 4 + 4 - 4, 9 - 1 + 7 - 7, 3 - 3.
    for symbols, bands in (
        (("Nb",), 4),
        (("Sn", "C"), 5),
        (("Na", "Cl"), 4),
        (("Al",), 0),
        (("Nb", "V"), 8),
    ):
        plan = one(*symbols)
        assert semicore_bands(plan) == bands
        text = epw_input(plan, fermi_eV=5.0)
        assert (f"exclude_bands = 1:{bands}'" in text) == (bands > 0) == ("bands_skipped" in text)
        number = int(re.search(r"nbndsub=(\d+)", text)[1])
        assert int(re.search(r"nbnd=(\d+)", nscf_input(plan))[1]) >= bands + number + 4
    # A pseudopotential without semicore states, as its header says.
    assert semicore_bands(one("Nb"), 5.0) == 0


def test_nscf_lists_every_point_with_equal_weights_and_keeps_symmetry(plan):
    text = nscf_input(plan)
    rows = text.split("K_POINTS crystal\n")[1].splitlines()
    a, b, c = plan.grids.k
    assert int(rows[0]) == a * b * c == len(rows) - 1
    points = [tuple(map(float, row.split())) for row in rows[1:]]
    assert len({p[:3] for p in points}) == a * b * c and all(0.0 <= x < 1.0 for p in points for x in p[:3])
    assert sum(p[3] for p in points) == pytest.approx(1.0, abs=1e-6)
    assert "nosym" not in text and "calculation='nscf'" in text and "  nbnd=20\n" in text


def test_files_of_the_chain(plan, tmp_path):
    written = write_epw(plan, tmp_path)
    assert {f.name for f in written} == {"scf.in", "ph.in", "nscf.in", "epw.in", "collect.sh"}
    assert "electron_phonon" not in (tmp_path / "epw" / "ph.in").read_text()
    script = collect_script(3)
    assert "seq 1 3" in script and "onnes.dvscf_q$q" in script


@pytest.mark.parametrize("fine", [(71, 72, 36), (0, 72, 36)])
def test_fine_grid_without_a_half_is_refused(plan, fine):
    with pytest.raises(SettingsError, match="bad-grid"):
        epw_input(plan, fine_k=fine)


def test_output_of_a_run_that_ended():
    found = parse_epw(captured("epw/al_epw.out"))
    assert found.failure is None and found.version == "5.3.1"
    assert (found.lam, found.tc_allen_dynes_K, found.mu_star) == (0.6332690, 7.857588, 0.1)
    assert found.fermi_eV == pytest.approx(8.549390)
    assert len(found.wannier_spreads_A2) == 4 and max(found.wannier_spreads_A2) < 1.6
    assert [t for t, _ in found.gap_meV] == [1.4, 2.8, 4.2, 5.6]
    gaps = [g for _, g in found.gap_meV]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] == pytest.approx(1.549)


def test_output_of_a_run_that_stopped_above_tc():
    found = parse_epw(captured("epw/al_above_tc_epw.out"))
    assert found.failure is not None and found.failure.reason is Reason.CRASH
    assert "mix_broyden" in found.failure.detail
    # What converged before is still read; the temperature that did not is not.
    assert [t for t, _ in found.gap_meV] == [1.0, 2.0, 4.0, 6.0, 8.0]


def test_cut_output_is_never_done():
    text = captured("epw/al_epw.out")
    for share in (0.0, 0.1, 0.5, 0.9):
        assert parse_epw(text[: int(share * len(text))]).failure is not None
    assert parse_epw("Program PWSCF v.6.7\n").failure.reason is Reason.NOT_QE
    without = text.replace("Electron-phonon coupling strength", "Something else")
    assert parse_epw(without).failure.reason is Reason.TRUNCATED
    assert parse_epw(without, coupling=False).failure is None

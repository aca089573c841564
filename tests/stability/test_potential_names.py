"""Potentials of other packages, found through their entry points; an extra that may be missing."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from ase.build import bulk
from relax_plugin import call, install

from onnes.errors import CrystalError, SettingsError
from onnes.stability import potentials
from onnes.stability.contract import contract


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture
def installed(package, monkeypatch):
    caches = (potentials.calculator, potentials.elements, potentials.potential_hash)
    monkeypatch.syspath_prepend(str(package))
    yield
    for cache in caches:
        cache.cache_clear()
    sys.modules.pop("onnes_test_potential", None)


@pytest.mark.usefixtures("installed")
def test_a_registered_potential_is_found_by_name():
    chosen = potentials.potential("emt")
    assert (chosen.title, chosen.kind) == ("Effective medium theory", "entry-point")
    assert "Jacobsen" in chosen.citation
    assert potentials.calculator("emt") is potentials.calculator("emt")
    assert potentials.elements("emt") == {1, 6, 7, 8, 13, 28, 29, 46, 47, 78, 79}
    atoms = bulk("Cu")
    atoms.calc = potentials.calculator("emt")
    assert -0.1 < atoms.get_potential_energy() < 0.1
    from pymatgen.core import Lattice, Structure

    with pytest.raises(CrystalError, match=r"Fe.*potential-unknown-element"):
        potentials.require_elements(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]), "emt")


@pytest.mark.usefixtures("installed")
def test_what_is_not_declared_is_taken_from_the_package():
    chosen = potentials.potential("bare")
    assert chosen.title == "from onnes-test-potential 1.2" and chosen.citation == ""
    assert potentials.elements("bare") == set(range(1, 119))
    hashes = [potentials.potential_hash(name) for name in ("bare", "emt")]
    assert len(set(hashes)) == 2 and all(len(h) == 16 for h in hashes)


@pytest.mark.usefixtures("installed")
def test_our_own_names_cannot_be_taken():
    assert potentials.potential("7net-0").kind == "sevennet"
    assert "7net-0" not in potentials.plugins()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raising", "OSError: no weights at home"),
        ("nothing", "returned int"),
        ("number", "not a function"),
        ("absent", "AttributeError"),
        ("no-module", "ModuleNotFoundError"),
    ],
)
def test_a_broken_one_is_one_line(name, words):
    with pytest.raises(SettingsError, match="broken-potential") as caught:
        potentials.calculator(name)
    assert words in str(caught.value) and "onnes-test-potential 1.2" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("installed")
def test_an_unknown_name_lists_all_of_them():
    with pytest.raises(SettingsError, match="unknown-potential") as caught:
        potentials.potential("magic")
    assert all(name in str(caught.value) for name in ("7net-0", "chgnet", "emt", "wrong-sign"))


@pytest.mark.usefixtures("installed")
def test_one_name_in_two_packages_is_refused(tmp_path, monkeypatch):
    info = tmp_path / "other-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[onnes.potentials]\nemt = other:load\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SettingsError, match=r"ambiguous-potential"):
        potentials.potential("emt")
    assert potentials.potential("7net-0").name == "7net-0"


def test_the_command_lists_and_tests(package):
    listed = call(package, "potential")
    assert listed.returncode == 0
    for name in ("7net-0", "7net-l3i5", "chgnet", "emt", "raising"):
        assert name in listed.stdout
    good = call(package, "potential", "emt", "--json")
    assert good.returncode == 0
    found = json.loads(good.stdout)
    assert found["failed"] == 0 and len(found["checks"]) == 13
    bad = call(package, "potential", "wrong-sign")
    assert bad.returncode == 1 and "FAIL stress" in bad.stdout and "the sign is the opposite" in bad.stdout
    broken = call(package, "potential", "raising")
    assert broken.returncode == 2 and "broken-potential" in broken.stderr and "Traceback" not in broken.stderr


def test_relax_takes_a_registered_potential(package, tmp_path):
    from pymatgen.core import Lattice, Structure

    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.8), ["Cu"], [[0, 0, 0]])
    copper.to(str(tmp_path / "Cu.cif"))
    Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]).to(str(tmp_path / "Fe.cif"))
    done = call(package, "relax", tmp_path, "--potential", "emt", "--cifs", tmp_path / "relaxed")
    assert done.returncode == 1 and "potential-unknown-element" in done.stdout
    # Copper of the effective medium theory: 3.61 A at zero temperature.
    relaxed = Structure.from_file(tmp_path / "relaxed" / "Cu.cif")
    assert (relaxed.volume / len(relaxed) * 4) ** (1 / 3) == pytest.approx(3.59, abs=0.03)


@pytest.mark.skipif(importlib.util.find_spec("chgnet") is not None, reason="chgnet is installed")
def test_the_extra_says_how_to_install_it():
    with pytest.raises(SettingsError, match=r"pip install 'onnes\[chgnet\]'.*missing-extra"):
        potentials.calculator("chgnet")


def test_chgnet_keeps_the_contract(capsys):
    pytest.importorskip("chgnet")
    calc = potentials.calculator("chgnet")
    assert [c for c in contract(calc, potentials.elements("chgnet")) if not c.passed] == []
    assert len(potentials.potential_hash("chgnet")) == 16
    assert capsys.readouterr().out == ""

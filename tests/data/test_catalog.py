"""The catalogue: complete entries, nothing made up, typed refusals."""

from __future__ import annotations

import re

import pytest

from onnes.data.catalog import CATALOG, PINNED_ON_FIRST_USE, data_set
from onnes.errors import InputError


@pytest.mark.parametrize("entry", CATALOG.values(), ids=str)
def test_entry_says_what_it_is_and_under_which_licence(entry):
    assert entry.title and entry.citation and entry.format and "CC BY 4.0" in entry.licence
    assert re.match("https://", entry.page)
    assert entry.files or entry.how
    assert len({f.name for f in entry.files}) == len(entry.files)


@pytest.mark.parametrize("file", [f for e in CATALOG.values() for f in e.files], ids=lambda f: f.name)
def test_checksum_or_the_reason_for_none(file):
    assert re.match(r"https://\S+$", file.url)
    assert "/" not in file.name
    if file.sha256 is None:
        assert file.checksum_note == PINNED_ON_FIRST_USE
    else:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256) and file.checksum_note != PINNED_ON_FIRST_USE


def test_refusals():
    with pytest.raises(InputError) as error:
        data_set("jarvis")
    assert error.value.code == "unknown-data-set" and "jarvis-sc-3d" in str(error.value)
    cases = [("materials-project", None, "no-file"), ("alexandria-eph-archive", None, "choose-file")]
    for name, file, code in [*cases, ("3dsc", "x.csv", "unknown-file")]:
        with pytest.raises(InputError) as error:
            data_set(name).file(file)
        assert error.value.code == code

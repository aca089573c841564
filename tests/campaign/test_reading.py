"""Candidates from files: streamed, resumed where it was cut, and never mixed with those of other files."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from onnes.campaign import reading
from onnes.campaign.canonical import content_hash
from onnes.campaign.funnel import Silent
from onnes.campaign.ledger import Ledger
from onnes.campaign.reading import Files, files_digest
from onnes.campaign.settings import Settings
from onnes.campaign.source import require_same
from onnes.errors import InputError, SettingsError


def row(k: int, **more) -> dict:
    a = 3.0 + 0.01 * k
    return {
        "id": f"c{k}",
        "lattice": [[a, 0, 0], [0, a, 0], [0, 0, a]],
        "species": ["Nb"],
        "frac": [[0, 0, 0]],
        **more,
    }


def write(path, rows):
    with gzip.open(path, "wt") as stream:
        stream.writelines(json.dumps(r) + "\n" for r in rows)
    return path


def files(*paths) -> Files:
    return Files(Settings.from_dict({"generate": {"paths": [str(p) for p in paths]}}))


@pytest.fixture
def records(tmp_path):
    rows = [row(k) for k in range(10)]
    rows[3] = {"id": "bad", "lattice": "none"}
    rows[4]["debye_T_K"] = 275.0
    return write(tmp_path / "r.jsonl.gz", rows)


def test_all_blocks_arrive_with_labels_and_refusals(records, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "READ_BLOCK", 4)
    source = files(records)
    assert source.expected == 10
    with Ledger.create(tmp_path / "run") as ledger:
        source.fill(ledger, None, Silent())
        found = ledger.candidates()
        assert [c.id for c in found] == [f"c{k}" for k in range(10) if k != 3]
        assert [c.index for c in found] == list(range(9))
        assert {c.id: c.meta for c in found if c.meta} == {"c4": {"given": {"given_debye_K": 275.0}}}
        assert [r[1] for r in ledger.get_meta("refused_inputs")] == ["no-structure"]


def test_a_reading_that_was_cut_goes_on_and_gives_the_same(records, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "READ_BLOCK", 4)
    source = files(records)
    with Ledger.create(tmp_path / "whole") as whole, Ledger.create(tmp_path / "cut") as cut:
        source.fill(whole, None, Silent())
        cut.add_candidates(whole.candidates()[:4])
        assert not cut.chunks()
        source.fill(cut, None, Silent())
        assert cut.candidates() == whole.candidates() and cut.chunks() == whole.chunks() == {
            (source.digest, 0, 9)
        }


def test_memory_holds_one_block(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "READ_BLOCK", 5)
    sizes = []
    with Ledger.create(tmp_path / "run") as ledger:
        add = ledger.add_candidates
        monkeypatch.setattr(
            ledger, "add_candidates", lambda rows, **how: (sizes.append(len(rows)), add(rows, **how))
        )
        files(write(tmp_path / "r.jsonl.gz", map(row, range(23)))).fill(ledger, None, Silent())
    assert sizes == [5, 5, 5, 5, 3]


def test_the_digest_is_of_names_and_bytes_not_of_the_place(records, tmp_path):
    there = tmp_path / "elsewhere"
    there.mkdir()
    (there / records.name).write_bytes(records.read_bytes())
    assert files_digest([str(there / records.name)]) == files_digest([str(records)])
    write(there / records.name, map(row, range(9)))
    assert files_digest([str(there / records.name)]) != files_digest([str(records)])


def test_other_files_are_another_run(records, tmp_path):
    other = files(write(tmp_path / "o.jsonl.gz", map(row, range(2))))
    with Ledger.create(tmp_path / "run") as ledger:
        ledger.set_meta("source", files(records).digest)
        with pytest.raises(SettingsError, match="other-source"):
            require_same(ledger, other, Settings.from_dict({"generate": {"paths": [str(records)]}}))


def as_before(run, records) -> Ledger:
    """A run over files as it was when its digest was that of the crystals, and no reading was marked."""
    with Ledger.create(run / "scratch") as scratch:
        files(records).fill(scratch, None, Silent())
        held = [replace(c, meta={}) for c in scratch.candidates()]
    ledger = Ledger.create(run / "old")
    ledger.add_candidates(held)
    ledger.update_meta({"source": content_hash([(c.id, c.structure) for c in held]), "refused_inputs": []})
    return ledger


def test_a_run_with_the_digest_of_its_crystals_goes_on(records, tmp_path):
    settings = Settings.from_dict({"generate": {"paths": [str(records)]}})
    with as_before(tmp_path, records) as ledger:
        before, chosen = ledger.candidates(), files(records)
        assert ledger.get_meta("source") != chosen.digest
        require_same(ledger, chosen, settings)
        chosen.fill(ledger, None, Silent())
        assert ledger.candidates() == before and ledger.chunks() == {(chosen.digest, 0, len(before))}


def test_an_old_digest_opens_no_door_to_other_files(records, tmp_path):
    other = files(write(tmp_path / "o.jsonl.gz", map(row, range(9))))
    settings = Settings.from_dict({"generate": {"paths": [str(tmp_path / "o.jsonl.gz")]}})
    with as_before(tmp_path, records) as ledger:
        with pytest.raises(SettingsError, match=r"other names or content.*other-source"):
            require_same(ledger, other, settings)
        assert ledger.chunks() == set()


def test_no_crystal_at_all_is_said_before_there_is_a_run(tmp_path):
    with pytest.raises(InputError, match=r"bad-record|no-structure"):
        files(write(tmp_path / "r.jsonl.gz", [{"id": "x"}]))
    with pytest.raises(InputError, match="missing-path"):
        files(tmp_path / "nothing")
    partial = row(1)
    partial["species"] = ["Xx"]
    with pytest.raises(InputError, match=r"none of 1 inputs could be read.*Xx|unknown-element"):
        files(write(tmp_path / "x.jsonl.gz", [partial]))


def test_one_path_that_is_missing_is_refused_and_the_others_are_read(records, tmp_path):
    source = files(records, tmp_path / "nothing")
    with Ledger.create(tmp_path / "run") as ledger:
        source.fill(ledger, None, Silent())
        assert len(ledger.ids()) == 9
        assert {r[1] for r in ledger.get_meta("refused_inputs")} == {"no-structure", "missing-path"}

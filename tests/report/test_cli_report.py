"""``onnes report`` and ``onnes export``: exit codes, messages, and that reading never disturbs a run."""

from __future__ import annotations

import sys

import pytest
import report_ledgers as ledgers

from onnes.campaign.ledger import FILE_NAME
from onnes.cli.main import main


def onnes(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["onnes", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


@pytest.fixture
def run(tmp_path):
    ledgers.finished(tmp_path / "my run ü").close()
    return tmp_path / "my run ü"


def test_report_lands_in_the_run_folder(run, monkeypatch, capsys):
    code, out, err = onnes(monkeypatch, capsys, "report", run)
    assert (code, out.strip(), err) == (0, str(run / "report.html"), "")
    assert "MgB" in (run / "report.html").read_text("utf-8")


def test_report_elsewhere_and_from_the_ledger_file(run, tmp_path, monkeypatch, capsys):
    code, *_ = onnes(monkeypatch, capsys, "report", run / FILE_NAME, "--out", tmp_path / "x" / "page.html")
    assert code == 0 and (tmp_path / "x" / "page.html").is_file() and not (run / "report.html").exists()


def test_report_of_a_run_that_a_driver_holds(tmp_path, monkeypatch, capsys):
    with ledgers.unfinished(tmp_path):
        code, *_ = onnes(monkeypatch, capsys, "report", tmp_path)
    assert code == 0


@pytest.mark.parametrize("format", ["cif", "extxyz", "ase", "csv", "parquet", "optimade", "bib"])
def test_export(run, tmp_path, monkeypatch, capsys, format):
    out = tmp_path / f"e.{format}"
    code, words, _ = onnes(monkeypatch, capsys, "export", run, "--format", format, "--out", out)
    assert code == 0 and out.exists() and str(out) in words


def test_refusals_are_one_line_with_a_code(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "junk.sqlite").write_bytes(b"not a database at all")
    cases = {
        ("report", tmp_path / "nothing"): "no-ledger",
        ("report", tmp_path / "junk.sqlite"): "ledger",
        ("report", run, "--out", tmp_path): "cannot-write",
        ("export", run, "--format", "pdf", "--out", tmp_path / "x"): "unknown-format",
        ("export", tmp_path / "nothing", "--format", "csv", "--out", tmp_path / "x"): "no-ledger",
    }
    for arguments, code in cases.items():
        status, out, err = onnes(monkeypatch, capsys, *arguments)
        assert status == 2 and out == "" and err.count("\n") == 1 and code in err, arguments


def test_missing_options(run, monkeypatch, capsys):
    assert onnes(monkeypatch, capsys, "export", run)[0] == 2
    assert onnes(monkeypatch, capsys, "report")[0] == 2

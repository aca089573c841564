"""The Materials Project's interface, played by a server of this test."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from pymatgen.core import Lattice, Structure

from onnes.errors import DataError, InputError, SettingsError
from onnes.stability import hull_mp
from onnes.stability.hull import HullReferences
from onnes.stability.hull_entries import joined, table_of
from onnes.stability.hull_mp import MaterialsProject, computed

AL = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.04), ["Al"], [[0, 0, 0]]).get_primitive_structure()
NIAL = Structure(Lattice.cubic(2.89), ["Al", "Ni"], [[0, 0, 0], [0.5, 0.5, 0.5]])
HELD = {
    "Al": [
        {"material_id": "mp-134", "structure": AL.as_dict(), "formula_pretty": "Al", "energy_per_atom": -3.7}
    ],
    "Ni": [],
    "Al-Ni": [
        {
            "material_id": "mp-1487",
            "structure": NIAL.as_dict(),
            "formula_pretty": "AlNi",
            "energy_per_atom": -5.4,
        }
    ],
}


class Answers(BaseHTTPRequestHandler):
    asked: list[tuple[str, dict]]
    mood = ""

    def do_GET(self):
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        type(self).asked.append((parts.path, query))
        if self.headers["X-API-KEY"] != "secret":
            return self.answer(401, b"{}")
        if self.mood == "slow":
            time.sleep(1.0)
        if self.mood.isdigit():
            return self.answer(int(self.mood), b"{}")
        if self.mood == "words":
            return self.answer(200, b"<html>maintenance</html>")
        rows = HELD[query["chemsys"]]
        start = int(query["_skip"])
        rows = rows[start : start + int(query["_limit"])]
        wanted = query["_fields"].split(",")
        return self.answer(200, json.dumps({"data": [{k: r[k] for k in wanted} for r in rows]}).encode())

    def answer(self, code, body):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    kind = type("Fresh", (Answers,), {"asked": [], "mood": ""})
    running = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    running.handle_error = lambda *_: None  # a caller that gave up waiting is no news
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield kind, f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


SYSTEM = [frozenset(("Ni", "Al"))]


def test_structures_of_all_subsystems_get_the_potentials_energies(server):
    kind, base = server
    found = dict(MaterialsProject("secret", base).structures(SYSTEM))
    assert set(found) == {"mp-134", "mp-1487"}
    assert [q["chemsys"] for _, q in kind.asked] == ["Al", "Ni", "Al-Ni"]
    entries = computed(found.items(), "7net-0")
    table = HullReferences.load()
    by_id = {e.reference.id: e.reference for e in entries}
    assert by_id["mp-134"].energy_eV_atom == pytest.approx(table.elements["Al"], abs=0.01)
    assert by_id["mp-1487"].formula == "AlNi"
    more = joined(table, entries, "Materials Project")
    assert len(more) == len(table) + 2


def test_a_phase_without_an_energy_is_refused_and_the_others_go_on():
    mixed = Structure(NIAL.lattice, [{"Al": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    polonium = Structure(NIAL.lattice, ["Po"], [[0, 0, 0]])
    left = []
    phases = [("mixed", mixed), ("po", polonium), ("mp-134", AL.copy())]
    entries = computed(phases, "7net-0", refused=left.append)
    assert [e.reference.id for e in entries] == ["mp-134"]
    assert [(r.id, r.code) for r in left] == [
        ("mixed", "partial-occupancy"),
        ("po", "potential-unknown-element"),
    ]
    assert [e.reference.id for e in computed(phases, "7net-0")] == ["mp-134"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [(RuntimeError("no neighbours"), "RuntimeError: no neighbours"), (float("nan"), "nan")],
)
def test_what_the_calculator_raises_is_the_phases_refusal(monkeypatch, broken, words):
    from ase import Atoms

    def energy(self):
        if isinstance(broken, Exception):
            raise broken
        return broken

    monkeypatch.setattr(Atoms, "get_potential_energy", energy)
    left = []
    assert computed([("a", AL.copy())], "7net-0", refused=left.append) == []
    assert left[0].code == "no-energy" and words in left[0].message


def test_command_says_which_phases_it_left_out(server, tmp_path, monkeypatch):
    _, base = server
    mixed = Structure(NIAL.lattice, [{"Al": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    wrong = {"material_id": "mp-9", "structure": mixed.as_dict()}
    monkeypatch.setitem(HELD, "Al-Ni", [*HELD["Al-Ni"], wrong])
    NIAL.to(str(tmp_path / "a.cif"))
    done = stability(base, tmp_path / "a.cif", "--mp", "potential")
    assert done.returncode == 0 and "mp-9" in done.stderr and "[partial-occupancy]" in done.stderr
    assert "1 of 3 phases of the Materials Project left out" in done.stderr


def test_own_energies_make_a_hull_of_their_own(server):
    kind, base = server
    entries = MaterialsProject("secret", base).entries(SYSTEM)
    table = table_of(entries, hull_mp.METHOD, "Materials Project")
    assert table.elements == {"Al": -3.7} and len(table) == 2
    assert {path for path, _ in kind.asked} == {"/materials/thermo/"}
    assert kind.asked[0][1]["thermo_types"] == "GGA_GGA+U"


def test_long_answers_come_in_pages(server, monkeypatch):
    kind, base = server
    monkeypatch.setattr(hull_mp, "PAGE", 1)
    assert len(MaterialsProject("secret", base).entries(SYSTEM)) == 2
    assert [(q["chemsys"], q["_skip"]) for _, q in kind.asked] == [
        ("Al", "0"),
        ("Al", "1"),
        ("Ni", "0"),
        ("Al-Ni", "0"),
        ("Al-Ni", "1"),
    ]


@pytest.mark.parametrize(
    ("mood", "key", "code"),
    [
        ("", "wrong", "bad-key"),
        ("403", "secret", "bad-key"),
        ("429", "secret", "too-many-requests"),
        ("500", "secret", "server-error"),
        ("slow", "secret", "timeout"),
        ("words", "secret", "bad-answer"),
    ],
)
def test_failures_have_codes_and_never_show_the_key(server, mood, key, code):
    kind, base = server
    kind.mood = mood
    with pytest.raises((InputError, DataError)) as error:
        MaterialsProject(key, base, timeout_s=0.3).entries(SYSTEM)
    assert error.value.code == code and key not in str(error.value).split()


def test_offline_and_no_key(monkeypatch):
    with pytest.raises(InputError, match="offline"):
        MaterialsProject("secret", "http://127.0.0.1:9").entries(SYSTEM)
    with pytest.raises(SettingsError, match="bad-address"):
        MaterialsProject("secret", "file:///etc").entries(SYSTEM)
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="no-key"):
        MaterialsProject.from_environment()
    monkeypatch.setenv("MP_API_KEY", "secret")
    monkeypatch.setenv("MP_API_ENDPOINT", "http://localhost:1")
    assert MaterialsProject.from_environment() == MaterialsProject("secret", "http://localhost:1")


def stability(base, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "onnes.cli.main", "stability", "--no-cross-check", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "MP_API_KEY": "secret", "MP_API_ENDPOINT": base},
    )
    assert "Traceback" not in done.stderr and "secret" not in done.stderr + done.stdout
    return done


def test_command_adds_phases_with_the_potentials_energies(server, tmp_path):
    _, base = server
    NIAL.to(str(tmp_path / "a.cif"))
    done = stability(base, tmp_path / "a.cif", "--mp", "potential")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert done.returncode == 0 and float(row["e_hull_eV_atom"]) == pytest.approx(0.0, abs=0.01)
    assert "shipped table and Materials Project" in done.stderr and "21,745 phases" in done.stderr


def test_command_with_their_energies(server, tmp_path):
    _, base = server
    NIAL.to(str(tmp_path / "a.cif"))
    refused = stability(base, tmp_path / "a.cif", "--mp", "dft")
    assert refused.returncode == 2 and "mixed-methods" in refused.stderr
    (tmp_path / "mine.csv").write_text("id,energy_eV_atom\na,-5.3\n")
    done = stability(base, tmp_path / "a.cif", "--mp", "dft", "--candidate-energies", tmp_path / "mine.csv")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    # The server of this test has no nickel: the element is unknown, not zero.
    assert row["unknown_references"] == "Ni" and row["e_hull_eV_atom"] == ""
    assert "1 without a reference" in done.stderr and "corrected" in done.stderr

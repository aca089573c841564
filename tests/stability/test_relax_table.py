"""Many crystals: order, workers that die, tables that are stopped and gone on with; through the command line."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from relax_plugin import call, environment, install

from onnes.crystal.read import Crystal, Refused
from onnes.errors import InputError
from onnes.stability.relax import RelaxSettings
from onnes.stability.relax_journal import Journal, crystal_key, run_key
from onnes.stability.relax_table import columns, relax_all


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """Ten shaken alloys of different size, a slab, a molecule in a box, iron (which EMT does not know)."""
    folder = tmp_path_factory.mktemp("crystals")
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.8), ["Cu"], [[0, 0, 0]])
    for k in range(10):
        s = cell.copy()
        s.replace(k % 4, "Au")
        s.make_supercell([1 + k % 3, 1, 1])
        s.perturb(0.1, seed=k)
        s.to(str(folder / f"a{k}.cif"))
    slab = Structure(Lattice.tetragonal(2.55, 20.0), ["Cu", "Cu"], [[0, 0, 0.5], [0.5, 0.5, 0.59]])
    slab.to(str(folder / "b-slab.cif"))
    Structure(Lattice.cubic(12.0), ["N", "N"], [[0, 0, 0], [0.092, 0, 0]]).to(str(folder / "c-molecule.cif"))
    Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]).to(str(folder / "d-iron.cif"))
    return folder


def rows(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def serial(package, crystals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    done = call(
        package, "relax", crystals, "--potential", "emt", "--out", folder / "t.csv", "--cifs", folder / "c"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return folder


def test_rows_keep_the_order_and_say_what_is_no_bulk(serial):
    table = rows(serial / "t.csv")
    assert [r["id"] for r in table] == [*(f"a{k}" for k in range(10)), "b-slab", "c-molecule", "d-iron"]
    assert [r["flags"] for r in table[-3:]] == ["slab", "molecule", ""]
    assert all(r["flags"] == "" and r["status"] == "ok" for r in table[:10])
    assert table[-1]["reason"] == "potential-unknown-element"
    assert list(table[0]) == list(columns(RelaxSettings(), False))
    assert not (serial / "t.csv.part").exists()


def test_workers_give_the_same_to_the_last_byte(serial, package, crystals, tmp_path):
    more = ["--potential", "emt", "--out", tmp_path / "t.csv", "--cifs", tmp_path / "c", "--workers", "2"]
    call(package, "relax", crystals, *more)
    assert (tmp_path / "t.csv").read_bytes() == (serial / "t.csv").read_bytes()
    names = sorted(p.name for p in (serial / "c").iterdir())
    assert len(names) >= 10 and names == sorted(p.name for p in (tmp_path / "c").iterdir())
    for name in names:
        assert (tmp_path / "c" / name).read_bytes() == (serial / "c" / name).read_bytes()


@pytest.mark.slow
def test_workers_give_the_same_numbers_with_the_network(tmp_path):
    """Bit for bit, whatever a process has computed before: six crystals of a SevenNet potential."""
    items = []
    for k, (a, b) in enumerate(
        [("Na", "Cl"), ("Mg", "O"), ("Nb", "C"), ("Ti", "N"), ("Cs", "I"), ("Al", "Ni")]
    ):
        s = Structure(Lattice.cubic(3.2 + 0.2 * (k % 3)), [a, b], [[0, 0, 0], [0.5, 0.5, 0.47]])
        items.append(Crystal(f"x{k}", s, "made"))
    settings = RelaxSettings(max_steps=4)
    from onnes.parallel import single_thread

    single_thread()
    alone = [row for row, _ in relax_all(items[::-1], settings)][::-1]
    shared = [row for row, _ in relax_all(items, settings, workers=2)]
    for one, two in zip(alone, shared, strict=True):
        assert json.dumps(one) == json.dumps(two)


DYING = """
def load():
    import os, signal
    from ase.calculators.emt import EMT
    class Dying(EMT):
        def calculate(self, atoms, *args, **kwargs):
            if len(atoms) == 12:
                os.kill(os.getpid(), signal.SIGKILL)
            super().calculate(atoms, *args, **kwargs)
    return Dying()
"""


@pytest.mark.timeout(900)
def test_a_killed_worker_fails_only_its_crystal(crystals, tmp_path):
    (tmp_path / "site").mkdir()
    folder = install(tmp_path / "site")
    (folder / "onnes_test_dying.py").write_text(DYING)
    points = folder / "onnes_test_potential-1.2.dist-info" / "entry_points.txt"
    points.write_text("[onnes.potentials]\ndying = onnes_test_dying:load\n")
    out = tmp_path / "t.csv"
    done = call(folder, "relax", crystals, "--potential", "dying", "--out", out, "--workers", "2")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    table = rows(out)
    assert len(table) == 13
    # The cells of twelve atoms.
    assert [r["id"] for r in table if r["reason"].startswith("worker-died")] == ["a2", "a5", "a8"]
    assert all(r["status"] == "ok" for r in table[:10] if r["id"] not in ("a2", "a5", "a8"))


SLOW = """
def load():
    import time
    from ase.calculators.emt import EMT
    class Slow(EMT):
        def calculate(self, *args, **kwargs):
            time.sleep(0.02)
            super().calculate(*args, **kwargs)
    return Slow()
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_and_resume_lose_nothing(crystals, tmp_path, workers):
    (tmp_path / "site").mkdir()
    folder = install(tmp_path / "site")
    (folder / "onnes_test_slow.py").write_text(SLOW)
    points = folder / "onnes_test_potential-1.2.dist-info" / "entry_points.txt"
    points.write_text("[onnes.potentials]\nslow = onnes_test_slow:load\n")
    out, journal = tmp_path / "t.csv", tmp_path / "t.csv.part"
    base = ["relax", crystals, "--potential", "slow", "--out", out, "--workers", str(workers)]
    command = [sys.executable, "-m", "onnes.cli.main", *map(str, base)]
    process = subprocess.Popen(command, env=environment(folder), stderr=subprocess.DEVNULL)
    limit = time.time() + 200
    while time.time() < limit and not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    lines = journal.read_bytes()
    kept = [json.loads(line) for line in lines.splitlines()[1:] if line.endswith(b"}")]
    assert len(kept) >= 3
    journal.write_bytes(lines + b'{"crystal": "torn')
    refused = call(folder, *base)
    assert refused.returncode == 2 and "unfinished-run" in refused.stderr
    other = call(folder, *base, "--resume", "--fmax", "0.01")
    assert other.returncode == 2 and "other-settings" in other.stderr
    done = call(folder, *base, "--resume")
    assert done.returncode == 1
    # Only what was missing was computed.
    computed = [line.split(":")[0] for line in done.stderr.splitlines() if ": ok" in line]
    assert not {entry["row"]["id"] for entry in kept if entry["row"]["status"] == "ok"} & set(computed)
    table = rows(out)
    assert [r["id"] for r in table][:10] == [f"a{k}" for k in range(10)] and not journal.exists()
    assert all(np.isfinite(float(r["energy_eV_atom"])) for r in table[:10])


def test_journal_forgets_a_death_and_keeps_the_rest(tmp_path):
    settings = RelaxSettings()
    key = run_key(settings, False)
    assert key != run_key(settings, True) != run_key(RelaxSettings("7net-l3i5"), True)
    one = Crystal("one", Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]]), "made")
    two = Crystal("two", one.structure, "made")
    journal = Journal(tmp_path / "t.csv", key, False)
    journal.add(one, {"id": "one", "status": "ok", "reason": "", "energy_eV_atom": 0.1 + 0.2})
    journal.add(two, {"id": "two", "status": "failed", "reason": "worker-died: killed"})
    journal.close(finished=False)
    again = Journal(tmp_path / "t.csv", key, True)
    assert again.rows == {
        crystal_key(one): {"id": "one", "status": "ok", "reason": "", "energy_eV_atom": 0.1 + 0.2}
    }
    again.close(finished=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot-write"):
        Journal(tmp_path / "file" / "t.csv", key, False)


def test_symmetrise_has_its_columns(package, crystals, tmp_path):
    out = tmp_path / "t.csv"
    options = [
        "--potential",
        "emt",
        "--symmetrise",
        "--dock",
        "--symmetry",
        "--pressure",
        "1",
        "--cifs",
        tmp_path / "c",
    ]
    call(package, "relax", crystals / "a0.cif", "--out", out, *options)
    (row,) = rows(out)
    assert row["status"] == "ok" and row["space_group_symmetrised"] == "221"
    assert float(row["symmetrise_cost_meV_atom"]) < 1.0 and row["docked_steps"] == "0"
    assert float(row["enthalpy_eV_atom"]) > float(row["energy_eV_atom"])
    assert int(row["start_space_group"]) == 1


def test_refused_inputs_keep_their_row_with_workers():
    items = [Refused("bad", "file", "overlapping-atoms", "too close", "NaCl")]
    ((row, structure),) = relax_all(items, RelaxSettings(), workers=2)
    assert (row["status"], row["reason"], structure) == ("refused", "overlapping-atoms", None)


def test_resume_needs_a_table(package, crystals):
    done = call(package, "relax", crystals, "--resume")
    assert done.returncode == 2 and "bad-setting" in done.stderr

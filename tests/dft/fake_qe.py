"""Stands in for pw.x, ph.x, q2r.x and matdyn.x: copies captured files, and can be told to go wrong once.

A file FAULT beside the programs holds ``{"step": "fault"}``; the fault happens at the step's next execution. Every
execution is written to the file CALLS beside the programs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures" / "al_222"
RELAX_FREE = {
    "relax": "relax/relax.out",
    "spin": "../ni/spin.out",
    "dense": "scf/dense.out",
    "scf": "scf/scf.out",
}


def step_of(here: Path, name: str) -> str:
    return here.name if name == "ph.in" else name.removesuffix(".in")


def fault_of(place: Path, step: str) -> str:
    file = place / "FAULT"
    if not file.exists():
        return ""
    faults = json.loads(file.read_text())
    fault = faults.pop(step, "")
    if fault:
        # In one stroke: other fake programs read the file at the same time.
        (place / "FAULT.new").write_text(json.dumps(faults))
        os.replace(place / "FAULT.new", file)
    return fault


def scf_files(here: Path, dense: bool, empty: bool) -> None:
    save = here / "tmp" / "onnes.save"
    save.mkdir(parents=True, exist_ok=True)
    xml = (FIXTURES / "scf" / "data-file-schema.xml").read_text()
    (save / "data-file-schema.xml").write_text(xml)
    (save / "charge-density.dat").write_bytes(b"x" * 50)
    for n, waves in enumerate(re.findall(r"<npw>(\d+)</npw>", xml), start=1):
        # Six bands; five Fortran records.
        size = 164 + 12 * int(waves) + 6 * (16 * int(waves) + 8)
        (save / f"wfc{n}.dat").write_bytes(b"" if empty else b"x" * size)
    if dense:
        (here / "tmp" / "onnes.a2Fsave").write_text(
            "" if empty else (FIXTURES / "scf" / "onnes.a2Fsave").read_text()
        )


def q_files(here: Path, step: str) -> None:
    assert (here / "tmp" / "onnes.a2Fsave").is_file(), "no scratch of the scf"
    source = FIXTURES / step
    shutil.copytree(source / "elph_dir", here / "elph_dir", dirs_exist_ok=True)
    for file in source.glob("onnes.dyn*"):
        shutil.copyfile(file, here / file.name)


def spectra_files(here: Path, step: str) -> None:
    assert len(list(here.glob("onnes.dyn?"))) == 4
    if step == "q2r":
        shutil.copyfile(FIXTURES / "bands" / "onnes.fc", here / "onnes.fc")
        for s in range(61, 71):
            (here / "elph_dir" / f"a2Fmatdyn.{s}").write_text("1 2 3\n")
    elif step == "bands":
        shutil.copyfile(FIXTURES / "bands" / "onnes.freq.gp", here / "onnes.freq.gp")
    else:
        for file in [
            *(FIXTURES / "bands").glob("a2F.dos*"),
            FIXTURES / "bands" / "lambda",
            FIXTURES / "bands" / "onnes.phdos",
        ]:
            shutil.copyfile(file, here / file.name)


def main(program: str, name: str) -> int:
    if os.environ.get("OMPI_COMM_WORLD_RANK", "0") != "0":
        return 0
    here, place = Path.cwd(), Path(os.environ["FAKE_QE"])
    step = step_of(here, name)
    with open(place / "CALLS", "a") as calls:
        calls.write(f"{step}\n")
    fault = fault_of(place, step)
    if (here / f"{step}.done.json").exists() or (here / "CRASH").exists():
        raise SystemExit("remains of an earlier attempt")
    source = FIXTURES / (
        RELAX_FREE.get(step) or (f"{step}/ph.out" if step.startswith("q0") else f"bands/{step}.out")
    )
    text = source.read_text(encoding="latin-1")
    if fault == "kill":
        sys.stdout.write(text[: len(text) // 2])
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        sys.stdout.write(text[: len(text) // 2])
        sys.stdout.flush()
        (place / "HANGING").write_text(str(os.getpid()))
        time.sleep(60)
    if fault == "truncated":
        text = text[: int(0.9 * len(text))]
    if fault == "not converged":
        text = text.replace("convergence has been achieved", "convergence NOT achieved").replace(
            "Convergence has been achieved", "No convergence has been achieved"
        )
    if fault == "no moment":
        text = re.sub(r"(absolute magnetization *= *)[\d.]+", r"\g<1>0.00", text)
    if fault == "crash":
        (here / "CRASH").write_text(
            "     from  cdiaghg  : error #   7\n      S matrix not positive definite\n"
        )
        return 1
    sys.stdout.write(text)
    if fault == "no files":
        return 0
    if step in ("dense", "scf"):
        scf_files(here, step == "dense", empty=fault == "empty files")
    elif step in ("relax", "spin"):
        (here / "tmp").mkdir(exist_ok=True)
    elif step.startswith("q0"):
        q_files(here, step)
    else:
        spectra_files(here, step)
    if fault == "insulator":
        xml = (FIXTURES.parent / "si" / "data-file-schema.xml").read_text()
        (here / "tmp" / "onnes.save" / "data-file-schema.xml").write_text(xml)
        for n in range(1, 9):
            (here / "tmp" / "onnes.save" / f"wfc{n}.dat").write_bytes(b"x" * 40000)
    # A program that failed and said it was done still exits with 0 or not, as QE does; nobody listens.
    return 3 if fault == "odd exit code" else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[-1]))

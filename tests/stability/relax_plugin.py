"""A package with potentials of its own, as pip leaves it behind, and calls of onnes that find it."""

from __future__ import annotations

import os
import subprocess
import sys

MODULE = """
def emt():
    from ase.calculators.emt import EMT
    return EMT()
emt.title = "Effective medium theory"
emt.citation = "K. W. Jacobsen et al., Surf. Sci. 366, 394 (1996)"
emt.elements = ["H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"]
emt.hash = "parameters-1"

def bare():
    return emt()

def half():
    from ase.calculators.emt import EMT
    class Half(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["stress"] = -self.results["stress"]
    return Half()
half.elements = emt.elements

def raising():
    raise OSError("no weights at home")

def nothing():
    return 3

number = 5
"""
POINTS = """
[onnes.potentials]
emt = onnes_test_potential:emt
bare = onnes_test_potential:bare
wrong-sign = onnes_test_potential:half
raising = onnes_test_potential:raising
nothing = onnes_test_potential:nothing
number = onnes_test_potential:number
absent = onnes_test_potential:absent
no-module = onnes_no_such_module:load
7net-0 = onnes_test_potential:emt
"""


def install(folder):
    """Write the package and what pip would record of it."""
    (folder / "onnes_test_potential.py").write_text(MODULE)
    info = folder / "onnes_test_potential-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnes-test-potential\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(POINTS)
    return folder


def environment(package):
    return {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}


def call(package, *arguments):
    command = [sys.executable, "-m", "onnes.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment(package))

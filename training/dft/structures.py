"""Write the crystals of the computed set as CIF: space group, lattice parameters, sites.

    python structures.py FOLDER

Lattice parameters are those of experiment at room temperature (W. B. Pearson's handbook values, as every textbook
gives them), rounded to 0.01 A: `onnes verify` relaxes them with PBEsol before anything else.
"""

import sys
from pathlib import Path

from pymatgen.core import Lattice, Structure

FCC = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
BCC = [(0, 0, 0), (0.5, 0.5, 0.5)]
SALT = [(x + 0.5, y, z) for x, y, z in FCC]

CRYSTALS = {
    "Al": (Lattice.cubic(4.05), {"Al": FCC}),
    "Cu": (Lattice.cubic(3.61), {"Cu": FCC}),
    "Pb": (Lattice.cubic(4.95), {"Pb": FCC}),
    "Nb": (Lattice.cubic(3.30), {"Nb": BCC}),
    "V": (Lattice.cubic(3.03), {"V": BCC}),
    "Ta": (Lattice.cubic(3.30), {"Ta": BCC}),
    "TiN": (Lattice.cubic(4.24), {"Ti": FCC, "N": SALT}),
    "NbC": (Lattice.cubic(4.47), {"Nb": FCC, "C": SALT}),
    "MgB2": (
        Lattice.hexagonal(3.09, 3.52),
        {"Mg": [(0, 0, 0)], "B": [(1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5)]},
    ),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (lattice, sites) in CRYSTALS.items():
        species = [element for element, places in sites.items() for _ in places]
        places = [place for several in sites.values() for place in several]
        structure = Structure(lattice, species, places)
        structure.to(filename=str(folder / f"{name}.cif"), symprec=0.001)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

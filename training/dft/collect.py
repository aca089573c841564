"""Gather the finished runs of the computed set: ``records.jsonl`` of every crystal and tier, and the table of the docs.

    python collect.py FOLDER OUT.jsonl

`compute.sh` leaves FOLDER/NAME/TIER/records.jsonl. Ids become NAME-TIER: the tiers of one crystal stand side by side.
Runs that are not finished are named and left out.
"""

import re
import sys
from pathlib import Path

from onnes.data.records import Record, read_records, write_records
from onnes.dft.ladder import TIERS_IN_ORDER

#: Measured Tc in K: N. W. Ashcroft and N. D. Mermin, Solid State Physics (1976), table 34.1, for the elements;
#: J. Nagamatsu et al., Nature 410, 63 (2001); A. M. Campbell in Handbook of Superconducting Materials for NbC.
MEASURED = {"Al": 1.18, "Pb": 7.19, "Cu": 0.0, "Nb": 9.25, "V": 5.4, "Ta": 4.48, "MgB2": 39.0, "NbC": 11.1}
#: JARVIS-SC (K. Choudhary and K. Garrity, npj Comput. Mater. 8, 244 (2022)): lambda, omega_log in K, of JVASP-816, 961,
#: 934, 14837, 1014, 1151, 19889; Cu is not in it.
JARVIS = {
    "Al": (0.393, 298.1),
    "Pb": (1.101, 63.1),
    "Nb": (0.774, 221.6),
    "V": (0.959, 260.2),
    "Ta": (0.757, 165.0),
    "MgB2": (0.696, 846.5),
    "NbC": (0.793, 338.4),
}


def main(folder: Path, out: Path) -> None:
    records: list[Record] = []
    for name in MEASURED:
        for tier in TIERS_IN_ORDER:
            file = folder / name / tier / "records.jsonl"
            if file.is_file():
                (record,) = read_records(file)
                records.append(record.model_copy(update={"id": f"{name}-{tier}"}))
            elif (folder / name / tier).is_dir():
                print(f"{name} {tier}: not finished", file=sys.stderr)
    write_records(out, records)
    names = [
        "crystal, tier",
        "q, k",
        "plateau, Ry",
        "lambda",
        "omega_log, K",
        "Tc AD, K",
        "Tc Eliashberg, K",
        "JARVIS",
        "measured Tc",
    ]
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for record in records:
        print(row(record))


def row(record: Record) -> str:
    name, tier = record.id.split("-")
    grids = record.meta["dft"]["grids"]
    cells = [f"{name}, {tier}", f"{grids['q'][0]}, {grids['k'][0]}"]
    if "lambda" in record.labels:
        low, high = record.meta["plateau"]["sigma_Ry"]
        solved = record.meta["eliashberg"]["tc_K"]
        cells += [
            f"{low:g} to {high:g}",
            f"{record.labels['lambda']:.3f}",
            f"{record.labels['omega_log_K']:.0f}",
            f"{record.labels['Tc_K']:.3g}",
            "not solved" if solved is None else f"{solved:.3g}",
        ]
    else:
        cells += [record.meta["verdict"], flattest(record), "", "", ""]
    stored = JARVIS.get(name)
    cells.append("not in it" if stored is None else f"{stored[0]:.3f}, {stored[1]:.0f} K")
    cells.append("none" if MEASURED[name] == 0.0 else f"{MEASURED[name]:g} K")
    return "| " + " | ".join(cells) + " |"


def flattest(record: Record) -> str:
    """What is known of lambda: the stretch that came nearest to a plateau, or the two values that disagree."""
    both = re.search(
        r"lambda is ([\d.]+) summed over the q-points, ([\d.]+) interpolated", record.meta["detail"]
    )
    if both:
        return f"{both[1]} summed, {both[2]} interpolated"
    found = re.search(r"flattest: (.+) Ry \((.+)\)", record.meta["detail"])
    return f"{found[1]} Ry" if found else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

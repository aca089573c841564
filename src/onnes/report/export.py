"""Candidates of a run as files other programs open, and what to cite for them."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.errors import CrystalError, InputError, SettingsError
from onnes.report.story import LedgerLike, Run, Story, read_run
from onnes.report.tables import candidate_rows
from onnes.report.words import finite

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

#: First line of every CIF written here; only files that begin with it are ever cleaned up.
CIF_MARK = "# onnes candidate"
_NOT_IN_METADATA = ("formula", "source")


def export(ledger: LedgerLike | Run, format: str, out: str | os.PathLike[str]) -> list[Path]:
    """Write the candidates of a run.

    Every file is written beside its place under a temporary name and then moved, so a file that exists
    is complete. The same ledger gives the same bytes (the ASE database alone carries its writing time).

    Parameters
    ----------
    ledger : Ledger
        Ledger of the run.
    format : str
        ``cif`` (a folder of files ``rank_formula_id.cif``), ``extxyz``, ``ase`` (SQLite database),
        ``csv``, ``parquet`` (needs pyarrow), ``optimade`` (JSON in the shape of an OPTIMADE ``/structures`` response)
        or ``bib`` (BibTeX of the methods and data the run used).
    out : path
        Folder for ``cif``, file for all others.

    Returns
    -------
    list of Path
        The files written, in order of rank; one file for all formats but ``cif``.

    Raises
    ------
    InputError
        ``unknown-format``, or ``cannot-write`` when the place cannot be written to.
    SettingsError
        ``missing-extra``: parquet without pyarrow.
    """
    if format not in FORMATS:
        raise InputError("unknown-format", f"unknown format {format!r}; use one of {', '.join(FORMATS)}")
    run = read_run(ledger)
    target = Path(out)
    try:
        return FORMATS[format](run, target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError("cannot-write", f"cannot write {target}: {reason}") from error


def write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary)`` and move the result to ``path``; nothing half-written is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".onnes-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; exports are ordinary ones
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return path


def write_text(path: Path, text: str) -> Path:
    """Write text (UTF-8, Unix line ends) atomically."""
    return write_atomic(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def structure_of(story: Story) -> Structure:
    """Return the pymatgen structure after the last stage that changed it.

    Raises
    ------
    CrystalError
        ``unknown-element``: pymatgen would write a symbol it does not know as a dummy atom.
    """
    from pymatgen.core import Element, Lattice, Structure

    data = story.structure
    unknown = sorted({str(s) for s in data["species"] if not Element.is_valid_symbol(str(s))})
    if unknown:
        raise CrystalError("unknown-element", f"{story.id} holds {', '.join(unknown)}, which is no element")
    return Structure(Lattice(data["lattice"]), data["species"], data["frac"])


def metadata(record: dict[str, Any]) -> dict[str, Any]:
    """Known values of a table row as plain Python numbers and text; unknown ones are left out."""
    known: dict[str, Any] = {}
    for key, value in record.items():
        if value is None or value != value or key in _NOT_IN_METADATA:
            continue
        if isinstance(value, bool | str):
            known[key] = value
        elif (number := finite(value)) is not None:
            known[key] = int(number) if float(number).is_integer() and "_K" not in key else number
    return known


def cif_text(story: Story, record: dict[str, Any]) -> str:
    """CIF of a candidate with its numbers as comments.

    The cell is written as it was relaxed, in P1; the space group found is a comment, because writing
    the symmetrised cell would move the atoms away from the relaxed positions.
    """
    from pymatgen.io.cif import CifWriter

    lines = [f"{CIF_MARK} {_ascii(record['id'])}"]
    lines += [
        f"# {key}: {_ascii(f'{value:.6g}' if isinstance(value, float) else value)}"
        for key, value in metadata(record).items()
        if key != "id"
    ]
    return "\n".join(lines) + "\n" + str(CifWriter(structure_of(story), significant_figures=6))


def cif_name(position: int, record: dict[str, Any]) -> str:
    """File name ``rank_formula_id.cif``; the position in the table stands in for a missing rank."""
    rank = int(record["rank"]) if finite(record["rank"]) is not None else position
    return f"{rank:03d}_{_safe(record['formula'])}_{_safe(record['id'])}.cif"


def records(run: Run) -> list[tuple[Story, dict[str, Any]]]:
    """Pair the story and table row of every final candidate, in order of rank."""
    frame = candidate_rows(run)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return list(zip(run.final, [{str(k): v for k, v in row.items()} for row in rows], strict=True))


def _export_cif(run: Run, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        write_text(folder / cif_name(position, record), cif_text(story, record))
        for position, (story, record) in enumerate(records(run), start=1)
    ]
    for path in sorted(set(folder.glob("*.cif")) - set(written)):
        # A ranking that changed leaves files of an earlier export; only our own files are removed.
        with open(path, "rb") as stream:
            ours = stream.read(len(CIF_MARK)) == CIF_MARK.encode()
        if ours:
            path.unlink()
    return written


def _export_extxyz(run: Run, path: Path) -> list[Path]:
    from ase.io import write

    images = [_atoms(story, _plain(metadata(record))) for story, record in records(run)]
    if not images:
        return [write_text(path, "")]
    return [write_atomic(path, lambda temporary: write(temporary, images, format="extxyz"))]


def _export_ase(run: Run, path: Path) -> list[Path]:
    import ase.db

    def fill(temporary: Path) -> None:
        temporary.unlink()  # ASE wants to create the database itself
        with ase.db.connect(temporary, type="db", use_lock_file=False) as database:
            for story, record in records(run):
                known = metadata(record)
                pairs = {_ase_key(k): v for k, v in _plain(known).items()}
                database.write(_atoms(story, {}), key_value_pairs=pairs, data=known)
            if not run.final:
                len(database)  # creates the tables, so that an empty database opens too

    return [write_atomic(path, fill)]


def _export_csv(run: Run, path: Path) -> list[Path]:
    return [
        write_text(path, candidate_rows(run).to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    ]


def _export_parquet(run: Run, path: Path) -> list[Path]:
    """The table of the csv with its types: whole numbers stay whole, unknown is null."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise SettingsError(
            "missing-extra", "parquet needs pyarrow: pip install 'onnes[parquet]', or use --format csv"
        ) from None
    frame = candidate_rows(run)
    for name in frame.columns:
        if frame[name].dtype == object:
            # A column without any value has no type of its own.
            frame[name] = frame[name].astype("boolean" if name == "in_domain" else "string")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return [write_atomic(path, lambda temporary: pq.write_table(table, temporary))]


def _export_bib(run: Run, path: Path) -> list[Path]:
    from onnes.report.citations import bibliography

    return [write_text(path, bibliography(run))]


def _export_optimade(run: Run, path: Path) -> list[Path]:
    entries = [optimade_entry(story, record, run.meta) for story, record in records(run)]
    document = {
        "data": entries,
        "meta": {
            "api_version": "1.2.0",
            "data_returned": len(entries),
            "data_available": len(entries),
            "more_data_available": False,
            "query": {"representation": "/structures"},
            "provider": {"name": "onnes", "prefix": "onnes", "description": "onnes discovery run"},
        },
    }
    return [write_text(path, json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n")]


def optimade_entry(story: Story, record: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    """One entry of an OPTIMADE (v1.2) ``/structures`` response; our own properties begin ``_onnes_``."""
    structure = structure_of(story)
    amounts = {str(k): int(v) for k, v in sorted(structure.composition.get_el_amt_dict().items())}
    reduced = structure.composition.get_integer_formula_and_factor()[1]
    counts = {name: round(amount / reduced) for name, amount in amounts.items()}
    attributes: dict[str, Any] = {
        "immutable_id": None,
        "last_modified": _time(meta),
        "elements": list(amounts),
        "nelements": len(amounts),
        "elements_ratios": [amount / len(structure) for amount in amounts.values()],
        "chemical_formula_descriptive": structure.composition.reduced_formula,
        "chemical_formula_reduced": "".join(f"{k}{n if n > 1 else ''}" for k, n in counts.items()),
        "chemical_formula_anonymous": _anonymous(list(counts.values())),
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": structure.lattice.matrix.round(8).tolist(),
        "cartesian_site_positions": structure.cart_coords.round(8).tolist(),
        "nsites": len(structure),
        "species_at_sites": [str(site.specie.symbol) for site in structure],
        "species": [{"name": name, "chemical_symbols": [name], "concentration": [1.0]} for name in amounts],
        "structure_features": [],
    }
    if (number := finite(record["space_group_number"])) is not None:
        attributes["space_group_it_number"] = int(number)
    own = {f"_onnes_{k.lower()}": v for k, v in metadata(record).items() if k not in ("id", "n_atoms")}
    return {"id": story.id, "type": "structures", "attributes": {**attributes, **own}}


def _atoms(story: Story, info: dict[str, Any]) -> Atoms:
    from ase import Atoms

    data = story.structure
    atoms = Atoms(data["species"], scaled_positions=data["frac"], cell=data["lattice"], pbc=True)
    atoms.info.update(info)
    return atoms


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values that ASE's untyped text formats read back as written.

    A text that looks like a number or a boolean (the id ``1e5``, the symbol ``F``) would come back as
    another type, and ASE's database refuses it; such texts are marked with a leading ``text:``.
    """
    return {k: f"text:{v}" if isinstance(v, str) and _ambiguous(v) else v for k, v in values.items()}


def _ambiguous(text: str) -> bool:
    if text in ("", "T", "F", "True", "False", "true", "false", "None"):
        return True
    for kind in (int, float):
        try:
            kind(text)
        except ValueError:
            continue
        return True
    return False


def _ase_key(key: str) -> str:
    return "candidate" if key == "id" else key  # "id" is the database's own row number


def _safe(text: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", str(text)).strip("-.")[:80] or "x"


def _ascii(value: Any) -> str:
    """One printable ASCII line: CIF allows nothing else in a comment."""
    return " ".join(str(value).split()).encode("ascii", "backslashreplace").decode("ascii")[:1000]


def _anonymous(counts: list[int]) -> str:
    """``A3B2C``: most frequent first, labelled A to Z, then Aa, Ba, ... (OPTIMADE 1.2)."""
    names = [chr(65 + i % 26) + ("" if i < 26 else chr(96 + i // 26)) for i in range(len(counts))]
    pairs = zip(names, sorted(counts, reverse=True), strict=True)
    return "".join(f"{name}{n if n > 1 else ''}" for name, n in pairs)


def _time(meta: dict[str, Any]) -> str | None:
    """When the run ended or, failing that, began, in RFC 3339; None when the ledger does not say."""
    import datetime

    for key in ("finished", "started", "created"):
        with suppress(TypeError, ValueError):
            moment = datetime.datetime.fromisoformat(str(meta[key])) if key in meta else None
            if moment is not None:
                moment = moment.astimezone(datetime.UTC) if moment.tzinfo else moment
                return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return None


FORMATS: dict[str, Callable[[Run, Path], list[Path]]] = {
    "cif": _export_cif,
    "extxyz": _export_extxyz,
    "ase": _export_ase,
    "csv": _export_csv,
    "parquet": _export_parquet,
    "bib": _export_bib,
    "optimade": _export_optimade,
}

"""``onnes data``: catalogue, downloads, imports, splits, duplicates and leaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from onnes.data.records import Records
    from onnes.data.transfer import Progress

app = typer.Typer(
    help="Data sets: list, fetch, import, split, check.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[str, typer.Option(help="What keeps records together: formula or fingerprint.")]


@app.command("list")
def list_sets(as_json: AsJson = False) -> None:
    """List the data sets that can be fetched, with licence and citation."""
    from onnes.data.catalog import CATALOG

    if as_json:
        _print_json([item.to_dict() for item in CATALOG.values()])
        return
    for item in CATALOG.values():
        lines = [
            item.name,
            item.title,
            f"licence {item.licence}; cite {item.citation}",
            item.page,
            item.format,
        ]
        typer.echo("\n    ".join(lines + [f"note: {item.how}"] * bool(item.how)))


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="Name from `onnes data list`.")],
    file: Annotated[str | None, typer.Option(help="Which file, where a set has several.")] = None,
    url: Annotated[str | None, typer.Option(help="Fetch from here instead.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256, instead of the catalogue's.")] = None,
    refresh: Annotated[bool, typer.Option(help="Download again and compare with the cached copy.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a data set into the cache, verified; prints where it is."""
    from onnes.data.catalog import data_set
    from onnes.data.fetch import fetch_set

    data = data_set(name)
    done = fetch_set(data, file, url=url, sha256=sha256, refresh=refresh, progress=_progress())
    if done.pinned:
        note = f"onnes: no checksum was given; {done.sha256} is pinned for this copy from now on"
        typer.echo(note, err=True)
    typer.echo(f"onnes: licence {data.licence}; cite {data.citation}", err=True)
    if as_json:
        _print_json({"path": str(done.path), "sha256": done.sha256, "status": done.status})
    else:
        typer.echo(str(done.path))


@app.command("import")
def import_data(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders of crystals.")],
    out: Annotated[Path, typer.Option(help="Records to write, .jsonl or .jsonl.gz.")],
    source: Annotated[str, typer.Option(help="Data set the labels come from; default: file name.")] = "",
    labels: Annotated[Path | None, typer.Option(help="csv of labels to join by id.")] = None,
    id_column: Annotated[str, typer.Option(help="Column of that csv with the ids.")] = "id",
    label: Annotated[list[str] | None, typer.Option(help="Take this field or column as a label too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn structure files, JSON sets and archives into one file of records."""
    from onnes.data.importers import import_paths
    from onnes.data.records import write_records

    _record_name(out)
    found = import_paths(paths, source=source, labels=labels, id_column=id_column, extra_labels=label or ())
    number = write_records(out, found.records)
    for line in [*found.notes, *found.bad]:
        typer.echo(f"onnes: {line}", err=True)
    if as_json:
        bad = [{"where": b.where, "code": b.code, "message": b.message} for b in found.bad]
        _print_json({"out": str(out), "records": number, "bad": bad})
    else:
        typer.echo(f"{number} records written to {out}, {len(found.bad)} inputs refused")
    if found.bad:
        raise typer.Exit(1)


@app.command("splits")
def splits(
    file: Annotated[Path, typer.Argument(help="Records, .jsonl or .jsonl.gz.")],
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Decides which group goes where.")] = 0,
    by: By = "formula",
    out: Annotated[Path | None, typer.Option(help="JSON to write; default: standard output.")] = None,
) -> None:
    """Cut records into folds without parting crystals that are alike."""
    import json

    from onnes.data.files import atomic_text
    from onnes.data.splits import fold_table

    records = _read(file)
    table = {"file": file.name, **fold_table(records, folds, seed=seed, by=by)}
    if out is None:
        _print_json(table)
    else:
        with atomic_text(out) as stream:
            stream.write(json.dumps(table, ensure_ascii=False, indent=1) + "\n")
        sizes = ", ".join(str(len(fold["test"])) for fold in table["folds"])
        typer.echo(f"{len(records)} records in {table['groups']} groups; test sizes {sizes}; {out}")
    if records.bad:
        raise typer.Exit(1)


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="Records (the test set when --against is given).")],
    against: Annotated[Path | None, typer.Option(help="Training set to look for leaks from.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit 1 when duplicates or leaks are found.")] = False,
    as_json: AsJson = False,
) -> None:
    """Report crystals that occur twice, and what a test set shares with its training set."""
    from onnes.data.twins import duplicates, leak_report

    records = _read(file)
    twins = duplicates(records)
    report: dict[str, Any] = {"file": str(file), "bad_rows": len(records.bad), "duplicates": twins.to_dict()}
    failed, found = bool(records.bad), bool(twins.pairs)
    if against is not None:
        train = _read(against)
        leaks = leak_report(train, records)
        report |= {"against": str(against), "leaks": leaks.to_dict()}
        failed, found = failed or bool(train.bad), found or not leaks.clean
    if as_json:
        _print_json(report)
    else:
        typer.echo("\n".join(_report_lines(report)))
    if failed or (strict and found):
        raise typer.Exit(1)


def _report_lines(report: dict[str, Any]) -> list[str]:
    twins = report["duplicates"]
    lines = [
        f"{report['file']}: {twins['n']} records, {report['bad_rows']} bad rows, "
        f"{len(twins['pairs'])} pairs of equal crystals ({twins['compared']} pairs compared, "
        f"{twins['not_compared']} not)"
    ]
    lines += [f"  {a} = {b}" for a, b in twins["pairs"]]
    if "leaks" in report:
        leaks = report["leaks"]
        lines.append(
            f"against {report['against']}: {len(leaks['leaked_test_ids'])} leaked records; shared are "
            f"{len(leaks['shared_ids'])} ids, {len(leaks['shared_formulas'])} formulas, "
            f"{len(leaks['shared_fingerprints'])} fingerprints, {len(leaks['equal_pairs'])} equal crystals"
        )
        lines += [f"  train {a} = test {b}" for a, b in leaks["equal_pairs"]]
    return lines


def _read(path: Path) -> Records:
    """Read records; one line on stderr for each bad row."""
    import warnings

    from onnes.data.records import read_records

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said below, row by row
        records = read_records(path)
    for bad in records.bad:
        typer.echo(f"onnes: {path} {bad}", err=True)
    return records


def _record_name(out: Path) -> None:
    from onnes.errors import InputError

    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError("bad-name", f"--out {out} must end in .jsonl or .jsonl.gz")


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False))


def _progress() -> Progress | None:
    """Draw a counter on a terminal, nothing in a pipe."""
    import sys

    if not sys.stderr.isatty():
        return None
    shown = -1

    def show(done: int, total: int | None) -> None:
        nonlocal shown
        if done >> 20 != shown or done == total:
            shown = done >> 20
            of = f" of {total / 1e6:.1f}" if total else ""
            end = "\n" if done == total else ""
            print(f"\r{done / 1e6:.1f}{of} MB", end=end, file=sys.stderr, flush=True)

    return show

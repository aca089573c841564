"""``onnes potential``."""

from __future__ import annotations

from typing import Any

import typer

NAME = typer.Argument(None, help="The potential to test; without it, all are listed.")
JSON = typer.Option(False, "--json", help="One JSON object instead of a table.")


def potential(name: str = NAME, as_json: bool = JSON) -> None:
    """List the interatomic potentials, or test one (invariances, forces and stress as slopes of the energy)."""
    if name is None:
        _list(as_json)
        return
    from onnes.stability.contract import contract
    from onnes.stability.potentials import calculator, elements, potential_hash
    from onnes.stability.potentials import potential as known

    chosen = known(name)
    checks = contract(calculator(name), elements(name))
    rows: list[dict[str, Any]] = [
        {
            "check": c.name,
            "measured": c.measured if c.measured == c.measured else None,
            "tolerance": c.tolerance,
            "unit": c.unit,
            "passed": c.passed,
            "words": c.words,
        }
        for c in checks
    ]
    failed = sum(not c.passed for c in checks)
    if as_json:
        import json

        about = {"potential": name, "title": chosen.title, "hash": potential_hash(name), "failed": failed}
        typer.echo(json.dumps({**about, "checks": rows}, indent=1))
    else:
        typer.echo(f"{name}: {chosen.title}; hash {potential_hash(name)}")
        for row in rows:
            measured = "-" if row["measured"] is None else f"{row['measured']:.2e}"
            verdict = "ok  " if row["passed"] else "FAIL"
            line = (
                f"{verdict} {row['check']:<16} {measured:>9} (at most {row['tolerance']:.1e} {row['unit']})"
            )
            typer.echo(f"{line}  {row['words']}")
        typer.echo(f"{len(rows) - failed} of {len(rows)} checks passed")
    if failed:
        raise typer.Exit(1)


def _list(as_json: bool) -> None:
    from onnes.stability.potentials import DEFAULT, available

    every = available()
    if as_json:
        import json

        keys = ("title", "citation", "kind")
        table = {each.name: {k: getattr(each, k) for k in keys} for each in every.values()}
        typer.echo(json.dumps(table, indent=1))
        return
    width = max(map(len, every))
    where = {"sevennet": "shipped", "chgnet": "extra", "entry-point": "plugin"}
    for each in every.values():
        mark = "*" if each.name == DEFAULT else " "
        typer.echo(f"{mark} {each.name:<{width}}  {where[each.kind]:<7}  {each.title}")
    typer.echo("(* is the default)")

"""The ``onnes`` command: registers one module a command group and turns typed errors into exit codes."""

from __future__ import annotations

import sys

import typer

import onnes.cli.campaign
import onnes.cli.data
import onnes.cli.discover
import onnes.cli.elastic
import onnes.cli.evaluate
import onnes.cli.generate
import onnes.cli.phonons
import onnes.cli.potential
import onnes.cli.predict
import onnes.cli.pseudo
import onnes.cli.relax
import onnes.cli.report
import onnes.cli.screen
import onnes.cli.spectrum
import onnes.cli.stability
import onnes.cli.tc
import onnes.cli.train
import onnes.cli.verify
from onnes.errors import OnnesError

app = typer.Typer(
    name="onnes",
    help="Find conventional (electron-phonon) superconductors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from onnes import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print version."),
) -> None:
    """Find conventional (electron-phonon) superconductors."""


app.command("discover")(onnes.cli.discover.discover)
app.command("elastic")(onnes.cli.elastic.elastic)
app.command("evaluate")(onnes.cli.evaluate.evaluate)
app.command("export")(onnes.cli.report.export)
app.command("generate")(onnes.cli.generate.generate)
app.command("phonons")(onnes.cli.phonons.phonons)
app.command("potential")(onnes.cli.potential.potential)
app.command("predict")(onnes.cli.predict.predict)
app.command("relax")(onnes.cli.relax.relax)
app.command("screen")(onnes.cli.screen.screen)
app.command("spectrum")(onnes.cli.spectrum.spectrum)
app.command("stability")(onnes.cli.stability.stability)
app.command("report")(onnes.cli.report.report)
app.command("tc")(onnes.cli.tc.tc)
app.command("train")(onnes.cli.train.train)
app.command("verify")(onnes.cli.verify.verify)
app.add_typer(onnes.cli.campaign.app, name="campaign")
app.add_typer(onnes.cli.data.app, name="data")
app.add_typer(onnes.cli.pseudo.app, name="pseudo")


def main() -> None:
    """Run the command line; exit 2 with one line on stderr for a typed error."""
    try:
        app()
    except OnnesError as error:
        print(f"onnes: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

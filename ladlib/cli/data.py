"""Commands about datasets: data toy, data check, data download; data sft and review are in a module of their own."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ladlib.cli.options import Json, answer
from ladlib.errors import UserError

TOY_EXAMPLES = "Examples:\n\n  ladlib data toy --out toy-datasets\n\n  ladlib data toy --out few --profile smoke"
CHECK_EXAMPLES = (
    "Examples:\n\n  ladlib data check /data/anomaly"
    "\n\n  ladlib data check /data/anomaly --decode"
    "\n\n  ladlib data check /data/anomaly --json"
)
DOWNLOAD_EXAMPLES = (
    "Examples:\n\n  ladlib data download visa --out /data/anomaly"
    "\n\n  ladlib data download mvtec-loco --out /data/anomaly --accept-licence"
)

app = typer.Typer(
    no_args_is_help=True,
    help="Draw the toy datasets; download the real ones, or check a folder of them; build the data of stage 1.",
)


class Downloadable(StrEnum):
    """The datasets that can be downloaded, as they are typed."""

    MVTEC_AD = "mvtec-ad"
    VISA = "visa"
    MVTEC_LOCO = "mvtec-loco"
    MMAD = "mmad"


@app.command(epilog=TOY_EXAMPLES)
def toy(
    out: Annotated[Path, typer.Option(help="Folder to draw into.")],
    profile: Annotated[str, typer.Option(help="Profile that says how many images.")] = "toy",
) -> None:
    """Draw the four toy datasets in the layouts of the real ones."""
    from ladlib.config import load_profile
    from ladlib.toy.datasets import write_datasets

    sizes = load_profile(profile).data.toy
    if sizes is None:
        raise UserError(f"Profile {profile!r} has no toy datasets.", "Use --profile toy or smoke.")
    write_datasets(out, sizes)
    typer.echo(f"Written: {out}")


@app.command(epilog=CHECK_EXAMPLES)
def check(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset, or the folder that holds several.")],
    decode: Annotated[bool, typer.Option("--decode", help="Decode all of every image (slow).")] = False,
    as_json: Json = False,
) -> None:
    """Hold datasets against their published layout and counts; exit 1 if something is wrong or missing."""
    from ladlib.data.check import check as find

    findings = find(root, decode)
    errors = sum(one.severity == "error" for one in findings)
    warnings = sum(one.severity == "warning" for one in findings)
    if as_json:
        answer({"errors": errors, "warnings": warnings, "findings": [one.model_dump() for one in findings]})
    else:
        shown = findings[:1] if findings and findings[0].dataset == "toy" else findings  # the first says it all
        _show([(one.severity, one.dataset, one.category, one.message, one.hint) for one in shown])
        typer.echo(f"\n{errors} errors, {warnings} warnings")
    raise typer.Exit(1 if errors else 0)


@app.command(epilog=DOWNLOAD_EXAMPLES)
def download(
    dataset: Annotated[Downloadable, typer.Argument(help="What to download.")],
    out: Annotated[Path, typer.Option(help="Folder that holds the datasets.")],
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="The licence is read and accepted.")] = False,
) -> None:
    """Download and unpack a dataset, checked by its SHA-256; finished files are used again."""
    from ladlib.data import download as downloads

    name = dataset.value.replace("-", "_")
    source = downloads.read_sources()[name]
    typer.echo(downloads.licence_text(source))
    if not accept_licence and not (sys.stdin.isatty() and typer.confirm("Do you accept this licence?")):
        raise UserError(
            f"The licence of {source.title} was not accepted, nothing was fetched.",
            f"Read {source.licence_url}, then add --accept-licence.",
        )
    folder = downloads.download(name, source, out)
    typer.echo(f"Ready: {folder}\nCheck it: ladlib data check {shlex.quote(str(folder))}")


def _show(rows: list[tuple[str, ...]]) -> None:
    """A table on a terminal; elsewhere one line each, since a pipe has no width and is searched."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            typer.echo("  ".join(cell for cell in row if cell))
        return
    table = Table("", "dataset", "category", "found", "hint", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)

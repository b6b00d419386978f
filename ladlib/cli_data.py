"""The commands ``ladlib data``: the toy datasets, the real ones, and the conversations of stage 1.

Options that other commands have too are defined here.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ladlib.errors import UserError


def examples(*commands: str) -> str:
    return "\n\n".join(["Examples:", *(f"  ladlib {command}" for command in commands)])


def _profiles(incomplete: str) -> list[str]:
    """What the shell may complete ``incomplete`` to; a YAML file is typed out."""
    from ladlib.config import PROFILES

    return [name for name in PROFILES if name.startswith(incomplete)]


Option, Argument = typer.Option, typer.Argument
Profile = Annotated[str, Option(help="smoke, toy, small, paper, or a YAML file.", autocompletion=_profiles)]
Data = Annotated[str, Option(help="Folder that holds the datasets. Toy profiles draw their own.")]
Seed = Annotated[int, Option(help="Seed of data order, sampling and training.")]
Out = Annotated[Path, Option(help="File or folder to write.")]
Json = Annotated[bool, Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Print nothing but what goes wrong, on standard error.")]

app = typer.Typer(
    no_args_is_help=True,
    help="Draw the toy datasets; download the real ones, or check a folder of them; build the data of stage 1.",
)


def print_json(record: dict) -> None:
    """``record`` as one line of JSON. It is ASCII: nothing in it can steer a terminal."""
    typer.echo(json.dumps(record))


@app.command(epilog=examples("data toy --out toy-datasets", "data toy --out few --profile smoke"))
def toy(out: Out, profile: Profile = "toy") -> None:
    """Draw the four toy datasets in the layouts of the real ones."""
    from ladlib.config import load_profile
    from ladlib.toy.datasets import write_datasets

    sizes = load_profile(profile).toy
    if sizes is None:
        raise UserError(f"Profile {profile!r} has no toy datasets.", "Use --profile toy or smoke.")
    write_datasets(out, sizes)
    typer.echo(f"Written: {out}")


@app.command(epilog=examples("data check /data/anomaly", "data check /data/anomaly --json"))
def check(
    root: Annotated[Path, Argument(metavar="DIR", help="A dataset, or the folder that holds several.")],
    as_json: Json = False,
) -> None:
    """Check datasets against their published layout and counts; exit 1 if something is wrong or missing."""
    from ladlib.data.check import check as find

    findings = find(root)
    severities = [finding.severity for finding in findings]
    errors, warnings = severities.count("error"), severities.count("warning")
    if as_json:
        print_json({"errors": errors, "warnings": warnings, "findings": [each.model_dump() for each in findings]})
    else:
        for each in findings[:1] if findings and findings[0].dataset == "toy" else findings:  # the first says it all
            typer.echo("  ".join(filter(None, (each.severity, each.dataset, each.category, each.message, each.hint))))
        typer.echo(f"\n{errors} errors, {warnings} warnings")
    raise typer.Exit(1 if errors else 0)


@app.command(epilog=examples("data download visa --out DIR", "data download mvtec-loco --out DIR --accept-licence"))
def download(
    dataset: Annotated[Literal["mvtec-ad", "visa", "mvtec-loco", "mmad"], Argument(metavar="DATASET")],
    out: Out,
    accept_licence: Annotated[bool, Option("--accept-licence", help="The licence is read and accepted.")] = False,
) -> None:
    """Download and unpack a dataset, checked by its SHA-256; finished files are used again."""
    from ladlib.data import download as downloads

    name = dataset.replace("-", "_")
    source = downloads.read_sources()[name]
    typer.echo(downloads.licence_text(source))
    if not accept_licence and not (sys.stdin.isatty() and typer.confirm("Do you accept this licence?")):
        what = f"The licence of {source['title']} was not accepted, nothing was fetched."
        raise UserError(what, f"Read {source['licence_url']}, then add --accept-licence.")
    folder = downloads.download(name, source, out)
    typer.echo(f"Ready: {folder}\nCheck it: ladlib data check {shlex.quote(str(folder))}")


@app.command(
    epilog=examples(
        "data sft --data DIR --out sft.csv",
        "data sft --data DIR --out sft.csv --endpoint http://localhost:8000/v1 --model NAME",
    )
)
def sft(
    data: Annotated[Path, Option(help="Folder that holds MVTec AD, VisA and MMAD.")],
    out: Out,
    profile: Profile = "paper",
    seed: Seed = 0,
    endpoint: Annotated[str, Option(help="OpenAI-compatible server that writes them, up to /v1.")] = "",
    model: Annotated[str, Option(help="Name that its model is served under.")] = "",
) -> None:
    """Build the conversations of stage 1 from MMAD's annotations, as a CSV file to review and to train on.

    Train on it with data.sft_file in a profile. With --endpoint, a model merges the annotations with what it sees. Its
    replies are kept beside the file, in sft-replies.jsonl, and none is asked for twice. Its key comes from the
    environment: LADLIB_API_KEY or OPENAI_API_KEY.
    """
    from ladlib.config import load_profile
    from ladlib.data import find_dataset
    from ladlib.runs import check_seed
    from ladlib.sft_data import make_conversations, write_sft_file
    from ladlib.sft_writer import write

    check_seed(seed)
    find_dataset(data, "mmad")  # where it is missing, one line and no warnings
    if bool(endpoint) != bool(model):
        raise UserError("--endpoint and --model belong together.", "Give both, or none.")
    if out.exists() or out.is_symlink():  # it may be somebody's review
        raise UserError(f"{out} exists.", "Name another file, or move it away.")
    values = {"endpoint.url": endpoint, "endpoint.model": model} if endpoint else {}
    settings = load_profile(profile, **values, **{"data.sft_file": None})
    made = make_conversations(settings, data, seed)
    # The replies are of all files in this folder: a file of another name costs nothing again.
    conversations = write(settings, data, made, out.parent / "sft-replies.jsonl") if endpoint else made
    write_sft_file(out, conversations, writer=model or "template")
    typer.echo(f"Written: {out}: {len(conversations)} of {len(made)} conversations")
    typer.echo("To review: fill its column decision in any spreadsheet: accept, edit (change the texts) or reject.")

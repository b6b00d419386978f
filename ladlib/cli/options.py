"""Options that more than one command has, and how a script is answered."""

import json
from typing import Annotated

import typer


def profile_names(incomplete: str) -> list[str]:
    """What the shell may complete ``incomplete`` to, as a profile; a YAML file is typed out."""
    from ladlib.config import PROFILES

    return [name for name in PROFILES if name.startswith(incomplete)]


Profile = Annotated[str, typer.Option(help="smoke, toy, small, paper, or a YAML file.", autocompletion=profile_names)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what goes wrong, on standard error.")]


def answer(record: dict) -> None:
    """``record`` as one line of JSON. It is ASCII: nothing in it can steer a terminal."""
    typer.echo(json.dumps(record))

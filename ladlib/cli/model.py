"""Commands about models: inspect, pretrain."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ladlib.cli.options import Json, answer
from ladlib.errors import UserError
from ladlib.sanitize import strip_control

INSPECT_EXAMPLES = (
    "Examples:\n\n  ladlib inspect normal.png test.png"
    "\n\n  ladlib inspect normal.png test.png --model results/runs/toy/checkpoints/sft_grpo-seed0 --json"
)
PRETRAIN_EXAMPLES = "Examples:\n\n  ladlib pretrain base\n\n  ladlib pretrain large --out results/runs/pretrain-large"


class ToyModel(StrEnum):
    """The toy models that can be made."""

    BASE = "base"
    LARGE = "large"


def inspect(
    reference: Annotated[Path, typer.Argument(help="A normal image.")],
    test: Annotated[Path, typer.Argument(help="The image to judge.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder. Default: the latest trained one.")] = "",
    as_json: Json = False,
    profile: Annotated[str, typer.Option(help="Profile that says how large images are seen.")] = "toy",
) -> None:
    """Judge TEST against REFERENCE: yes or no (anomalous), P(anomalous) and the rationale."""
    for image in (reference, test):
        if not image.is_file():
            raise UserError(f"There is no image {image}.", "Check the path.")
    from ladlib import evaluate
    from ladlib.config import load_profile

    settings = load_profile(profile)
    model = model or default_model(settings.name, settings.model.base)
    verdict = asdict(evaluate.inspect(reference, test, model, settings)) | {"model": model}
    if as_json:
        answer(verdict)
    else:
        typer.echo(readable(verdict))


def default_model(profile: str, base: str) -> str:
    """The newest checkpoint after GRPO of the profile's default run folder, else the base model."""
    from ladlib.runs import RUNS, find_root

    trained = (find_root(Path.cwd()) / RUNS / profile / "checkpoints").glob("sft_grpo-seed*")
    newest = max(trained, key=lambda folder: folder.stat().st_mtime, default=None)
    return str(newest) if newest else base


def readable(verdict: dict) -> str:
    """The verdict as a few lines of text."""
    words = {"yes": "anomalous", "no": "normal", None: "no answer that can be read"}
    return "\n".join(
        [
            f"{words[verdict['answer']]}, P(anomalous) = {verdict['p_yes']:.2f}",
            "",
            strip_control(verdict["text"].strip()),
            "",
            f"{verdict['seconds']:.1f} s with {verdict['model']}",
        ]
    )


def pretrain(
    name: Annotated[ToyModel, typer.Argument(help="Which toy model to make.")],
    out: Annotated[Path | None, typer.Option(help="Where to train. Default: results/runs/pretrain-NAME.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Make a toy model: base from nothing, large grown from base; goes on where an earlier call stopped."""
    from ladlib.toy import pretrain as recipe

    shipped = recipe.pretrain(name.value, out or Path("results/runs", f"pretrain-{name.value}"), device)
    typer.echo(f"Written: {shipped}")

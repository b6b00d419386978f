"""The command study: the toy experiment with its arms and seeds."""

from typing import Annotated

import typer

from ladlib.cli.options import Quiet
from ladlib.errors import UserError

STUDY_EXAMPLES = (
    "Examples:\n\n  ladlib study"
    "\n\n  ladlib study --arms base,sft,sft_grpo --seeds 0"
    "\n\n  ladlib study --run results/runs/study-2 --jobs 4"
    "\n\n  ladlib study --quiet"
)


def study(
    arms: Annotated[str, typer.Option(help="Names, separated by commas. Default: all.")] = "",
    seeds: Annotated[str, typer.Option(help="Whole numbers, separated by commas; of trained arms.")] = "0,1,2",
    run: Annotated[str, typer.Option(help="Run folder. Default: results/runs/study.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Stages that run side by side and share the cores.")] = 2,
    profile: Annotated[str, typer.Option(help="toy, smoke, or a YAML file with toy datasets.")] = "toy",
    quiet: Quiet = False,
) -> None:
    """Train and judge every arm on the toy datasets, check the rationales, write tables and figures.

    Goes on where an earlier call stopped; a stage is skipped while its inputs have not changed.
    """
    names = tuple(name.strip() for name in arms.split(",") if name.strip())
    numbers = read_seeds(seeds)
    from ladlib.study import study as run_study

    failed = run_study(profile, names, numbers, run, jobs, _nothing if quiet else typer.echo)
    if failed and quiet:
        typer.echo(f"Failed or left out: {', '.join(failed)}. The run's logs/ say why.", err=True)
    raise typer.Exit(1 if failed else 0)


def _nothing(_: str) -> None:
    """What a quiet study says."""


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds in "0,1,2", each once. Raises :class:`UserError` for anything but whole numbers from 0 up."""
    from ladlib.runs import check_seed

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds {text!r} are not whole numbers.", "For example: --seeds 0,1,2")
    numbers = tuple(dict.fromkeys(int(part) for part in parts))
    for number in numbers:
        check_seed(number)
    return numbers

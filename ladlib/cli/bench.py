"""The commands bench: how much faster than the stock library, measured on this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from ladlib.cli.options import Profile

if TYPE_CHECKING:
    from ladlib.notebook import Session

app = typer.Typer(no_args_is_help=True, help="Time what is faster here against the stock library, on the same work.")

EVAL_EXAMPLES = (
    "Examples:\n\n  ladlib bench eval"
    "\n\n  ladlib bench eval --batches 0 --repeats 5"
    "\n\n  ladlib bench eval --profile small --data DATA --batches 4"
)
GRPO_EXAMPLES = "Examples:\n\n  ladlib bench grpo\n\n  ladlib bench grpo --group 16 --steps 4 --repeats 5"

Data = Annotated[str, typer.Option(help="Folder with the datasets. Default: the profile's toy datasets, drawn once.")]
Model = Annotated[str, typer.Option(help="Checkpoint folder. Default: the profile's base.")]
Repeats = Annotated[int, typer.Option(min=1, help="How often each way is timed; the median counts.")]


@app.command("grpo", epilog=GRPO_EXAMPLES)
def policy(
    profile: Profile = "toy",
    data: Data = "",
    repeats: Repeats = 3,
    model: Model = "",
    group: Annotated[int, typer.Option(min=0, help="Completions a prompt. 0 = the profile's.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each timing.")] = 2,
) -> None:
    """Take GRPO steps with one reading of what a group has in common, and with TRL's trainer as it is.

    The last line is a JSON object: `ratio` in seconds, `ratio_flops` in arithmetic, `peak_mib`.
    """
    from ladlib.bench.grpo import bench

    session = _prepared(profile, data)
    bench(session.profile, session.data, repeats, steps, group, model)


@app.command("eval", epilog=EVAL_EXAMPLES)
def evaluation(
    profile: Profile = "toy",
    data: Data = "",
    repeats: Repeats = 3,
    model: Model = "",
    batches: Annotated[int, typer.Option(min=0, help="Of the evaluation's batches, spread evenly; 0 = all.")] = 5,
) -> None:
    """Judge test pairs with what they share computed once, by plain generate in padded batches, and one at a time.

    The last line is a JSON object: `ratio` against padded batches, `ratio_one_by_one` against one pair at a time.
    """
    from ladlib.bench.evaluation import bench

    session = _prepared(profile, data)
    bench(session.profile, session.data, repeats, model, batches)


def _prepared(profile: str, data: str) -> "Session":
    """The profile and its datasets, drawn into the benchmark's own run folder where none are given."""
    from ladlib.config import load_profile
    from ladlib.notebook import start
    from ladlib.runs import RUNS

    return start(profile, data, f"{RUNS}/bench-{load_profile(profile).name}")

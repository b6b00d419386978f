"""Commands about runs: reproduce, report, doctor."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ladlib.cli.options import Json, Profile, Quiet, answer
from ladlib.errors import UserError

if TYPE_CHECKING:
    from ladlib.runs import RunFolder

Data = Annotated[str, typer.Option(help="Folder that holds the datasets. Toy profiles draw their own.")]
Run = Annotated[str, typer.Option(help="Run folder. Default: the latest, or the released one.")]

REPRODUCE_EXAMPLES = (
    "Examples:\n\n  ladlib reproduce"
    "\n\n  ladlib reproduce --profile paper --data /data/anomaly --run results/runs/paper-1"
    "\n\n  ladlib reproduce --from 03 -p grpo_steps=120 -p grpo_learning_rate=1e-4"
    "\n\n  ladlib reproduce --only 05"
    "\n\n  ladlib reproduce --profile paper --dry-run"
    "\n\n  ladlib reproduce --quiet && ladlib verify results/runs/toy --json"
)
REPORT_EXAMPLES = "Examples:\n\n  ladlib report\n\n  ladlib report --run results/runs/paper-1 --data /data/anomaly"
DOCTOR_EXAMPLES = (
    "Examples:\n\n  ladlib doctor"
    "\n\n  ladlib doctor --profile paper --data /data/anomaly"
    "\n\n  ladlib doctor --profile small --json"
)


def reproduce(
    profile: Profile = "toy",
    data: Data = "",
    run: Annotated[str, typer.Option(help="Run folder. Default: results/runs/<profile>.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of data order, sampling and training.")] = 0,
    start: Annotated[str, typer.Option("--from", metavar="NN", help="Run this stage and all later ones again.")] = "",
    only: Annotated[str, typer.Option("--only", metavar="NN", help="Run this stage alone, again.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Run all stages again.")] = False,
    parameter: Annotated[
        list[str], typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A notebook parameter.")
    ] = [],  # noqa: B006 - typer reads it, nothing changes it
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what the cells print.")] = False,
    quiet: Quiet = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan with steps, memory and hours; run nothing.")
    ] = False,
    time_limit: Annotated[
        float | None, typer.Option(min=0.1, metavar="MINUTES", help="Stop a notebook that takes longer.")
    ] = None,
) -> None:
    """Run the notebooks 01-05; a stage is skipped while its inputs have not changed."""
    if quiet and (verbose or dry_run):
        raise UserError(
            f"--quiet and {'--verbose' if verbose else '--dry-run'} exclude each other.", "Give one of them."
        )
    from rich.console import Console

    from ladlib import pipeline

    pipeline.reproduce(
        profile, data, run, seed, start, only, force, parameter, Console(highlight=False, quiet=quiet), verbose,
        dry_run=dry_run, minutes=time_limit,
    )  # fmt: skip


def report(
    run: Run = "",
    data: Annotated[
        str, typer.Option(help="Folder of the datasets, for the pictures. Default: where the run found them.")
    ] = "",
) -> None:
    """Write metrics, tables, figures and report.html again from a run's stored answers. Loads no model."""
    from ladlib.pipeline.run import closing
    from ladlib.report import write_report
    from ladlib.report.stored import read_run, refuse_doubles
    from ladlib.runs import RunFolder, locked
    from ladlib.verify import verify

    folder = RunFolder(run) if run else latest_run()
    refuse_doubles(read_run(folder).generations)  # what is damaged is said before anything is drawn
    with locked(folder.root), _images(folder, data) as images:
        write_report(folder, images, hold=verify)
    typer.echo(closing(folder))


@contextmanager
def _images(run: "RunFolder", data: str) -> Iterator[Path | None]:
    """Where the judged images are: in ``data``, or drawn for as long as they are needed where a toy run lacks them."""
    from ladlib.report.stored import profile_of
    from ladlib.toy.datasets import write_loco

    record = run.read()
    toy = profile_of(record).data.toy
    if data and not Path(data).is_dir():
        raise UserError(f"There is no folder {data}.", "Give the folder that holds the datasets with --data.")
    if data or toy is None or record.parameters.get("data") or run.data.exists():
        yield Path(data) if data else None
        return
    with TemporaryDirectory() as drawn:
        write_loco(Path(drawn), toy)
        yield Path(drawn)


def latest_run() -> "RunFolder":
    """The run worked on last below results/runs, or a copy of the released one where there is none."""
    from ladlib.runs import RELEASED, RUNS, RunFolder, find_root

    runs = find_root(Path.cwd()) / RUNS
    released, copy = RELEASED / "toy", runs / "released-toy"
    found = [path for path in runs.glob("*/run.json") if path.parent != copy]
    if found:
        return RunFolder(max(found, key=lambda path: path.stat().st_mtime).parent)
    if not released.is_dir():
        raise UserError(f"There is no run in {runs}.", "Run `ladlib reproduce` first, or give one with --run.")
    shutil.rmtree(copy, ignore_errors=True)  # an older release may lie there
    shutil.copytree(released, copy)
    return RunFolder(copy)


def doctor(
    profile: Profile = "toy",
    data: Data = "",
    price: Annotated[
        float | None, typer.Option(min=0, help="US dollars an hour of one GPU. Default: an assumed one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether this machine can run a profile, what is missing, and what it will take."""
    from ladlib.doctor import examine
    from ladlib.hours import PRICE

    diagnosis = examine(profile, data, PRICE if price is None else price)
    if as_json:
        answer(diagnosis.model_dump() | {"can_run": diagnosis.can_run})
    else:
        lines = (f"{check.verdict:<7} {check.subject}: {check.found}" for check in diagnosis.checks)
        typer.echo("\n".join([*lines, *diagnosis.plan, "", diagnosis.summary]))
    raise typer.Exit(0 if diagnosis.can_run else 1)

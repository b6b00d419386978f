"""The command line. Heavy imports live inside the commands, so that ``--help`` answers at once."""

import errno
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.core import TyperGroup

from ladlib import __version__, cli_data
from ladlib.cli_data import Argument, Data, Json, Option, Profile, Quiet, Seed, examples, print_json
from ladlib.errors import UserError
from ladlib.runs import RELEASED, RUNS, RunFolder, from_root, locked
from ladlib.sanitize import escape_terminal, strip_control

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ANSWERS = {"yes": "anomalous", "no": "normal", None: "no answer that can be read"}
PAPER_RUN = "--profile paper --data /data/anomaly"


class Commands(TyperGroup):
    """Prints what a user can correct in one line and exits with 2; prints a failed stage and exits with 1."""

    def invoke(self, ctx: typer.Context) -> object:
        from ladlib.runner import StageFailed

        try:
            return super().invoke(ctx)
        except UserError as error:
            code, message = 2, escape_terminal(str(error))
        except OSError as error:
            if not error.filename and error.errno not in FULL:
                raise
            hint = "Check the path and its permissions, or name another folder."
            if error.errno in FULL:
                hint = "The disk is full: make room and run the same command again, what is done is kept."
            code, message = 2, escape_terminal(f"{error.filename or 'A file'}: {error.strerror}. {hint}")
        except StageFailed as error:
            code, message = 1, f"\n{error}"
        except KeyboardInterrupt:
            code, message = 130, "\nStopped. What is done is kept: the same command goes on from there."
        typer.echo(message, err=True)
        raise typer.Exit(code)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # no frames in a pipe or a file
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ladlib {__version__}")
        raise typer.Exit()


@app.callback(epilog=examples("reproduce", "inspect normal.png test.png", "doctor --profile paper"))
def ladlib(
    version: Annotated[bool, Option("--version", callback=_print_version, is_eager=True, help="The version.")] = False,
) -> None:
    """LAD-Reasoner (arXiv 2504.12749): judge a test image against a normal one, with a rationale."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # an ASCII terminal


@app.command(epilog=examples("reproduce", f"reproduce {PAPER_RUN} --dry-run", "reproduce --from 03 -p grpo_steps=9"))
def reproduce(
    profile: Profile = "toy",
    data: Data = "",
    run: Annotated[str, Option(help="Run folder. Default: results/runs/<profile>.")] = "",
    seed: Seed = 0,
    start: Annotated[str, Option("--from", metavar="NN", help="Run this stage and all later ones again.")] = "",
    only: Annotated[str, Option("--only", metavar="NN", help="Run this stage alone, again.")] = "",
    force: Annotated[bool, Option("--force", help="Run all stages again.")] = False,
    parameter: Annotated[
        list[str] | None, Option("--parameter", "-p", metavar="NAME=VALUE", help="Of a notebook.")
    ] = None,
    verbose: Annotated[bool, Option("--verbose", help="Show what the cells print.")] = False,
    quiet: Quiet = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan with steps and memory; run nothing.")] = False,
    time_limit: Annotated[float | None, Option(min=0.1, metavar="MINUTES", help="For each notebook.")] = None,
) -> None:
    """Run the notebooks 01-05; a stage is skipped while its inputs have not changed."""
    from rich.console import Console

    from ladlib import pipeline

    console = Console(highlight=False, quiet=quiet)
    options = {"start": start, "only": only, "force": force, "parameters": parameter or (), "verbose": verbose}
    pipeline.reproduce(profile, data, run, seed, **options, console=console, dry_run=dry_run, minutes=time_limit)


@app.command(epilog=examples("verify results/runs/toy", "verify results/released/toy --json"))
def verify(
    run: Annotated[Path, Argument(metavar="RUN_DIR", help="A run folder, or a released copy of one.")],
    as_json: Json = False,
) -> None:
    """Check a run against its checksums, its texts, the released study and the claims; exit 1 if a check fails."""
    from ladlib.verify import verify as check_run

    claims = check_run(RunFolder(run))
    verdicts = [claim.verdict for claim in claims]
    counts = {verdict: verdicts.count(verdict) for verdict in ("passed", "failed", "skipped")}
    if as_json:
        print_json({"run": str(run), **counts, "claims": [claim.model_dump() for claim in claims]})
    else:
        summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        typer.echo("\n".join([*(claim.line for claim in claims), "", f"{sum(counts.values())} checks: {summary}"]))
    raise typer.Exit(1 if counts["failed"] else 0)


@app.command(epilog=examples("inspect normal.png test.png", "inspect normal.png test.png --model DIR --json"))
def inspect(
    reference: Annotated[str, Argument(help="A normal image.")],
    test: Annotated[str, Argument(help="The image to judge.")],
    model: Annotated[str, Option(help="Checkpoint folder. Default: that of results/runs/<profile>, or the base.")] = "",
    as_json: Json = False,
    profile: Annotated[str, Option(help="Profile that says how large images are seen. Default: the model's own.")] = "",
) -> None:
    """Judge TEST against REFERENCE: yes or no (anomalous), P(anomalous) and the rationale."""
    from ladlib.config import load_profile

    settings = load_profile(profile or "toy")
    for place, image in (("first", reference), ("second", test)):
        if not Path(image).is_file():
            what = f"There is no image {image}." if image else f"The {place} path is empty."
            raise UserError(what, "Check the path.")
    from ladlib import evaluate
    from ladlib.models import own_band

    trained = RunFolder(from_root(f"{RUNS}/{settings.name}")).checkpoint("sft_grpo", 0)
    model = model or (str(trained) if trained.is_dir() else settings.model.base)
    band = own_band(model, settings.data)
    if profile and band != settings.data:
        typer.echo(f"{model} was made for images of other sizes than profile {profile} shows.", err=True)
    settings = settings if profile else settings.model_copy(update={"data": band})
    verdict = evaluate.inspect(Path(reference), Path(test), model, settings)
    if as_json:
        print_json(asdict(verdict) | {"model": model})
    else:
        typer.echo(f"{ANSWERS[verdict.answer]}, P(anomalous) = {verdict.p_yes:.2f}\n")
        typer.echo(f"{strip_control(verdict.text.strip())}\n\n{verdict.seconds:.1f} s with {model}")


@app.command(epilog=examples("doctor", f"doctor {PAPER_RUN}", "doctor --profile small --json"))
def doctor(profile: Profile = "toy", data: Data = "", as_json: Json = False) -> None:
    """Say whether this machine can run a profile, what is missing, and what it will take."""
    from ladlib.doctor import examine

    diagnosis = examine(profile, data)
    if as_json:
        print_json(asdict(diagnosis) | {"can_run": diagnosis.can_run})
    else:
        lines = (f"{check.verdict:<7} {check.subject}: {check.found}" for check in diagnosis.checks)
        verb = "can" if diagnosis.can_run else "cannot"
        summary = f"This machine {verb} run profile {diagnosis.profile!r}."
        typer.echo("\n".join([*lines, *diagnosis.plan, "", summary]))
    raise typer.Exit(0 if diagnosis.can_run else 1)


@app.command(epilog=examples("bench grpo", "bench eval --repeats 5", "bench eval --profile small --data DIR"))
def bench(
    what: Annotated[Literal["grpo", "eval"], Argument(metavar="grpo|eval", help="What to time.")],
    profile: Profile = "toy",
    data: Data = "",
    repeats: Annotated[int, Option(min=1, help="How often each way is timed; the median counts.")] = 3,
    model: Annotated[str, Option(help="Checkpoint folder. Default: the profile's base.")] = "",
    steps: Annotated[int, Option(min=1, help="Optimizer steps, or batches of answers, of each timing.")] = 2,
) -> None:
    """Time this project's GRPO steps or answers against the stock library, on the same work in the same run.

    The last line is a JSON object; its `ratio` is stock seconds / our seconds.
    """
    from ladlib.bench import evaluation, grpo
    from ladlib.config import load_profile
    from ladlib.notebook import start

    session = start(profile, data, f"{RUNS}/bench-{load_profile(profile).name}")
    if what == "grpo":
        grpo(session.profile, session.data, repeats, steps, model)
    else:
        evaluation(session.profile, session.data, repeats, model, steps)


@app.command(epilog=examples("pretrain base", "pretrain large --out results/runs/pretrain-large"))
def pretrain(
    name: Annotated[Literal["base", "large"], Argument(metavar="base|large", help="Which toy model to make.")],
    out: Annotated[Path | None, Option(help="Where to train. Default: results/runs/pretrain-NAME.")] = None,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Make a toy model: base from nothing, large grown from base; goes on where an earlier call stopped."""
    from ladlib.toy import pretrain as recipe

    written = recipe.pretrain(name, out or Path("results/runs", f"pretrain-{name}"), device)
    typer.echo(f"Written: {written}")


@app.command(epilog=examples("study", "study --arms base,sft,sft_grpo --seeds 0", "study --jobs 4 --quiet"))
def study(
    arms: Annotated[str, Option(help="Names, separated by commas. Default: all.")] = "",
    seeds: Annotated[str, Option(help="Integers, separated by commas; of trained arms.")] = "0,1,2",
    run: Annotated[str, Option(help="Run folder. Default: results/runs/study.")] = "",
    jobs: Annotated[int, Option(min=1, help="Stages that run side by side and share the cores.")] = 2,
    profile: Profile = "toy",
    quiet: Quiet = False,
) -> None:
    """Train and judge every arm on the toy datasets, check the rationales, write tables and figures.

    Goes on where an earlier call stopped; a stage is skipped while its inputs have not changed.
    """
    from ladlib.study import study as run_study

    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise UserError(f"--seeds {seeds!r} are not whole numbers.", "For example: --seeds 0,1,2")
    numbers = tuple(dict.fromkeys(map(int, seeds.split(","))))
    names = tuple(name.strip() for name in arms.split(",") if name.strip())
    if arms and not names:
        raise UserError(f"--arms {arms!r} names no arm.", "For example: --arms base,sft_grpo")
    failed = run_study(profile, names, numbers, run, jobs, (lambda line: None) if quiet else typer.echo)
    if failed and quiet:
        typer.echo(f"Failed or left out: {', '.join(failed)}. The run's logs/ say why.", err=True)
    raise typer.Exit(1 if failed else 0)


@app.command(epilog=examples("report", "report --run results/runs/paper-1"))
def report(
    run: Annotated[str, Option(help="Run folder. Default: results/runs/toy, or the released one.")] = "",
) -> None:
    """Write metrics, tables, figures and report.html again from a run's stored answers. Loads no model."""
    from ladlib import checksums
    from ladlib.pipeline import closing
    from ladlib.report.page import write_report, write_study
    from ladlib.results import READ, load_answers, refuse_doubles
    from ladlib.verify import verify as check_run

    own = RunFolder(from_root(f"{RUNS}/toy"))
    folder = RunFolder(run) if run else own if own.run_json.exists() else RunFolder(RELEASED / "toy")
    if folder.root.resolve().parent == RELEASED.resolve():
        folder = _copy(folder)
    folder.read()  # what is no run or damaged is said before anything is drawn
    answers, images = load_answers(folder), folder.root / "images"  # drawn for a copy
    refuse_doubles(answers)
    for line in checksums.verify(folder, *map(folder.root.joinpath, READ)):
        typer.echo(f"{line}. The report shows it as it is now.", err=True)
    with locked(folder.root):
        if answers.groupby("arm")["seed"].nunique().max() > 1:
            write_study(folder)
        write_report(folder, images if images.is_dir() else None, check=check_run)
    typer.echo(closing(folder))


@app.command(epilog=examples("export results/runs/toy lad-reasoner"))
def export(
    source: Annotated[str, Argument(metavar="RUN", help="A run folder (its sft_grpo), or the folder of a checkpoint.")],
    out: Annotated[Path, Argument(metavar="OUT", help="Folder to write.")],
) -> None:
    """Write the trained model, merged, as plain transformers loads it, with a model card."""
    from ladlib.export import export as write

    typer.echo(f"Written: {write(source, out)}")


def _copy(released: RunFolder) -> RunFolder:
    """A new copy below results/runs, its images drawn: nothing changes a released run."""
    from ladlib.results import profile_of
    from ladlib.toy.datasets import write_loco

    copy, record = from_root(f"{RUNS}/released-{released.root.name}"), released.read()
    sizes = profile_of(released, record).toy
    RunFolder(copy).check(record.profile, record.seed)
    shutil.rmtree(copy, ignore_errors=True)  # an older release may lie there
    run = RunFolder(shutil.copytree(released.root, copy))
    if sizes:
        write_loco(run.root / "images", sizes)
    return run

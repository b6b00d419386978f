"""Runs the stages in order, each where its inputs changed or where it is asked for."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from ladlib.config import PROFILES, Profile, load_profile
from ladlib.data import FOLDERS, find_dataset
from ladlib.errors import UserError
from ladlib.pipeline.dry import dry_run as plan
from ladlib.pipeline.job import Job
from ladlib.pipeline.parameters import check
from ladlib.pipeline.stages import STAGES, Stage, find_stage, notebooks_folder
from ladlib.runs import RUNS, RunFolder, check_seed, find_root, locked


def reproduce(
    profile: str = "toy",
    data: str = "",
    run: str = "",
    seed: int = 0,
    start: str = "",
    only: str = "",
    force: bool = False,
    parameters: Iterable[str] = (),
    console: Console | None = None,
    verbose: bool = False,
    notebooks: Path | None = None,
    stages: tuple[Stage, ...] = STAGES,
    dry_run: bool = False,
    minutes: float | None = None,
) -> RunFolder:
    """Run the notebooks into ``run`` (default: the checkout's results/runs/<profile>) and return that folder.

    A stage is skipped while its inputs are the recorded ones and its outputs exist. ``start`` runs that
    stage and all later ones again, ``only`` that one alone, ``force`` all of them. ``parameters`` are
    ``name=value`` texts. Everything is checked before the first stage starts; with ``dry_run`` the plan is
    told and nothing more is done, for which real datasets may be absent. No notebook may take more than ``minutes``.
    Raises :class:`UserError`, also where another process is at work in the folder, or :class:`StageFailed` where a
    cell fails.
    """
    settings = load_profile(profile)
    check_seed(seed)
    files = {stage.name: stage.notebook(notebooks or notebooks_folder()) for stage in stages}
    values = check(parameters, files)
    chosen, again = _choose(stages, start, only, force)
    if data or not dry_run:
        _check_data(settings, data)
    folder = RunFolder((Path(run) if run else find_root(Path.cwd()) / RUNS / settings.name).resolve())
    if folder.run_json.exists():
        folder.check(settings.name, seed)
    console = console or Console()
    with nullcontext() if dry_run else locked(folder.root):
        options = {
            "profile": profile if profile in PROFILES else _absolute(profile),
            "data": _absolute(data),
            "run": str(folder.root),
            "seed": seed,
        }
        job = Job(settings, folder, data, seed, values, options, files, console, verbose, minutes)
        if dry_run:
            _tell_plan(job, stages, chosen, again)
            return folder
        _run(job, stages, chosen, again)
    if stages[-1] in chosen:
        console.print(closing(folder), markup=False, highlight=False, soft_wrap=True)
    return folder


def _tell_plan(job: Job, stages: tuple[Stage, ...], chosen: tuple[Stage, ...], again: bool) -> None:
    job.check_folder(())
    for line in plan(job, stages, chosen, again):
        job.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _run(job: Job, stages: tuple[Stage, ...], chosen: tuple[Stage, ...], again: bool) -> None:
    job.check_folder(stages[: stages.index(chosen[0])])
    job.check_room()
    upstream: dict[str, str] = {}
    for stage in stages:
        if stage in chosen:
            job.run_or_skip(stage, upstream, again)
        upstream[stage.name] = job.outputs_sha256(stage)


def closing(folder: RunFolder) -> str:
    """The comparison table of a finished run, and where everything is."""
    from ladlib.report.tables import comparison_text  # pandas is loaded only where it is needed

    return "\n".join(["", comparison_text(folder).rstrip(), "", folder.locations()])


def _choose(stages: tuple[Stage, ...], start: str, only: str, force: bool) -> tuple[tuple[Stage, ...], bool]:
    """The stages to look at, and whether they run even where nothing changed."""
    if start and only:
        raise UserError("--from and --only exclude each other.", "Give one of them.")
    if only:
        return (find_stage(only, stages),), True
    if start:
        return stages[stages.index(find_stage(start, stages)) :], True
    return stages, force


def _check_data(settings: Profile, data: str) -> None:
    if settings.data.sft_file and not Path(settings.data.sft_file).is_file():
        raise UserError(f"There is no file {settings.data.sft_file}, the profile's data.sft_file.", "Correct its path.")
    if not data:
        if settings.data.toy is None:
            raise UserError(
                f"Profile {settings.name!r} needs datasets.", "Give the folder that holds them with --data."
            )
        return
    root = Path(data)
    if not root.is_dir():
        raise UserError(f"There is no folder {data}.", "Give the folder that holds the datasets with --data.")
    for name in FOLDERS:
        try:
            find_dataset(root, name)
            return
        except UserError:
            continue
    raise UserError(f"{data} holds none of {', '.join(FOLDERS.values())}.", "Unpack the datasets there.")


def _absolute(path: str) -> str:
    """Notebooks may run in another folder, so files and folders that are named reach them absolute."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path

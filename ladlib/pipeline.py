"""The five notebooks as one run: everything is checked before the first starts, and what is unchanged is skipped.

    folder = reproduce("smoke", run="results/runs/smoke")

What a notebook depends on, beside what :mod:`ladlib.runner` counts: its code, its parameters with the contents of files
that they name, the profile, the weights it starts from, and the names and sizes of the dataset files.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from ladlib import batch, doctor
from ladlib.batch import OPTIONS, Scalar
from ladlib.checksums import sha256
from ladlib.config import PROFILES, Profile, load_profile
from ladlib.data.layout import FOLDERS, is_dataset
from ladlib.errors import UserError
from ladlib.families import MODEL_FILES, check_family, find_config
from ladlib.notebook import UNSET
from ladlib.runner import PACKAGE, Runner, Stage, digest
from ladlib.runs import RUNS, RunFolder, check_seed, from_root, locked

ONLY_LARGE = {"endpoint": True, "evaluate": {"large"}, "model": {"large"}}  # what no stage but the last depends on
FIELDS = {
    "model": "model.base", "eval_limit": "evaluate.limit", "sensitivity_pairs": "evaluate.variants",
    "large_endpoint": "endpoint.url", "large_model": "endpoint.model", "large_label": "endpoint.label",
    "large_replay": "",
}  # fmt: skip  # notebook parameters whose names are not section_field
STAGES = (
    Stage("01_data_exploration", ("data",)),
    Stage("02_sft", ("checkpoints/sft-seed{seed}", "logs/sft-seed{seed}.jsonl", "manifests/sft-seed{seed}.csv")),
    Stage(
        "03_grpo",
        ("checkpoints/sft_grpo-seed{seed}", "logs/sft_grpo-seed{seed}.jsonl",
         "logs/sft_grpo-seed{seed}-rollouts.jsonl", "manifests/sft_grpo-seed{seed}.csv",
         "samples/sft-seed{seed}.jsonl"),
    ),
    Stage(
        "04_evaluation",
        ("generations/base-seed{seed}.jsonl", "generations/sft-seed{seed}.jsonl",
         "generations/sft_grpo-seed{seed}.jsonl", "sensitivity/sft_grpo-seed{seed}.jsonl",
         "rationales/base-seed{seed}.jsonl", "rationales/sft-seed{seed}.jsonl", "rationales/sft_grpo-seed{seed}.jsonl",
         "baselines/neighbours.jsonl"),
    ),
    Stage("05_compare_72b", ("metrics.json", "tables", "figures", "report.html"), reports=True,
          kept=("generations/large-seed{seed}.jsonl",)),
)  # fmt: skip


def reproduce(
    profile: str = "toy", data: str = "", run: str = "", seed: int = 0, start: str = "", only: str = "",
    force: bool = False, parameters: Iterable[str] = (), console: Console | None = None, verbose: bool = False,
    notebooks: Path | None = None, stages: tuple[Stage, ...] = STAGES, dry_run: bool = False,
    minutes: float | None = None,
) -> RunFolder:  # fmt: skip
    """The run folder (default: results/runs/<profile>) after the notebooks have run in it.

    ``start`` runs that stage and all later ones again, ``only`` that one alone, ``force`` all of them. ``parameters``
    are ``name=value`` texts. With ``dry_run`` the plan is printed and nothing more is done, for which real datasets may
    be absent. No notebook may take more than ``minutes``. Raises :class:`UserError` before anything runs for what
    cannot run, also where another process is at work in the folder, or :class:`StageFailed` where a cell fails.
    """
    settings = load_profile(profile)
    check_seed(seed)
    if config := find_config(settings.model.base):
        check_family(config)
    if settings.sft.trl or settings.grpo.trl:
        from ladlib.training import check_trl_options  # loads torch

        check_trl_options(settings)
    files = {stage.name: (notebooks or notebooks_folder()) / f"{stage.name}.ipynb" for stage in stages}
    values = batch.check(parameters, files)
    selected = _choose(stages, start, only)
    if data or not dry_run:
        _check_data(settings, data)
    folder = RunFolder((Path(run) if run else from_root(f"{RUNS}/{settings.name}")).resolve())
    if not folder.check(settings.name, seed) and not dry_run:
        _check_disk(settings.name, folder.root)
    console = console or Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    places = {"profile": profile if profile in PROFILES else _absolute(profile), "data": _absolute(data)}
    places |= {"run": str(folder.root), "seed": seed}
    output = {"console": console, "verbose": verbose, "minutes": minutes}
    with nullcontext() if dry_run else locked(folder.root):
        planned: list[Stage] = []
        for stage in stages:
            own = {name: places.get(name, value) for name, value in values[stage.name].items()}
            planned.append(_planned(stage, files[stage.name], own, folder, settings, planned, output))
        runner = Runner(planned, folder, settings.name, seed, say, again=bool(start or only or force))
        chosen = planned[selected]
        if missing := [stage.name for stage in planned[: selected.start] if not runner.finished(stage)]:
            raise UserError(f"{missing[0]} has not been run in {folder.root}.", "Leave out --from and --only.")
        if dry_run:
            say("\n".join(_plan(runner, chosen, effective(profile, values))))
            return folder
        runner.finish(chosen)
    if planned[-1] in chosen:
        say(closing(folder))
    return folder


def closing(folder: RunFolder) -> str:
    """The comparison table of a finished run, and where everything is."""
    from ladlib.report.tables import comparison_text  # pandas is loaded only where it is needed

    return "\n".join(["", comparison_text(folder).rstrip(), "", folder.locations()])


def notebooks_folder() -> Path:
    """Where the notebooks lie: beside the package in a checkout, inside it when installed from a wheel."""
    installed, checkout = PACKAGE / "notebooks", PACKAGE.parent / "notebooks"
    return installed if installed.is_dir() else checkout


def effective(profile: str, values: Mapping[str, Mapping[str, Scalar]]) -> Profile:
    """The profile with the notebooks' parameters applied, as the notebooks themselves apply them."""
    overrides = {}
    for name, value in (item for parameters in values.values() for item in parameters.items()):
        field = FIELDS.get(name, name.replace("_", ".", 1))
        if field and name not in OPTIONS and value not in UNSET:
            overrides[field] = value
    return load_profile(profile, **overrides)


def _check_disk(profile: str, folder: Path) -> None:
    """Raise :class:`UserError` where a whole run (profiles/cost.yaml) does not fit on the disk of ``folder``."""
    cost = doctor.load_cost(profile)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / doctor.GIB
    if cost and free < cost.disk_gib:
        what = f"A run of profile {profile} takes {cost.disk_gib:g} GiB, and the disk of {folder} has {free:.1f} left."
        raise UserError(what, "Make room, or give a folder on another disk with --run.")


def depends_on(notebook: Path, parameters: Mapping[str, Scalar], profile: Profile, reports: bool = False) -> dict:
    """What a stage depends on beside the code of the package and earlier stages, as JSON.

    The endpoint and the large model count where the stage ``reports``. Of files that are named the contents count.
    """
    named = {name: from_root(value) for name, value in parameters.items() if isinstance(value, str) and value}
    named |= {"data.sft_file": Path(profile.data.sft_file or "")}
    omitted = {"data": {"sft_file"}} | ({} if reports else ONLY_LARGE)
    models = [parameters.get("model") or profile.model.base, *([profile.model.large] if reports else [])]
    return {
        "notebook": "\n".join(cell["source"] for cell in batch.cells(notebook) if cell["cell_type"] == "code"),
        "parameters": {name: parameters[name] for name in parameters if name not in ("run", "data", "profile")},
        "files": {name: sha256(path) for name, path in named.items() if name not in OPTIONS and path.is_file()},
        "profile": profile.model_dump(exclude=omitted),
        "weights": [weights_sha256(name) for name in models],
        "data": _fingerprint(Path(parameters["data"])) if parameters.get("data") else "",
    }


def weights_sha256(name: str) -> str:
    """Hash of the files that make up a shipped model or a model folder; "" where there are none, as for a hub id."""
    folder = next((path for path in (PACKAGE / "assets" / name, Path(name)) if path.is_dir()), Path(name))
    files = [file for pattern in MODEL_FILES for file in folder.glob(pattern)]
    return digest(folder, files) if files else ""


def _planned(
    stage: Stage, notebook: Path, parameters: Mapping[str, Scalar], folder: RunFolder, profile: Profile,
    earlier: Iterable[Stage], output: Mapping[str, object],
) -> Stage:  # fmt: skip
    """``stage`` with all that the runner needs."""
    copy = folder.notebooks / notebook.name
    return replace(
        stage,
        is_notebook=True,
        outputs=(*(path.format(seed=parameters["seed"]) for path in stage.outputs), f"notebooks/{copy.name}"),
        kept=tuple(path.format(seed=parameters["seed"]) for path in stage.kept),
        work=batch.execute,
        options={"notebook": notebook, "copy": copy, "parameters": parameters, **output},
        after=tuple(other.name for other in earlier),
        values=depends_on(notebook, parameters, profile, stage.reports),
    )


def _plan(runner: Runner, chosen: Iterable[Stage], profile: Profile) -> Iterator[str]:
    """The lines of a dry run: each stage and what it does by the profile's counts, then memory."""
    yield f"Profile {profile.name!r}: {profile.label}. Dry run: nothing is run, loaded or written."
    yield f"Run folder {runner.folder.root}"
    runs, work = False, doctor.plan_lines(profile)
    for stage in chosen:
        runs = runs or not runner.unchanged(stage)  # a stage that runs changes what later ones depend on
        verdict = "would run" if runs else "unchanged, would be skipped"
        yield f"[{stage.name}] {verdict}: {work.get(stage.name[:2], '')}"
    yield from doctor.memory_lines(profile)


def _choose(stages: tuple[Stage, ...], start: str, only: str) -> slice:
    """The stages to look at. ``start`` and ``only`` name one by its number (``3``, ``03``) or name (``03_grpo``)."""
    if start and only:
        raise UserError("--from and --only exclude each other.", "Give one of them.")
    names, wanted = [stage.name for stage in stages], only or start
    matches = [number for number, name in enumerate(names) if wanted in (name, name[:2], name[1:2])]
    if wanted and not matches:
        raise UserError(f"There is no stage {wanted!r}.", f"Use one of {', '.join(names)}.")
    first = matches[0] if wanted else 0
    return slice(first, first + 1 if only else None)


def _check_data(settings: Profile, data: str) -> None:
    if settings.data.sft_file and not Path(settings.data.sft_file).is_file():
        raise UserError(f"There is no file {settings.data.sft_file}, the profile's data.sft_file.", "Correct its path.")
    if not data and settings.toy is None:
        raise UserError(f"Profile {settings.name!r} needs datasets.", "Give the folder that holds them with --data.")
    if data and not Path(data).is_dir():
        raise UserError(f"There is no folder {data}.", "Give the folder that holds the datasets with --data.")
    folders = [Path(data, name).is_dir() or is_dataset(Path(data), key) for key, name in FOLDERS.items()]
    if data and not any(folders):
        raise UserError(f"{data} holds none of {', '.join(FOLDERS.values())}.", "Unpack the datasets there.")


def _fingerprint(data: Path) -> str:
    """Names and sizes of the files of the datasets below ``data``: contents would take minutes to read."""
    folders = [data / name for name in FOLDERS.values() if (data / name).is_dir()] or [data]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    sizes = "".join(f"{path.relative_to(data).as_posix()}\0{path.stat().st_size}\n" for path in files)
    return hashlib.sha256(sizes.encode(errors="surrogateescape")).hexdigest()


def _absolute(path: str) -> str:
    """Notebooks may run in another folder, so files and folders that are named reach them absolute."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path

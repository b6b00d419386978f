"""The toy experiment with all its arms and seeds: resumable, each stage in a fresh process.

>>> study(arms=("base", "sft_grpo"), seeds=(0,), run="results/runs/study")  # doctest: +SKIP
()
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.runs import RUNS, RunFolder, find_root, locked
from ladlib.study.arms import find_arms
from ladlib.study.plan import UNTRAINED_SEED, Plan, weight_files
from ladlib.study.runner import Runner

__all__ = ["study"]


def study(
    profile: str = "toy", arms: Sequence[str] = (), seeds: Sequence[int] = (0, 1, 2), run: str = "", jobs: int = 2,
    say: Callable[[str], None] = print,
) -> tuple[str, ...]:  # fmt: skip
    """Train, judge and check ``arms`` (all where none is named) into ``run`` (default: results/runs/study).

    Runs ``jobs`` stages side by side, none whose inputs are unchanged. Returns the names of the stages that
    failed or could not begin, () where all went well. Raises :class:`UserError` before anything runs for an
    unknown arm or profile, a profile without toy datasets, a base that is not there, another run's folder, or one where
    another process is at work.
    """
    settings, chosen = load_profile(profile), find_arms(arms)
    if settings.data.toy is None:
        raise UserError(f"Profile {profile!r} has no toy datasets.", "Use --profile toy or smoke.")
    if not weight_files(settings.model.base):
        raise UserError(f"The model {settings.model.base} is not there.", "Build it with `ladlib pretrain base`.")
    if not weight_files(settings.model.large) and any(arm.start == "large" for arm in chosen):
        say(f"[large] left out: {settings.model.large} is not there")
        chosen = tuple(arm for arm in chosen if arm.start != "large")
    folder = RunFolder((Path(run) if run else find_root(Path.cwd()) / RUNS / "study").resolve())
    with locked(folder.root):
        folder.open(settings.name, UNTRAINED_SEED)
        lost = Runner(Plan(settings, folder, chosen, tuple(seeds)).stages(), folder, jobs, say).finish()
    say(
        f"\n{len(lost)} stages are missing; run the same command again once mended."
        if lost
        else f"\n{folder.locations()}"
    )
    return lost

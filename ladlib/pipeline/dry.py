"""A run without running: which stages would run, on what, and what that will need. Writes nothing, loads no model.

>>> effective("paper", {"03_grpo": {"grpo_steps": 20}}).grpo.steps
20
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ladlib.config import Profile, load_profile
from ladlib.errors import UserError
from ladlib.memory import is_calculated
from ladlib.notebook import UNSET
from ladlib.pipeline.job import Job, measured_seconds
from ladlib.pipeline.parameters import OPTIONS, Scalar
from ladlib.pipeline.progress import clock
from ladlib.pipeline.stages import Stage
from ladlib.plan import advice_lines, hours_lines, memory_lines, nearest_gpu, stage_lines
from ladlib.sft_data import balanced_pairs, make_conversations

NO_DATA = "the profile and the published counts, since no datasets are given"
FIELDS = {"model": "model.base", "eval_limit": "evaluate.limit", "sensitivity_pairs": "evaluate.sensitivity"}
"""Notebook parameters whose names are not section_field."""


def dry_run(job: Job, stages: tuple[Stage, ...], chosen: tuple[Stage, ...], again: bool) -> Iterator[str]:
    """The plan's lines: each stage, then memory, hours and what to change where they are calculated."""
    profile = effective(str(job.options["profile"]), job.values)
    conversations, pairs, source = _counts(profile, job)
    yield f"Profile {profile.name!r}: {profile.label}. Dry run: nothing is run, loaded or written."
    yield f"Run folder {job.folder.root}; counts from {source}."
    does = stage_lines(profile, conversations, pairs)
    upstream: dict[str, str] = {}
    changed = ""  # the first stage that would run
    for stage in stages:
        if stage in chosen:
            skipped = job.is_skipped(stage, upstream, again)
            yield f"[{stage.name}] {_verdict(skipped, changed)}: {_does(stage, does, profile)}"
            changed = changed or ("" if skipped else stage.name)
        upstream[stage.name] = job.outputs_sha256(stage)
    if is_calculated(profile):
        yield from ("", *memory_lines(profile), "", *hours_lines(profile, nearest_gpu(profile)))
        yield from ("", *advice_lines(profile))


def effective(profile: str, values: Mapping[str, Mapping[str, Scalar]]) -> Profile:
    """The profile with the notebooks' parameters applied, as the notebooks themselves apply them."""
    given = {name: value for each in values.values() for name, value in each.items() if name not in OPTIONS}
    changed = {_field(name): value for name, value in given.items() if value not in UNSET}
    return load_profile(profile, **changed)


def _field(parameter: str) -> str:
    return FIELDS.get(parameter, parameter.replace("_", ".", 1))


def _verdict(skipped: bool, changed: str) -> str:
    if skipped and changed:
        return f"would run where {changed} changes its outputs"
    return "unchanged, would be skipped" if skipped else "would run"


def _does(stage: Stage, does: Mapping[str, str], profile: Profile) -> str:
    seconds = measured_seconds(profile.name, stage.name)
    took = f"; took {clock(seconds)} where it was measured" if seconds else ""
    return does.get(stage.number, "") + took


def _counts(profile: Profile, job: Job) -> tuple[int, int, str]:
    """Conversations, pairs, and where the numbers are from."""
    root = job.data or (job.folder.data if profile.data.toy and job.folder.data.is_dir() else "")
    if not root:
        return 0, 0, "the profile, since its datasets are not drawn yet" if profile.data.toy else NO_DATA
    try:
        conversations = make_conversations(profile, Path(root), job.seed)
        pairs = balanced_pairs(profile, Path(root), job.seed)
    except UserError as error:
        return 0, 0, f"the profile, since {error.what}"
    return len(conversations), len(pairs), f"the datasets in {root}"

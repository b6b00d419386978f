"""A toy run held against the released study: inside the band that the study's seeds span, widened by a tolerance.

The measures are balanced accuracy, AUROC and the share of well-formed completions on good + logical images,
pooled. Two cases:

1. *Shared images.* Where the study keeps its generations, both are cut to the images they share (same id and
   same bytes of test and reference image; a run may judge a fixed part of the study's). Only seeds and
   rounding differ then, so the tolerance is 1.96 standard errors of the difference between two of the
   study's seeds on those same images, averaged over all pairs of seeds. It comes from the study alone: a
   poor run does not widen its own band.
2. *Other images*, or a study without generations. The band is that of the study's metrics.json, the tolerance
   1.96 standard errors of a difference between two samples of images, the run's n and the study's.

Three seeds span a range that a fourth leaves half of the time, hence a tolerance in either case. It is never
less than ``ROUNDING``: an untrained arm has one seed and no spread, but other processors round otherwise.
How the standard errors are computed: :mod:`ladlib.verify.spread`.
"""

import math
from itertools import combinations

import numpy as np

from ladlib.config import Profile, load_profile
from ladlib.metrics import Judged, judge, measure
from ladlib.records import Generation, RunRecord
from ladlib.report.stored import Key, Stored, read_generations
from ladlib.runs import RunFolder
from ladlib.verify.claim import Claim, arms_of, pooled, protocol, skipped, within
from ladlib.verify.integrity import read_metrics
from ladlib.verify.spread import paired_error, standard_error

NAMES = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "format_rate": "well formed"}
ROUNDING = 0.02  # a share
LEVEL = 1.96  # standard errors: 95 % of a normal distribution


def claims(run: RunFolder, stored: Stored, released: RunFolder) -> list[Claim]:
    """Three claims for each arm and seed of the run, or one skipped line with the reason."""
    reason = _incomparable(run, stored, released)
    if reason:
        return [skipped("study", reason)]
    study = arms_of(protocol(_stored_generations(released)))
    rows = read_metrics(released)
    return [
        claim
        for (arm, seed), own in arms_of(protocol(stored.generations)).items()
        for claim in _arm(f"{arm}-seed{seed}", own, _of(study, arm), pooled(rows, arm))
    ]


def _incomparable(run: RunFolder, stored: Stored, released: RunFolder) -> str:
    """Why the run cannot be held against the study; "" where it can."""
    if not (released.run_json.is_file() and released.metrics_json.is_file()):
        return "no released study in this installation"
    if run.root.resolve() == released.root.resolve():
        return "this is the released study itself"
    record = released.read()
    if record.profile != stored.record.profile:
        return f"it is of profile {record.profile}, this run of profile {stored.record.profile}"
    return _changed(stored.profile, _in_force(record))


def _in_force(record: RunRecord) -> Profile:
    return load_profile(record.profile, **{name: value for name, value in record.parameters.items() if "." in name})


def _changed(here: Profile, there: Profile) -> str:
    """The first value of training that differs; another experiment has another band."""
    for section in ("sft", "grpo"):
        own, theirs = getattr(here, section).model_dump(), getattr(there, section).model_dump()
        for name, value in own.items():
            if value != theirs[name] and name != "micro_batch_size":  # that one changes memory only
                return f"{section}.{name} is {value} in this run, {theirs[name]} in the study"
    return ""


def _stored_generations(released: RunFolder) -> list[Generation]:
    return read_generations(released) if any((released.root / "generations").glob("*.jsonl")) else []


def _of(study: dict[Key, list[Generation]], arm: str) -> list[list[Generation]]:
    return [rows for (name, _), rows in study.items() if name == arm]


def _arm(name: str, own: list[Generation], seeds: list[list[Generation]], rows: list[dict]) -> list[Claim]:
    if own[0].served:
        return [skipped(name, f"answered by {own[0].served}, no model of the study")]
    if len({one.label for one in own}) < 2:
        return [skipped(name, "no good or no logical images to score")]
    images = _shared(own, seeds)
    if 2 * len(images) >= len(own) and len({one.label for one in own if _image(one) in images}) == 2:
        return _on_shared(name, [_cut(one, images) for one in (own, *seeds)])
    if not rows:
        return [skipped(name, "the study has no such arm")]
    return _on_others(name, [judge(one) for one in own], rows)


def _image(one: Generation) -> tuple:
    return one.dataset, one.id, one.images_sha256


def _shared(own: list[Generation], seeds: list[list[Generation]]) -> set[tuple]:
    """The images judged by the run and by every seed of the study."""
    if not seeds:
        return set()
    return set.intersection(*({_image(one) for one in rows} for rows in (own, *seeds)))


def _cut(rows: list[Generation], images: set[tuple]) -> list[Judged]:
    """One judgement of each of ``images``, in one order for all arms."""
    last = {_image(one): one for one in rows}
    return [judge(last[image]) for image in sorted(images)]


def _on_shared(name: str, judged: list[list[Judged]]) -> list[Claim]:
    own, *seeds = judged
    values = [measure(rows) for rows in seeds]
    found, basis = measure(own), f"on {len(own)} shared images"
    errors = {key: [paired_error(key, *two) for two in combinations(seeds, 2)] for key in NAMES}
    return [
        _claim(name, key, found[key], [row[key] for row in values], float(np.mean(errors[key] or [0.0])), basis)
        for key in NAMES
    ]


def _on_others(name: str, own: list[Judged], rows: list[dict]) -> list[Claim]:
    found, images = measure(own), float(np.mean([row["n"] for row in rows]))
    spread = math.sqrt(1 + len(own) / images)  # the study's images are a sample too
    basis = f"on other images, {len(own)} here and {images:.0f} there"
    return [
        _claim(name, key, found[key], [row[key] for row in rows], spread * standard_error(key, own), basis)
        for key in NAMES
    ]


def _claim(name: str, key: str, value: float, seeds: list[float], error: float, basis: str) -> Claim:
    tolerance, low, high = max(LEVEL * error, ROUNDING), min(seeds), max(seeds)
    span = f"{100 * low:.1f} to {100 * high:.1f} over {len(seeds)} seeds" if len(seeds) > 1 else f"{100 * low:.1f}"
    basis = f"study {span}, tolerance {100 * tolerance:.1f}, {basis}"
    return within(f"{name} {NAMES[key]}", value, low - tolerance, high + tolerance, basis)

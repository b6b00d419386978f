"""A toy run in the bands of the released study.

Three measures must lie between the study's lowest and highest seed, on the images that both share (same id and bytes),
widened by 1.96 standard errors of the difference between two of the study's seeds, averaged over their pairs: three
seeds span a range that a fourth leaves half of the time, and a poor run does not widen its own band.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from ladlib.metrics import SUBSETS, measure, outcomes
from ladlib.records import Check
from ladlib.results import RunResults, load_answers, profile_of
from ladlib.runs import RunFolder, stored
from ladlib.statistics import paired_error

BANDS = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "format_rate": "well formed"}
ROUNDING = 0.02  # the least tolerance, a share: an untrained arm has one seed, but other processors round otherwise
LEVEL = 1.96  # standard errors: 95 % of a normal distribution


def compare(results: RunResults, released: RunFolder) -> list[Check]:
    """Three checks of each arm and seed, or one skipped line with the reason."""
    if reason := _incomparable(results, released):
        return [Check.skipped("study", reason)]
    own, study = _by_arm(results.answers), _by_arm(load_answers(released))
    seeds = {key: [rows for (arm, _), rows in study.items() if arm == key[0]] for key in own}
    return [
        check for (arm, seed), rows in own.items() for check in _in_band(f"{arm}-seed{seed}", rows, seeds[arm, seed])
    ]


def _by_arm(answers: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """The good + logical answers of each arm and seed."""
    return dict(list(answers[answers["anomaly"].isin(SUBSETS["logical"])].groupby(["arm", "seed"], sort=False)))


def _incomparable(results: RunResults, released: RunFolder) -> str:
    """Why the run cannot be compared with the study; "" where it can."""
    if not (released.run_json.is_file() and stored(released.root / "generations")):
        return "no released study in this installation"
    if results.run.root.resolve() == released.root.resolve():
        return "this is the released study itself"
    record = released.read()
    if record.profile != results.record.profile:
        return f"it is of profile {record.profile}, this run of profile {results.record.profile}"
    theirs = profile_of(record)
    for section in ("sft", "grpo"):
        study = getattr(theirs, section).model_dump()
        for name, value in getattr(results.profile, section).model_dump().items():
            if value != study[name] and name != "micro_batch_size":  # that one changes memory only
                return f"{section}.{name} is {value} in this run, {study[name]} in the study"
    return ""


def _in_band(name: str, own: pd.DataFrame, seeds: list[pd.DataFrame]) -> list[Check]:
    if served := own["served"].iloc[0]:
        return [Check.skipped(name, f"answered by {served}, no model of the study")]
    if not seeds:
        return [Check.skipped(name, "the study has no such arm")]
    images, *others = map(_outcomes_by_image, (own, *seeds))
    shared = sorted(set(images.index).intersection(*(other.index for other in others)))
    if 2 * len(shared) < len(images) or images.loc[shared, "anomalous"].nunique() < 2:
        return [Check.skipped(name, "the study has too few of its good and logical images")]
    images, *others = (frame.loc[shared] for frame in (images, *others))
    return [_band(name, key, images, others) for key in BANDS]


def _outcomes_by_image(rows: pd.DataFrame) -> pd.DataFrame:
    keys = list(zip(rows["dataset"], rows["id"], rows["images_sha256"], strict=True))
    frame = outcomes(rows).set_axis(pd.Index(keys, tupleize_cols=False))
    return frame[~frame.index.duplicated(keep="last")]


def _band(name: str, key: str, images: pd.DataFrame, seeds: list[pd.DataFrame]) -> Check:
    value, band = measure(images)[key], [measure(seed)[key] for seed in seeds]
    errors = [paired_error(key, *two) for two in combinations(seeds, 2)]
    tolerance = max(LEVEL * float(np.mean(errors or [0.0])), ROUNDING)
    low, high = max(0.0, min(band) - tolerance), min(1.0, max(band) + tolerance)
    span = f"{100 * min(band):.1f}" + (f" to {100 * max(band):.1f} over {len(band)} seeds" if len(band) > 1 else "")
    basis = f"study {span}, tolerance {100 * tolerance:.1f}, on {len(images)} shared images"
    side = "" if low <= value <= high else " (below)" if value < low else " (above)"
    return Check(
        verdict="failed" if side else "passed", subject=f"{name} {BANDS[key]}", found=f"{100 * value:.1f}{side}",
        expected=f"{100 * low:.1f} to {100 * high:.1f} ({basis})",
    )  # fmt: skip

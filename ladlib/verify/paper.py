"""A run held against the paper: its table for a run on real data, its order of methods for any run."""

import math

from ladlib.report import published
from ladlib.report.stored import Stored
from ladlib.statistics import wilson
from ladlib.verify.claim import Claim, pooled, skipped, within

IMAGES = 1136  # good + logical test images of MVTec LOCO AD: the paper's sample (561 anomalous)
METHODS = {"base": "Qwen2.5-VL-3B (base)", "sft_grpo": "LAD-Reasoner 3B", "large": "Qwen2.5-VL-72B"}


def claims(stored: Stored) -> list[Claim]:
    """Accuracy and F1 of each arm the paper has, against its table.

    The tolerance is the sampling error of the smaller of the run's and the paper's number of images, at 95 %:
    for accuracy half the width of Wilson's interval (2.9 points on 1,136 images), for F1 the delta method.
    """
    table = published.read("lad_reasoner").set_index("method").to_dict("index")
    return [claim for arm, method in METHODS.items() for claim in _arm(stored, arm, method, table[method])]


def _arm(stored: Stored, arm: str, method: str, row: dict) -> list[Claim]:
    found = pooled(stored.metrics, arm)
    subject = f"replication of the paper's {method}"
    if not found:
        return [skipped(subject, f"{arm} has not been run")]
    return [claim for one in found for claim in _against(f"{subject} by {arm}-seed{one['seed']}", one, row)]


def _against(subject: str, found: dict, row: dict) -> list[Claim]:
    images = min(found["n"], IMAGES)
    return [
        _near(f"{subject}, accuracy", found["accuracy"], row["accuracy"] / 100, _accuracy_error(row, images), images),
        _near(f"{subject}, F1", found["f1"], row["f1"] / 100, _f1_error(row, images), images),
    ]


def _near(subject: str, value: float, printed: float, tolerance: float, images: int) -> Claim:
    basis = f"paper {100 * printed:.1f}, tolerance {100 * tolerance:.1f}: 95 % sampling error on {images} images"
    return within(subject, value, printed - tolerance, printed + tolerance, basis)


def _accuracy_error(row: dict, images: int) -> float:
    low, high = wilson(round(row["accuracy"] / 100 * images), images)
    return (high - low) / 2


def _f1_error(row: dict, images: int) -> float:
    """1.96 standard errors of F1 = 2 TP / (2 TP + E), E = FP + FN, with TP and E multinomial (delta method)."""
    wrong = 1 - row["accuracy"] / 100
    hit = wrong * row["f1"] / (2 * (100 - row["f1"]))  # the share TP / n that gives the printed F1
    slope_hit, slope_wrong = 2 * wrong / (2 * hit + wrong) ** 2, -2 * hit / (2 * hit + wrong) ** 2
    mean = hit * slope_hit + wrong * slope_wrong
    variance = hit * slope_hit**2 + wrong * slope_wrong**2 - mean**2
    return 1.96 * math.sqrt(variance / images)


def order(stored: Stored) -> list[Claim]:
    """``sft_grpo`` above ``base`` in each seed; for information, its F1 against always saying yes."""
    trained, base = pooled(stored.metrics, "sft_grpo"), pooled(stored.metrics, "base")
    if stored.record.profile == "smoke":
        return [skipped("order", "profile smoke learns nothing")]
    if not trained or not base:
        return [skipped("order", "base and sft_grpo have not both been run")]
    always = pooled(stored.metrics, "always_yes")[0]
    return [claim for row in trained for claim in (_above_base(row, _same_seed(base, row)), _f1(row, always))]


def _same_seed(rows: list[dict], row: dict) -> dict:
    """The base's row of the same seed; an untrained arm may have been run once for all seeds."""
    return next((one for one in rows if one["seed"] == row["seed"]), rows[0])


def _above_base(row: dict, base: dict) -> Claim:
    subject, values = f"sft_grpo-seed{row['seed']} above base", [one["balanced_accuracy"] for one in (row, base)]
    if None in values:
        return skipped(subject, "no good or no logical images to score")
    found = f"balanced accuracy {100 * values[0]:.1f} against {100 * values[1]:.1f}"
    return Claim(verdict="held" if values[0] > values[1] else "failed", subject=subject, found=found, expected="above")


def _f1(row: dict, always: dict) -> Claim:
    """A note, never a failure: on balanced images F1 flatters whoever says yes."""
    if row["f1"] is None:
        return skipped(f"sft_grpo-seed{row['seed']} F1", "no logical images to score")
    side = "above" if row["f1"] > always["f1"] else "not above"
    return Claim(
        verdict="note",
        subject=f"sft_grpo-seed{row['seed']} F1",
        found=f"{100 * row['f1']:.1f}, {side} always yes ({100 * always['f1']:.1f})",
    )

"""What each kind of stage does, in the process of its own that it is run in. Heavy imports stay inside."""

import random
from pathlib import Path

from ladlib.config import Profile
from ladlib.data import find_dataset
from ladlib.records import Pair
from ladlib.runs import RunFolder
from ladlib.sft_data import pairs_to_train_on

PAIRS_PER_RULE = 48  # sampled for pass@k


def draw_data(profile: Profile, run: RunFolder) -> None:
    from ladlib.toy.datasets import write_datasets

    write_datasets(run.data, profile.data.toy)


def train_sft(profile: Profile, run: RunFolder, arm: str, seed: int, model: str) -> None:
    from ladlib import sft

    sft.train(profile, run.data, run, seed, model=model, arm=arm)


def train_grpo(profile: Profile, run: RunFolder, arm: str, seed: int, model: str, anomalous_share: float) -> None:
    from ladlib import grpo

    pairs = None if anomalous_share == 0.5 else unbalanced_pairs(profile, run.data, seed, anomalous_share)
    grpo.train(profile, run.data, run, seed, model=model, arm=arm, pairs=pairs)


def draw_samples(profile: Profile, run: RunFolder, arm: str, seed: int, model: str) -> None:
    from ladlib.sampling import sample

    sample(profile, run.data, run, seed, arm, model, PAIRS_PER_RULE)


def judge(profile: Profile, run: RunFolder, arm: str, seed: int, model: str) -> None:
    from ladlib.evaluate import evaluate

    evaluate(profile, run.data, run, seed, arm=arm, model=model, limit=0)


def check_rationales(run: RunFolder, arm: str, seed: int) -> None:
    from ladlib.toy.truth import write_rationales

    write_rationales(run, arm, seed, find_dataset(run.data, "mvtec_loco"))


def report(run: RunFolder) -> None:
    from ladlib.report import write_report
    from ladlib.report.study import write_study

    write_report(run)
    write_study(run)


def unbalanced_pairs(profile: Profile, root: Path | str, seed: int, anomalous_share: float) -> list[Pair]:
    """At most ``grpo_pairs`` pairs of the training data in a random order, ``anomalous_share`` of them logical."""
    every = pairs_to_train_on(profile, root)
    rng = random.Random(f"unbalanced:{seed}")
    rng.shuffle(every)
    logical = [one for one in every if one.test.anomaly == "logical"]
    good = [one for one in every if one.test.anomaly == "good"]
    whole = int(min(profile.data.grpo_pairs, len(logical) / anomalous_share, len(good) / (1 - anomalous_share)))
    many = round(whole * anomalous_share)
    pairs = logical[:many] + good[: whole - many]
    rng.shuffle(pairs)
    return pairs

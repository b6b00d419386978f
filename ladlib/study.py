"""The toy experiment with all its arms and seeds, as stages of :class:`ladlib.runner.Runner`: resumable, side by side.

study(arms=("base", "sft_grpo"), seeds=(0,), run="results/runs/study")     # () where all went well
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ladlib.config import Profile, load_profile
from ladlib.data import find_dataset
from ladlib.data.pairing import pair_images
from ladlib.errors import UserError
from ladlib.parsing import parse_answer
from ladlib.pipeline import weights_sha256
from ladlib.progress import Progress
from ladlib.records import Pair
from ladlib.runner import Runner, Stage
from ladlib.runs import RUNS, RunFolder, check_seed, from_root, locked, write_text
from ladlib.sft_data import balanced_pairs
from ladlib.toy.products import PRODUCTS, RuleKind

SFT_LONG_STEPS = 520  # about 530 s, as long as GRPO takes with stock TRL (one core, toy profile)
SAMPLED = ("base", "sft")  # what GRPO could start from: has it anything to choose from?
PAIRS_PER_RULE = 48  # sampled for pass@k
UNTRAINED_SEED = 0  # greedy answers of a model that is not trained depend on no seed


@dataclass(frozen=True)
class Arm:
    """One arm. ``start`` is "" (the profile's base), "large" (its large model) or another arm of the same seed."""

    name: str
    training: Literal["", "sft", "grpo"] = ""
    start: str = ""
    overrides: Mapping[str, object] = field(default_factory=dict)  # section.field: value in place of the profile's


ARMS = (
    Arm("base"),
    Arm("sft", "sft"),
    Arm("grpo_only", "grpo"),
    Arm("sft_grpo", "grpo", "sft"),
    Arm("sft_long", "sft", "sft", {"sft.steps": SFT_LONG_STEPS}),
    Arm("accuracy_only", "grpo", "sft", {"grpo.reward_weights": (1.0, 0.0)}),
    Arm("format_only", "grpo", "sft", {"grpo.reward_weights": (0.0, 1.0)}),
    Arm("large", start="large"),
)


def study(
    profile: str = "toy", arms: Sequence[str] = (), seeds: Sequence[int] = (0, 1, 2), run: str = "", jobs: int = 2,
    say: Callable[[str], None] = print,
) -> tuple[str, ...]:  # fmt: skip
    """The names of the stages that failed or could not begin, after all others of ``arms`` (default: all) have run.

    Runs ``jobs`` stages side by side in ``run`` (default: results/runs/study), none that is unchanged. Raises
    :class:`UserError` before anything runs for an unknown arm or profile, a profile without toy datasets, a base that
    is not there, another run's folder, or one where another process is at work.
    """
    settings, chosen = load_profile(profile), find_arms(arms)
    for seed in seeds:
        check_seed(seed)
    if settings.toy is None:
        raise UserError(f"Profile {profile!r} has no toy datasets.", "Use --profile toy or smoke.")
    if not weights_sha256(settings.model.base):
        raise UserError(f"The model {settings.model.base} is not there.", "Build it with `ladlib pretrain base`.")
    if not weights_sha256(settings.model.large) and any(arm.start == "large" for arm in chosen):
        say(f"[large] left out: {settings.model.large} is not there")
        chosen = tuple(arm for arm in chosen if arm.start != "large")
    folder = RunFolder((Path(run) if run else from_root(f"{RUNS}/study")).resolve())
    folder.check(settings.name, UNTRAINED_SEED)
    with locked(folder.root):
        folder.open(settings.name, UNTRAINED_SEED)
        stages = plan(settings, folder, chosen, seeds)
        failed = Runner(stages, folder, settings.name, UNTRAINED_SEED, say, jobs).finish()
    missing = f"{len(failed)} stages are missing; run the same command again once corrected."
    say(f"\n{missing if failed else folder.locations()}")
    return failed


def find_arms(names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms called ``names`` in the table's order; all where none is named. Raises :class:`UserError`."""
    known = [arm.name for arm in ARMS]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"There is no arm {unknown[0]!r}.", f"Use some of {', '.join(known)}.")
    return tuple(arm for arm in ARMS if not names or arm.name in names)


def plan(profile: Profile, run: RunFolder, arms: Sequence[Arm], seeds: Sequence[int]) -> list[Stage]:
    """All stages of ``arms``, and the trainings of those they start from, each after those it needs."""
    needed = {arm.name for arm in arms} | {arm.start for arm in arms}  # what an arm starts from starts from the base
    trained = [(arm, seed) for arm in ARMS if arm.name in needed and arm.training for seed in seeds]
    judged = [(arm, seed) for arm in arms for seed in (seeds if arm.training else (UNTRAINED_SEED,))]
    steps = [
        *((train, *each) for each in trained),
        *((sample, *each) for each in judged if each[0].name in SAMPLED),
        *((judge, *each) for each in judged),
        *((check, *each) for each in judged),
    ]
    drawn = Stage("data", ("data",), draw, {"profile": profile, "run": run}, values=profile.toy.model_dump())
    stages = [drawn, *(_stage(*step, run, profile.replace(step[1].overrides)) for step in steps)]
    outputs, after = ("metrics.json", "tables", "figures", "report.html"), tuple(stage.name for stage in stages)
    return [*stages, Stage("report", outputs, report, {"run": run}, after, reports=True)]


def _stage(work: Callable[..., None], arm: Arm, seed: int, run: RunFolder, profile: Profile) -> Stage:
    """The stage that does ``work`` for one arm and seed."""
    verb, key = work.__name__, (arm.name, seed)
    outputs = {
        "train": [run.checkpoint(*key), run.log(*key), run.manifest(*key),
                  *([run.rollouts(*key)] if arm.training == "grpo" else [])],
        "sample": [run.samples(*key)], "judge": [run.generations(*key)], "check": [run.rationales(*key)],
    }[verb]  # fmt: skip
    names = tuple(path.relative_to(run.root).as_posix() for path in outputs)
    name, options = f"{verb}-{arm.name}-seed{seed}", {"run": run, "arm": arm.name, "seed": seed}
    if work is check:
        return Stage(name, names, check, options, ("data", f"judge-{arm.name}-seed{seed}"))
    start = arm.start if work is train or not arm.training else arm.name
    weights = {"": profile.model.base, "large": profile.model.large}.get(start, "")
    options |= {"profile": profile, "model": weights or str(run.checkpoint(start, seed))}
    options |= {"stage": arm.training} if work is train else {}
    after = ("data",) if weights else ("data", f"train-{start}-seed{seed}")
    used = profile.model_dump(exclude={"name", "label", "endpoint"})
    return Stage(name, names, work, options, after, {"profile": used, "weights": weights_sha256(weights)})


# What each kind of stage does, in a process of its own. Heavy imports stay inside.


def draw(profile: Profile, run: RunFolder) -> None:
    from ladlib.toy.datasets import write_datasets

    write_datasets(run.data, profile.toy)


def train(profile: Profile, run: RunFolder, arm: str, seed: int, model: str, stage: str) -> None:
    from ladlib import grpo, sft

    method = {"sft": sft, "grpo": grpo}[stage]
    method.train(profile, run.data, run, seed, model=model, arm=arm)


def sample(profile: Profile, run: RunFolder, arm: str, seed: int, model: str, per_rule: int = PAIRS_PER_RULE) -> None:
    """Draw a group of texts, as GRPO draws them, for each of ``per_rule`` pairs of every kind of rule.

    The same pairs are taken for every arm and seed. ``run.samples`` is written whole or not at all.
    """
    import torch

    from ladlib import generate

    pairs = pairs_by_rule(profile, run.data, per_rule)
    policy, processor = generate.load(profile, model)
    torch.manual_seed(seed)
    size = max(1, profile.evaluate.batch_size // profile.grpo.group_size)
    progress, lines = Progress(f"samples of {arm}", "pair", len(pairs)), []
    for start in range(0, len(pairs), size):
        batch = pairs[start : start + size]
        images = [pair_images(pair, run.data, profile.data) for _, pair in batch]
        for (rule, pair), texts in zip(batch, generate.sample_texts(policy, processor, images, profile), strict=True):
            test, answers = pair.test, [parse_answer(text) for text in texts]
            row = {"id": pair.id, "arm": arm, "seed": seed, "dataset": test.dataset, "category": test.category}
            row |= {"rule": rule, "label": test.label, "texts": texts, "answers": answers}
            row["right"] = [answer == test.label for answer in answers]
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        progress.tell(start + len(batch))
    write_text(run.samples(arm, seed), "".join(lines))


def pairs_by_rule(profile: Profile, root: Path | str, per_rule: int) -> list[tuple[RuleKind, Pair]]:
    """At most ``per_rule`` toy training pairs of each kind of rule: logical, good, logical, good, ..."""
    rules = {(product.dataset, product.name): product.rule_kind for product in PRODUCTS}
    pairs = balanced_pairs(profile.replace({"data.grpo_pairs": 10**9}), root, seed=0)  # all there are
    by_rule: dict[RuleKind, list[Pair]] = {rule: [] for rule in get_args(RuleKind)}
    for both in zip(pairs[::2], pairs[1::2], strict=True):
        rule, other = (rules.get((pair.test.dataset, pair.test.category)) for pair in both)
        if rule and rule == other and len(by_rule[rule]) + 2 <= per_rule:
            by_rule[rule] += both
    return [(rule, pair) for rule, chosen in by_rule.items() for pair in chosen]


def judge(profile: Profile, run: RunFolder, arm: str, seed: int, model: str) -> None:
    from ladlib.evaluate import evaluate

    evaluate(profile, run.data, run, seed, arm=arm, model=model, limit=0)


def check(run: RunFolder, arm: str, seed: int) -> None:
    from ladlib.toy.truth import write_rationales

    write_rationales(run, arm, seed, find_dataset(run.data, "mvtec_loco"))


def report(run: RunFolder) -> None:
    from ladlib.report.page import write_report, write_study

    write_report(run)
    write_study(run)

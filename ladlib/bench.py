"""How much faster this is than the stock library: both do the same work in turn, in one run.

    grpo(load_profile("toy"), Path("data"), repeats=3, steps=2)       # beside TRL's GRPOTrainer as it is
    evaluation(load_profile("toy"), Path("data"), repeats=3)          # beside plain generate

A line is printed for each variant, then the result as one JSON object, whose ``ratio`` is stock seconds / our seconds.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import mean, median

import torch

from ladlib import generate
from ladlib.config import Profile
from ladlib.data.images import view
from ladlib.evaluate import make_batches
from ladlib.fast import decode
from ladlib.generations import Answers, plan
from ladlib.records import Completion
from ladlib.runs import RunFolder
from ladlib.sft_data import balanced_pairs

OURS, STOCK = "shared prefix", "TRL's GRPOTrainer"
PADDED, ALONE = "generate, padded batches", "generate, one pair at a time"


def grpo(profile: Profile, data_root: Path | str, repeats: int, steps: int, model: str = "") -> dict:
    """Seconds of ``steps`` steps of stage 2. Its learning rate is zero: every step samples from the same policy."""
    from transformers import PrinterCallback

    from ladlib.grpo import make_trainer
    from ladlib.training import load_policy

    trainers = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in (OURS, STOCK):
            changes = {"grpo.learning_rate": 1e-30, "grpo.steps": steps, "model.shared_prefix": name == OURS}
            changed = profile.replace(changes)
            policy, processor = load_policy(changed, model or profile.model.base)
            pairs = balanced_pairs(changed, data_root, seed=0)
            trainer = make_trainer(changed, pairs, data_root, policy, processor, Path(folder, name), seed=0)
            trainer.args.save_strategy, trainers[name] = "no", trainer
            trainer.remove_callback(PrinterCallback)
        result = compare({name: trainer.train for name, trainer in trainers.items()}, repeats, STOCK, steps)
    logs = {name: trainer.state.log_history for name, trainer in trainers.items()}
    return report(result | {
        "what": "grpo", "profile": profile.name, "group": profile.grpo.group_size, "steps": steps,
        "prompts_per_step": profile.grpo.prompts_per_step,
        "completion_tokens": {name: mean(row["completions/mean_length"] for row in log if "loss" in row)
                              for name, log in logs.items()},
    })  # fmt: skip


def evaluation(profile: Profile, data_root: Path | str, repeats: int, model: str = "", batches: int = 0) -> dict:
    """Seconds of judging ``batches`` of the evaluation's own, spread evenly (0 = all), images and P(yes) included."""
    with tempfile.TemporaryDirectory() as folder:
        path = RunFolder(folder).generations("base", 0)
        answers = Answers(profile, data_root, path, "base", 0, plan(profile, data_root), {})
    every = make_batches(answers)
    chosen = every[:: max(1, len(every) // batches) if batches else 1][: batches or None]
    policy, processor = generate.load(profile, model)
    work = {OURS: chosen, PADDED: chosen, ALONE: [[task] for task in chain(*chosen)]}
    completions: dict[str, list[Completion]] = {}

    def judge(name: str) -> None:
        view.cache_clear()
        completions[name] = []
        for batch in work[name]:
            images = [list(answers.images(task).values()) for task in batch]
            module = decode if name == OURS else generate
            completions[name] += module.answer(policy, processor, images, profile.model.max_new_tokens)

    result = compare({name: partial(judge, name) for name in work}, repeats, PADDED)
    return report(result | {
        "what": "eval", "profile": profile.name, "pairs": len(work[ALONE]), "batch_size": profile.evaluate.batch_size,
        "ratio_one_by_one": median(result["seconds"][ALONE]) / median(result["seconds"][OURS]),
        "apart_from_one_by_one": {name: differences(completions[name], completions[ALONE]) for name in (OURS, PADDED)},
    })  # fmt: skip


def differences(answers: Sequence[Completion], expected: Sequence[Completion]) -> dict[str, float]:
    """How many texts differ, and by how much P(yes) does at most where they do not."""
    both = list(zip(answers, expected, strict=True))
    same = [abs(answer.p_yes - other.p_yes) for answer, other in both if answer.text == other.text]
    return {"texts": len(both) - len(same), "p_yes": max(same, default=0.0)}


def compare(variants: Mapping[str, Callable[[], object]], repeats: int, stock: str, units: int = 1) -> dict:
    """Seconds of each variant per unit of work, after a first call, and the ratio of ``stock`` to ours.

    They take turns, so that a slow minute of the machine is all of theirs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(1 + repeats):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append((time.perf_counter() - start) / units)
    ratio = median(seconds[stock]) / median(seconds[OURS])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"ratio": ratio, "seconds": seconds, "device": device, "threads": torch.get_num_threads()}


def report(result: dict) -> dict:
    """Print a line for each variant and the result, which is returned, as JSON: the last line, for programs."""
    width = max(map(len, result["seconds"]))
    for name, values in result["seconds"].items():
        print(f"{name:{width}}  {median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")
    print(json.dumps(result))
    return result

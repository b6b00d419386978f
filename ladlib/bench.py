"""How much faster this is than the stock library: both do the same work in turn, in one run.

    grpo(load_profile("toy"), Path("data"), repeats=3, steps=2)       # beside TRL's GRPOTrainer as it is
    evaluation(load_profile("toy"), Path("data"), repeats=3)          # beside plain generate

A line is printed for each variant, then the result as one JSON object, whose ``ratio`` is stock seconds / our seconds.
"""

import json
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean, median

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ladlib import generate
from ladlib.config import Profile
from ladlib.data.images import view
from ladlib.evaluate import make_batches
from ladlib.generations import Answers, plan
from ladlib.records import Completion
from ladlib.runs import RunFolder
from ladlib.sft_data import balanced_pairs

OURS, STOCK = "shared prefix", "TRL's GRPOTrainer"
PADDED, ALONE = "generate, padded batches", "generate, one pair at a time"
FEW = 4  # pairs judged one at a time for their peak memory
Variants = Mapping[str, Callable[[], object]]


def grpo(profile: Profile, data_root: Path | str, repeats: int, steps: int, group: int = 0, model: str = "") -> dict:
    """Seconds of ``steps`` steps of stage 2 with groups of ``group`` completions (the profile's where 0).

    The learning rate is zero, so every step draws from the same policy; what is drawn differs, since the two use
    random numbers in different orders, so the completions' lengths are in the result too.
    """
    size = group or profile.grpo.group_size
    micro = max(1, profile.grpo.micro_batch_size * size // profile.grpo.group_size)
    still = {"learning_rate": 0.0, "steps": steps, "group_size": size, "micro_batch_size": micro}
    still = {f"grpo.{name}": value for name, value in still.items()}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            name: _trainer(
                profile, still | {"model.shared_prefix": name == OURS}, data_root, Path(folder) / name, model
            )
            for name in (OURS, STOCK)
        }
        variants = {name: trainer.train for name, trainer in trainers.items()}
        peaks = {name: peak_mib(variants[name], trainers[name].model) for name in variants}  # and it warms up
        seconds = {name: [one / steps for one in times] for name, times in alternate(variants, repeats).items()}
    lengths = {
        name: mean(row["completions/mean_length"] for row in trainer.state.log_history if "loss" in row)
        for name, trainer in trainers.items()
    }
    return _report(seconds, peaks, {
        "what": "grpo", "profile": profile.name, "ratio": median(seconds[STOCK]) / median(seconds[OURS]),
        "group": size, "prompts_per_step": profile.grpo.prompts_per_step, "steps": steps, "seconds_a_step": seconds,
        "completion_tokens": lengths,
    })  # fmt: skip


def _trainer(profile: Profile, data_root: Path | str, folder: Path, model: str):
    from transformers import PrinterCallback

    from ladlib.grpo import make_trainer
    from ladlib.training import load_policy

    pairs = balanced_pairs(profile, data_root, seed=0)
    policy, processor = load_policy(profile, model or profile.model.base)
    trainer = make_trainer(profile, pairs, data_root, policy, processor, folder, seed=0)
    trainer.args.save_strategy = "no"
    trainer.remove_callback(PrinterCallback)
    return trainer


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

    def judge(name: str, count: int | None = None) -> None:
        view.cache_clear()
        completions[name] = []
        for batch in work[name][:count]:
            images = [list(views.values()) for views in answers.images(batch)]
            longest = profile.model.max_new_tokens
            completions[name] += generate.answer(policy, processor, images, longest, shared_prefix=name == OURS)

    peaks = {name: peak_mib(lambda name=name: judge(name, FEW if name == ALONE else 1), policy) for name in work}
    seconds = alternate({name: lambda name=name: judge(name) for name in work}, repeats)
    middle = {name: median(values) for name, values in seconds.items()}
    return _report(seconds, peaks, {
        "what": "eval", "profile": profile.name, "ratio": middle[PADDED] / middle[OURS],
        "ratio_one_by_one": middle[ALONE] / middle[OURS], "pairs": len(work[ALONE]),
        "batch_size": profile.evaluate.batch_size, "seconds": seconds,
        "apart_from_one_by_one": {name: differences(completions[name], completions[ALONE]) for name in (OURS, PADDED)},
    })  # fmt: skip


def differences(answers: Sequence[Completion], expected: Sequence[Completion]) -> dict[str, float]:
    """How many texts differ, and by how much P(yes) does at most where they do not."""
    both = list(zip(answers, expected, strict=True))
    same = [abs(one.p_yes - other.p_yes) for one, other in both if one.text == other.text]
    return {"texts": len(both) - len(same), "p_yes": max(same, default=0.0)}


def alternate(variants: Variants, repeats: int) -> dict[str, list[float]]:
    """Seconds of each of ``variants``, which take turns, so that a slow minute of the machine is all of theirs."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, variant in variants.items():
            wait()
            start = time.perf_counter()
            variant()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _report(seconds: Mapping[str, Sequence[float]], peaks: Mapping[str, float], result: dict) -> dict:
    """Print a line for each variant and the result, which is returned, as JSON: the last line, for programs."""
    width = max(map(len, seconds))
    for name, values in seconds.items():
        spread = f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
        print(f"{name:{width}}  {spread}  {peaks[name]:.0f} MiB at most")
    result |= {"peak_mib": dict(peaks), "device": "cuda" if torch.cuda.is_available() else "cpu",
               "threads": torch.get_num_threads()}  # fmt: skip
    print(json.dumps(result))
    return result


def peak_mib(work: Callable[[], object], model: torch.nn.Module) -> float:
    """MiB of tensors alive at most during ``work``, beside the weights of ``model``."""
    with LiveBytes().known(model) as live:
        before = live.now
        work()
    return (live.peak - before) / 2**20


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages alive, ``now`` and at ``peak``, that operators make; not what they need inside themselves.

    >>> with LiveBytes() as live:
    ...     kept = torch.zeros(256) + 1
    >>> live.now, live.peak
    (1024, 2048)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self._add(output)
        return output

    def known(self, *values: object) -> "LiveBytes":
        """Count ``values`` (tensors, modules), which were there before."""
        for value in values:
            tensors = value.parameters() if isinstance(value, torch.nn.Module) else value
            self._add(list(tensors) if isinstance(tensors, Iterator) else tensors)
        return self

    def reset_peak(self) -> None:
        self.peak = self.now

    def _add(self, value: object) -> None:
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)):
            key = storage._cdata
            if key not in self._sizes:
                self._sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)

"""Stage 2 in two ways: with one reading of what a group has in common, and TRL's trainer as it is, on the same pairs.

    bench(load_profile("toy"), Path("data"), repeats=3, steps=2, group=8)

The learning rate is zero, so that every step of both ways draws from one and the same policy; what is drawn differs,
since the two use the random numbers in different orders. The completions' lengths are told beside the seconds. No step
is faster than its arithmetic on paper (:mod:`ladlib.bench.cost`) at the speed with which this machine multiplies large
matrices; how many times as long each takes is told, too.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PrinterCallback

from ladlib import grpo
from ladlib.bench.clock import Clock, Timed
from ladlib.bench.cost import step_of, step_operations
from ladlib.bench.live_bytes import LiveBytes
from ladlib.bench.timing import alternate, print_result, show
from ladlib.config import Profile
from ladlib.models import best_device
from ladlib.sft_data import balanced_pairs
from ladlib.sizes import sizes_of
from ladlib.training import load_policy

OURS, STOCK = "shared prefix", "TRL's GRPOTrainer"
PARTS = ("vision", "prefill", "decode", "generate", "reward", "reference", "loss", "backward", "optimizer")


@dataclass
class Way:
    """A trainer, and what its steps were seen to do."""

    trainer: grpo.TimedTrainer
    clock: Clock = field(default_factory=Clock)  # of all steps

    def train(self) -> None:
        """Take the steps, with the clock on their parts."""
        with self.clock.on(self._parts()):
            self.trainer.train()

    @property
    def tokens(self) -> float:
        """How long a completion was on average, in the steps of the last call."""
        return mean(row["completions/mean_length"] for row in self.trainer.state.log_history if "loss" in row)

    @property
    def model(self) -> torch.nn.Module:
        """What is trained, without what accelerate and PEFT put around it."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _parts(self) -> list[Timed]:
        """What is timed. ``generate``, ``reference`` and ``loss`` are what is left of them without their vision."""
        trainer, inner = self.trainer, self.model.model

        def read(*_: object, inputs_embeds: torch.Tensor, **__: object) -> str:
            within = "prefill" if inputs_embeds.shape[1] > 1 else "decode"
            return within if self.clock.part == "generate" else ""

        return [
            (trainer, "_generate_single_turn", "generate"),
            (trainer, "_calculate_rewards", "reward"),
            (trainer, "_get_per_token_logps_and_entropies", _reader),
            (trainer.accelerator, "backward", "backward"),
            (trainer, "_clip_grad_norm", "optimizer"),
            (AcceleratedOptimizer, "step", "optimizer"),
            (inner.visual, "forward", "vision"),
            (inner.language_model, "forward", read),
        ]

    def flops(self) -> int:
        """Floating-point operations of one step's matrix products, forward and backward, those of attention included.

        The counter knows no fused attention of a CPU, so attention is done in its single products.
        """
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, self._steps(1):
            self.trainer.train()
        return counter.get_total_flops()

    def peak(self) -> float:
        """MiB of tensors alive at most during one step, beside the weights that were there before."""
        with LiveBytes().known(self.model) as live, self._steps(1):
            before = live.now
            self.trainer.train()
        return (live.peak - before) / 2**20

    @contextmanager
    def _steps(self, count: int) -> Iterator[None]:
        kept, self.trainer.args.max_steps = self.trainer.args.max_steps, count
        try:
            yield
        finally:
            self.trainer.args.max_steps = kept


def bench(profile: Profile, data_root: Path | str, repeats: int, steps: int, group: int = 0, model: str = "") -> dict:
    """Time ``steps`` steps of both ways, ``group`` completions a prompt (the profile's where 0), and return the result.

    Prints a line each and the result as JSON. Raises :class:`UserError` for data or a model that is not there.
    """
    grpo_ = profile.grpo.model_copy(update=_still(profile, steps, group))
    profile = profile.model_copy(update={"grpo": grpo_})
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: _way(name, profile, data_root, Path(folder), model) for name in (OURS, STOCK)}
        memory = {name: way.peak() for name, way in ways.items()}  # and what a first step sets up is set up
        flops = {name: way.flops() for name, way in ways.items()}
        for way in ways.values():
            way.clock.spent.clear()
        seconds = alternate({name: way.train for name, way in ways.items()}, repeats)
    peak, on_paper = matrix_peak(), _on_paper(profile, ways[OURS], model)
    parts = {
        name: {part: way.clock.spent.get(part, 0.0) / repeats / steps for part in PARTS} for name, way in ways.items()
    }
    each = {name: [one / steps for one in values] for name, values in seconds.items()}
    limit = {name: count / peak for name, count in on_paper.items()}
    over = {name: median(values) / limit[name] for name, values in each.items()}
    show(each, {name: _facts(parts[name], memory[name], flops[name], ways[name].tokens, over[name]) for name in ways})
    result = {
        "what": "grpo",
        "profile": profile.name,
        "ratio": median(seconds[STOCK]) / median(seconds[OURS]),
        "ratio_flops": flops[STOCK] / flops[OURS],
        "group": grpo_.group_size,
        "prompts_per_step": grpo_.prompts_per_step,
        "steps": steps,
        "seconds_a_step": each,
        "parts": parts,
        "peak_mib": memory,
        "flops": flops,
        "flops_on_paper": on_paper,
        "matrix_peak": peak,
        "seconds_on_paper": limit,
        "times_on_paper": over,
        "share_of_peak": {name: flops[name] / median(values) / peak for name, values in each.items()},
        "completion_tokens": {name: way.tokens for name, way in ways.items()},
        "threads": torch.get_num_threads(),
    }
    print_result(result)
    return result


def matrix_peak(size: int = 2048, times: int = 5) -> float:
    """Operations a second of this machine in a float32 product of two square matrices: the best of ``times``."""
    one = torch.rand(size, size, device=best_device())
    seconds = alternate({"product": lambda: one @ one}, times + 1)["product"][1:]
    return 2 * size**3 / min(seconds)


def _on_paper(profile: Profile, way: Way, model: str) -> dict[str, float]:
    """Operations of a step by :mod:`ladlib.bench.cost`, by the names of the ways."""
    sizes = sizes_of(model or profile.model.base)
    costs = step_operations(sizes, step_of(profile, sizes, way.tokens))
    return {name: sum(costs[column].values()) for name, column in ((OURS, "here"), (STOCK, "stock"))}


def _reader(*_: object, **__: object) -> str:
    """Whose log-probabilities are read: with a gradient those of the loss."""
    return "loss" if torch.is_grad_enabled() else "reference"


def _still(profile: Profile, steps: int, group: int) -> dict:
    """The values of stage 2 for ``steps`` that change nothing. A micro-batch grows with the group."""
    size = group or profile.grpo.group_size
    micro = max(1, profile.grpo.micro_batch_size * size // profile.grpo.group_size)
    return {"learning_rate": 0.0, "steps": steps, "group_size": size, "micro_batch_size": micro}


def _way(name: str, profile: Profile, data_root: Path | str, folder: Path, model: str) -> Way:
    stage = profile.grpo.model_copy(update={"shared_prefix": name == OURS})
    policy, processor = load_policy(profile, model or profile.model.base)
    pairs = balanced_pairs(profile, data_root, seed=0)
    used = profile.model_copy(update={"grpo": stage})
    trainer = grpo.make_trainer(used, pairs, data_root, policy, processor, folder / name, seed=0)
    trainer.args.save_strategy = "no"
    trainer.remove_callback(PrinterCallback)
    return Way(trainer)


def _facts(parts: dict[str, float], memory: float, flops: int, tokens: float, over: float) -> dict[str, object]:
    seconds = {f"s {part}": round(value, 2) for part, value in parts.items()}
    return seconds | {
        "MiB at most": round(memory),
        "GFLOP a step": round(flops / 1e9),
        "tokens a completion": round(tokens),
        "times what its arithmetic on paper takes at the machine's peak": round(over, 1),
    }

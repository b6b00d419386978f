"""Stage 2 in two ways: with one reading of what a group has in common, and TRL's trainer as it is, on the same pairs.

    bench(load_profile("toy"), Path("data"), repeats=3, steps=2, group=8)

The learning rate is zero, so that every step of both ways draws from one and the same policy; what is drawn differs,
since the two use the random numbers in different orders. The completions' lengths are told beside the seconds.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PrinterCallback

from ladlib import grpo
from ladlib.bench.cost import Sizes, completion_flops
from ladlib.bench.live_bytes import LiveBytes
from ladlib.bench.timing import alternate, print_result, show
from ladlib.conversations import balanced_pairs
from ladlib.settings import Profile
from ladlib.training import load_policy

OURS, STOCK = "shared prefix", "TRL's GRPOTrainer"
PARTS = ("generate", "reward", "reference", "loss", "backward", "optimizer")


@dataclass
class Way:
    """A trainer, and what its steps were seen to do."""

    trainer: grpo.TimedTrainer
    spent: dict[str, float] = field(default_factory=dict)  # seconds of each part of all steps
    counted: dict[str, int] = field(default_factory=dict)

    def train(self) -> None:
        """Take the steps, with the clock on their parts."""
        with self._timed():
            self.trainer.train()

    @property
    def tokens(self) -> float:
        """How long a completion was on average."""
        lengths = [row["completions/mean_length"] for row in self.trainer.state.log_history if "loss" in row]
        return mean(lengths)

    @property
    def model(self) -> torch.nn.Module:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @contextmanager
    def _timed(self) -> Iterator[None]:
        trainer, readings = self.trainer, lambda: "loss" if torch.is_grad_enabled() else "reference"
        parts = [
            (trainer, "_generate_single_turn", lambda: "generate"),
            (trainer, "_calculate_rewards", lambda: "reward"),
            (trainer, "_get_per_token_logps_and_entropies", readings),
            (trainer.accelerator, "backward", lambda: "backward"),
            (trainer, "_clip_grad_norm", lambda: "optimizer"),
        ]
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in parts]
        for (owner, name, label), (_, _, function) in zip(parts, kept, strict=True):
            setattr(owner, name, self._clocked(function, label))
        try:
            yield
        finally:
            for owner, name, _ in kept:
                delattr(owner, name)

    def _clocked(self, function: Callable, label: Callable[[], str]) -> Callable:
        def clocked(*args, **kwargs):
            part, start = label(), time.perf_counter()
            found = function(*args, **kwargs)
            self.spent[part] = self.spent.get(part, 0.0) + time.perf_counter() - start
            return found

        return clocked

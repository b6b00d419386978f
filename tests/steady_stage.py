"""A training stage whose completions are not drawn by chance and earn something: one process against two.

    python steady_stage.py grpo --profile P --data D --run R        # alone, or after `accelerate launch …`

Where DIE_AFTER is set, every process dies once that step is logged.
"""

import os

import torch

from ladlib import grpo
from ladlib.launch import main
from ladlib.training import StepLog

GROUP = 2  # completions of one prompt


def choose(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
    """In place of ``torch.multinomial``: the token at a place among the cumulated probabilities, the row's own."""
    place = (0.31 + 0.52 * (torch.arange(len(probabilities)) % GROUP)) % 1
    return (probabilities.cumsum(dim=-1) < place[:, None]).sum(dim=-1, keepdim=True)


def die(self, args, state, control, **rest: object) -> None:
    tell(self, args, state, control, **rest)
    if str(state.global_step) == os.environ.get("DIE_AFTER"):
        os._exit(9)


def worth(text: str) -> float:
    """In place of a reward: a random model earns none."""
    return sum(map(ord, text)) % 7 / 7


tell, StepLog.on_log = StepLog.on_log, die
grpo.format_reward = worth
torch.multinomial = choose

if __name__ == "__main__":
    main()

"""A training stage whose completions do not depend on chance, so that one process can be held against two.

    python steady_stage.py grpo --profile P --data D --run R        # alone, or after `accelerate launch …`

Where DIE_AFTER is set, every process dies once that step is logged.
"""

import os

import torch

from ladlib.launch.__main__ import main
from ladlib.training import StepLog

GROUP = 2  # completions of one prompt


def choose(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
    """In place of ``torch.multinomial``: a place in the cumulated probabilities told by them and the row's number."""
    number = torch.arange(len(probabilities)) % GROUP
    place = (probabilities.max(dim=-1).values * 1000 + number * 0.618) % 1
    return (probabilities.cumsum(dim=-1) < place[:, None]).sum(dim=-1, keepdim=True)


def die(self, args, state, control, **rest: object) -> None:
    tell(self, args, state, control, **rest)
    if str(state.global_step) == os.environ.get("DIE_AFTER"):
        os._exit(9)


tell, StepLog.on_log = StepLog.on_log, die
torch.multinomial = choose

if __name__ == "__main__":
    main()

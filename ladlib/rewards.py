"""The two rewards of GRPO, and the advantage of a completion within its group.

The paper's abstract names two sources of reward, the accuracy of the detection and the structural quality of
the output; its formulas and weights are unknown. These are VLM-R1's ``yes_no_reward`` and ``format_reward``
(om-ai-lab/VLM-R1, ``grpo_jsonl.py``), each 0 or 1, made stricter where :mod:`ladlib.parsing` says so. Both
read a completion through that parser, as the metrics do: what earns a reward in training counts as right in
the evaluation.

>>> accuracy_reward("<think>A nut is missing.</think><answer>yes</answer>", "yes")
1.0
>>> group_advantages([1.0, 1.0, 1.0, 1.0])
[0.0, 0.0, 0.0, 0.0]
"""

from collections.abc import Sequence
from statistics import fmean, stdev

from ladlib.parsing import parse, parse_answer
from ladlib.records import Answer

STD_OFFSET = 1e-4  # keeps a group without spread from dividing by zero; TRL's value


def accuracy_reward(completion: str, label: Answer) -> float:
    """1.0 where the strictly parsed answer is ``label``, else 0.0; an unparsed answer earns nothing."""
    return float(parse_answer(completion) == label)


def format_reward(completion: str) -> float:
    """1.0 for exactly one think block followed by exactly one answer block that holds yes or no, else 0.0."""
    return float(parse(completion).well_formed)


def group_advantages(rewards: Sequence[float]) -> list[float]:
    """``(r - mean) / (std + 1e-4)`` for the rewards of one group: completions of the same prompt.

    DeepSeekMath (arXiv 2402.03300), section 4.1.2; the sample standard deviation (divisor G - 1) and the
    offset are those of TRL 1.16's ``GRPOTrainer`` with ``scale_rewards="group"``. A group of one has
    advantage 0.
    """
    if len(rewards) < 2:
        return [0.0 for _ in rewards]
    mean, spread = fmean(rewards), stdev(rewards) + STD_OFFSET
    return [(reward - mean) / spread for reward in rewards]

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

from ladlib.parsing import ANSWER, END_ANSWER, TAGS, lenient_answer, parse, parse_answer
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


def explain_accuracy(completion: str, label: Answer) -> str:
    """Why the accuracy reward is what it is, in one sentence."""
    answer = parse(completion).answer
    return f"The answer is {answer} and the label is {label}." if answer else f"Unparsed: {_no_answer(completion)}."


def explain_format(completion: str) -> str:
    """Why the format reward is what it is, in one sentence."""
    parsed = parse(completion)
    if parsed.well_formed:
        return "One thinking block that is not empty, then one answer block, and nothing else."
    faults = [f"{tag} occurs {completion.count(tag)} times" for tag in TAGS if completion.count(tag) != 1]
    if not faults and not parsed.think:
        faults = ["the thinking is empty"]
    if not faults and parsed.answer is None:
        faults = [_no_answer(completion)]
    return f"Invalid format: {'; '.join(faults or ['there is text or a tag where none may be'])}."


def _no_answer(completion: str) -> str:
    """What keeps the strict parser from an answer."""
    if completion.count(ANSWER) != 1 or completion.count(END_ANSWER) != 1:
        count = "none" if ANSWER not in completion else "another number of tags"
        lenient = lenient_answer(completion)
        hint = f' (lenient scoring takes the word "{lenient}", the parser guesses nothing)' if lenient else ""
        return f"it takes exactly one answer block, and there is {count}{hint}"
    inside = completion.partition(ANSWER)[2].partition(END_ANSWER)[0].strip()
    if inside.removesuffix(".").lower() in ("yes", "no"):
        return "the answer block is inside an unclosed think block"
    return f'the answer block holds "{inside}", which is neither yes nor no'

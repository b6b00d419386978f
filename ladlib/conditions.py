"""The conditions under which a pair is judged again, each unlike evaluation's in one thing only.

    for condition in conditions(load_profile("toy"), references=3):
        print(condition.factor, condition.level)

``blind`` and ``swapped`` are baselines: what the model says where it cannot see the test image (the reference
image stands in both places), and whether the verdict follows the place rather than the product (the two images
change places, the question stays). The others are choices that the paper leaves open and that should not matter:
which reference image, which words, which image first (the question says so), how many pairs at a time, which
numeric type.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ladlib import prompts
from ladlib.config import Profile
from ladlib.records import Factor, Pair, Seen

REFERENCES = 3  # other reference images of a test image
OTHER_DTYPE = {"float32": "bfloat16", "bfloat16": "float32"}


@dataclass(frozen=True)
class Condition:
    """How a pair is judged."""

    factor: Factor
    level: str
    question: str
    shown: tuple[Seen, Seen]
    reference: int  # place in the line of reference images; 0 is evaluation's
    batch_size: int
    dtype: str


def conditions(profile: Profile, references: int = REFERENCES) -> list[Condition]:
    """Evaluation's own condition, then every other; ``references`` is how many other reference images there are."""
    usual = Condition(
        factor="none", level="", question=prompts.QUESTION, shown=("reference", "test"), reference=0,
        batch_size=profile.evaluate.batch_size, dtype=profile.model.dtype,
    )  # fmt: skip
    other = OTHER_DTYPE[profile.model.dtype]
    return [
        usual,
        replace(usual, factor="blind", shown=("reference", "reference")),
        replace(usual, factor="swapped", shown=("test", "reference")),
        *(replace(usual, factor="reference", level=str(1 + n), reference=n) for n in range(1, 1 + references)),
        *(replace(usual, factor="wording", level=name, question=text) for name, text in prompts.WORDINGS.items()),
        replace(usual, factor="order", level="test first", question=prompts.TEST_FIRST, shown=("test", "reference")),
        replace(usual, factor="batch", level="1", batch_size=1),
        replace(usual, factor="dtype", level=other, dtype=other),
    ]


def subsample(pairs: Sequence[Pair], size: int) -> list[Pair]:
    """At most ``size`` of the good and logical ``pairs``, spread evenly over category and kind; always the same.

    Each category and kind gives one pair in turn, in the order of the hash of the test image's id.
    """
    strata: dict[tuple[str, str], int] = {}
    turns = []
    for one in sorted(pairs, key=lambda one: hashlib.sha256(one.id.encode()).digest()):
        if one.test.anomaly != "structural":
            stratum = one.test.category, one.test.anomaly
            strata[stratum] = strata.get(stratum, 0) + 1
            turns.append((strata[stratum], stratum, one))
    ordered = sorted(turns, key=lambda turn: turn[:2])
    return [one for *_, one in ordered[:size]]

"""Is there room to learn? Several answers to each of some training pairs, scored by pass@k.

    pass_frame(read_jsonl(run.samples("base", 0)))

GRPO can only strengthen what a policy sometimes does. Where pass@8 is no higher than pass@1, a group of
eight answers to one pair is right or wrong as a whole, and there is nothing to learn from.
"""

import math
from collections.abc import Sequence

import pandas as pd

from ladlib.toy.products import RuleKind

RULES: tuple[RuleKind, ...] = ("place", "count", "relation")
KS = (1, 8)


def pass_at(correct: int, drawn: int, k: int) -> float:
    """The chance that at least one of ``k`` of the ``drawn`` answers is right, ``correct`` of which are.

    Unbiased estimate of pass@k: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1).

    >>> pass_at(correct=2, drawn=8, k=1)
    0.25
    """
    if not 0 <= correct <= drawn or not 1 <= k <= drawn:
        raise ValueError(f"pass@{k} of {correct} right among {drawn} is not defined")
    return 1 - math.comb(drawn - correct, k) / math.comb(drawn, k)


def pass_frame(rows: Sequence[dict]) -> pd.DataFrame:
    """Mean pass@k of samples by arm, seed and rule ("all" included): columns arm, seed, rule, k, pass_at.

    ``k`` is each of :data:`KS` that is not more than what was drawn.
    """
    found = [
        {"arm": row["arm"], "seed": row["seed"], "rule": rule, "k": k,
         "pass_at": pass_at(sum(row["right"]), len(row["right"]), k)}
        for row in rows for rule in (row["rule"], "all") for k in KS if k <= len(row["right"])
    ]  # fmt: skip
    frame = pd.DataFrame(found, columns=["arm", "seed", "rule", "k", "pass_at"])
    return frame.groupby(["arm", "seed", "rule", "k"], sort=False, as_index=False)["pass_at"].mean()

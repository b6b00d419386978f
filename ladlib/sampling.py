"""Is there room to learn? Several answers to each of some training pairs, scored by pass@k.

    sample(load_profile("toy"), Path("data"), run, seed=0, arm="base", model="toy-base", per_rule=48)
    pass_frame(read_jsonl(run.samples("base", 0)))

GRPO can only strengthen what a policy sometimes does. Where pass@8 is no higher than pass@1, a group of
eight answers to one pair is right or wrong as a whole, and there is nothing to learn from.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ladlib.config import Profile
from ladlib.data.pairing import pair_images
from ladlib.errors import UserError
from ladlib.parsing import parse_answer
from ladlib.progress import Progress
from ladlib.records import Pair
from ladlib.runs import RunFolder, write_text
from ladlib.sft_data import balanced_pairs
from ladlib.toy.products import PRODUCTS, RuleKind

RULES: tuple[RuleKind, ...] = ("place", "count", "relation")
KS = (1, 8)
EVERYTHING = 10**9  # pairs: more than there are

_RULE_OF = {(product.dataset, product.name): product.rule_kind for product in PRODUCTS}


def sample(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, arm: str, model: str, per_rule: int
) -> Path:
    """Draw ``grpo.group_size`` completions for each of ``per_rule`` training pairs of every kind of rule.

    They are drawn as GRPO draws them: same temperature, length and banned tokens. Half of the pairs are
    anomalous; the same pairs are taken for every arm and seed, fewer where there are not enough. Writes
    ``run.samples(arm, seed)``, whole or not at all. Raises :class:`UserError` for data or a model that is
    not there.
    """
    import torch

    from ladlib import generate

    pairs = pairs_by_rule(profile, data_root, per_rule)
    policy, processor = generate.load(profile, model)
    torch.manual_seed(seed)
    size = max(1, profile.evaluate.batch_size // profile.grpo.group_size)
    batches = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    progress, lines = Progress(f"samples of {arm}", "batch", len(batches)), []
    for number, batch in enumerate(batches, 1):
        images = [pair_images(one, data_root, profile.data) for _, one in batch]
        groups = generate.sample_texts(policy, processor, images, profile)
        for (rule, one), texts in zip(batch, groups, strict=True):
            lines.append(json.dumps(_row(arm, seed, rule, one, texts), ensure_ascii=False) + "\n")
        progress.tell(number)
    write_text(run.samples(arm, seed), "".join(lines))
    return run.samples(arm, seed)


def pairs_by_rule(profile: Profile, data_root: Path | str, per_rule: int) -> list[tuple[RuleKind, Pair]]:
    """At most ``per_rule`` toy training pairs of each kind of rule: logical, good, logical, good, ...

    Raises :class:`UserError` where there are none.
    """
    data = profile.data.model_copy(update={"grpo_pairs": EVERYTHING})
    pairs = balanced_pairs(profile.model_copy(update={"data": data}), data_root, seed=0)
    kinds: dict[RuleKind, list[Pair]] = {rule: [] for rule in RULES}
    for logical, good in zip(pairs[::2], pairs[1::2], strict=True):
        rule = _rule_of(logical)
        if rule and rule == _rule_of(good) and len(kinds[rule]) + 2 <= per_rule:
            kinds[rule] += [logical, good]
    if not any(kinds.values()):
        raise UserError(f"{data_root} holds no pairs of toy products.", "Sample on the toy datasets.")
    return [(rule, one) for rule in RULES for one in kinds[rule]]


def _rule_of(one: Pair) -> RuleKind | None:
    return _RULE_OF.get((one.test.dataset, one.test.category))


def _row(arm: str, seed: int, rule: RuleKind, one: Pair, texts: list[str]) -> dict:
    answers = [parse_answer(text) for text in texts]
    return {
        "id": one.id, "arm": arm, "seed": seed, "dataset": one.test.dataset, "category": one.test.category,
        "rule": rule, "label": one.test.label, "texts": texts, "answers": answers,
        "right": [answer == one.test.label for answer in answers],
    }  # fmt: skip


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

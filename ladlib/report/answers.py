"""What notebook 04 shows of answers beyond scores: how sure, about which defects, and what training changed."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ladlib.errors import UserError
from ladlib.metrics import is_right
from ladlib.parsing import lenient_answer, parse, parse_answer
from ladlib.records import Generation
from ladlib.report.arithmetic import p_text
from ladlib.report.tables import NAMES
from ladlib.sanitize import strip_control
from ladlib.statistics import holm, mcnemar, paired_bootstrap


def form_frame(generations: Iterable[Generation]) -> pd.DataFrame:
    """Per arm: how many answers could be read, and what a lenient reading would change (shares)."""
    rows = [
        {
            "arm": NAMES.get(arm, arm),
            "images": len(rows),
            "well formed": np.mean([parse(one.text).well_formed for one in rows]),
            "unparsed": np.mean([parse_answer(one.text) is None for one in rows]),
            "cut off": np.mean([one.finish == "length" for one in rows]),
            "accuracy": np.mean([is_right(one) for one in rows]),
            "accuracy, first yes or no anywhere": np.mean([lenient_answer(one.text) == one.label for one in rows]),
        }
        for arm, rows in _by_arm(generations).items()
    ]
    return pd.DataFrame(rows).set_index("arm").round(3)


def unparsed_frame(generations: Iterable[Generation], n: int = 6) -> pd.DataFrame:
    """The first ``n`` completions that no answer could be read from; empty where there are none."""
    found = [one for one in generations if parse_answer(one.text) is None][:n]
    rows = [(one.arm, one.id, one.label, strip_control(one.text)[:400]) for one in found]
    return pd.DataFrame(rows, columns=["arm", "id", "label", "completion"])


def changes_frame(generations: Sequence[Generation], steps: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Two arms on the same images: answers mended and broken, the difference and how surely it is one.

    ``steps`` are (before, after) arms. The interval is a paired bootstrap's, in points; p is McNemar's exact, and
    beside it Holm's correction of it over all ``steps``, which are the family of claims.
    """
    right = {arm: {one.id: is_right(one) for one in rows} for arm, rows in _by_arm(generations).items()}
    rows = []
    for before, after in steps:
        ids = sorted(set(right[before]) & set(right[after]))
        first, second = ([right[arm][one] for one in ids] for arm in (before, after))
        gained = sum(new and not old for old, new in zip(first, second, strict=True))
        lost = sum(old and not new for old, new in zip(first, second, strict=True))
        difference, low, high = (100 * value for value in paired_bootstrap(first, second))
        rows.append(
            {
                "change": f"{NAMES.get(before, before)} → {NAMES.get(after, after)}", "images": len(ids),
                "mended": gained, "broken": lost, "accuracy, points": f"{difference:+.1f}",
                "95 % interval": f"{low:+.1f} to {high:+.1f}", "McNemar p": mcnemar(first, second),
            }
        )  # fmt: skip
    family = [p_text(one) for one in holm([row["McNemar p"] for row in rows])]
    return pd.DataFrame(
        [row | {"McNemar p": p_text(row["McNemar p"]), "p, Holm": one} for row, one in zip(rows, family, strict=True)]
    )


def _by_arm(generations: Iterable[Generation]) -> dict[str, list[Generation]]:
    arms: dict[str, list[Generation]] = {}
    for one in generations:
        arms.setdefault(one.arm, []).append(one)
    if not arms:
        raise UserError("There are no generations to show.", "Run notebook 04_evaluation first.")
    return arms

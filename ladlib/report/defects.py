"""How often each arm is right, by category, kind of image and defect: where the small numbers are, with intervals.

Good images are a kind of their own, without a defect; being right on them is specificity, elsewhere recall.
Unparsed answers are wrong, as everywhere.
"""

from collections.abc import Iterable

import pandas as pd

from ladlib.metrics import is_right
from ladlib.parsing import parse_answer
from ladlib.records import Generation
from ladlib.report.stored import Stored
from ladlib.report.tables import title_of
from ladlib.statistics import wilson

PLACE = ["category", "kind", "defect"]


def defects_frame(stored: Stored) -> pd.DataFrame:
    """One row an arm, category, kind and defect, seeds averaged; shares x 100, the interval Wilson's at 95 %.

    Columns: method, category, kind, defect, images, right, low, high, unparsed, seeds, label. Images with several
    defects are counted once, under all their names.
    """
    by_seed = _answers(stored.generations).groupby(["arm", "seed", *PLACE], sort=False)
    cells = by_seed.agg(images=("right", "size"), right=("right", "mean"), unparsed=("unparsed", "mean"))
    arms = cells.reset_index().groupby(["arm", *PLACE], sort=False)
    means = arms.agg(images=("images", "mean"), right=("right", "mean"), unparsed=("unparsed", "mean"))
    frame = means.join(arms["seed"].nunique().rename("seeds")).reset_index().sort_values(PLACE, kind="stable")
    ends = [wilson(round(row.right * row.images), round(row.images)) for row in frame.itertuples()]
    low, high = zip(*ends, strict=True)
    shares = frame.assign(low=low, high=high)[["right", "low", "high", "unparsed"]].mul(100).round(1)
    titles = {arm: title_of(stored, arm) for arm in frame["arm"].unique()}
    whole = frame.assign(
        **shares,
        images=frame["images"].round().astype(int),
        method=frame["arm"].map(titles),
        label=stored.profile.label,
    )
    return whole[["method", *PLACE, "images", "right", "low", "high", "unparsed", "seeds", "label"]]


def _answers(generations: Iterable[Generation]) -> pd.DataFrame:
    rows = [
        (one.arm, one.seed, one.category, one.anomaly, one.defect, is_right(one), parse_answer(one.text) is None)
        for one in generations
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", *PLACE, "right", "unparsed"])

"""Which defects of MVTec AD and VisA count as logical or functional.

LAD-Reasoner's GRPO data are test images of the two "curated to include logical and functional
anomalies"; which categories and defects that means is not published. ``logical.csv`` beside this
file is this project's own choice: defects in which a part is missing, extra, in the wrong place or
out of function, rather than damaged. Its key is (dataset, category, defect); to change the choice,
add or remove rows.
"""

import csv
from collections.abc import Iterable
from functools import cache
from importlib import resources

from ladlib.records import Anomaly, Dataset


@cache
def logical_defects() -> frozenset[tuple[str, str, str]]:
    """The rows of ``logical.csv`` as (dataset, category, defect)."""
    text = (resources.files("ladlib.data") / "logical.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return frozenset((row["dataset"], row["category"], row["defect"]) for row in rows)


def kind(dataset: Dataset, category: str, defects: Iterable[str]) -> Anomaly:
    """``logical`` where at least one of an image's ``defects`` is listed, else ``structural``."""
    listed = logical_defects()
    return "logical" if any((dataset, category, one) in listed for one in defects) else "structural"

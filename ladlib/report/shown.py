"""Tables as notebooks show them: wrapped text, left-aligned, no index; the comparison in blocks.

>>> as_table(pd.DataFrame({"item": ["group size"], "here": [8]}), "Settings")  # doctest: +SKIP
"""

from collections.abc import Iterable
from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from ladlib.report.tables import HEADINGS, readable

WRAPPED = {
    "text-align": "left", "white-space": "pre-wrap", "overflow-wrap": "break-word", "max-width": "34em",
    "vertical-align": "top",
}  # fmt: skip
NUMBERS = {"text-align": "right", "white-space": "nowrap", "vertical-align": "top"}
SHOWN = ("method", "accuracy", "interval", "f1", "balanced_accuracy", "recall", "specificity", "auroc", "unparsed")
TITLES = {"run": "{}", "trivial": "{}, baselines", "published": "{}"}


def as_table(frame: pd.DataFrame, caption: str = "") -> Styler:
    """A frame of short texts as a table whose cells wrap; text from outside is escaped."""
    styler = Styler(frame, uuid="shown", cell_ids=False, escape="html").hide(axis="index")
    styler.format(escape="html").set_properties(**WRAPPED)
    styler.set_table_styles([{"selector": "th", "props": [("text-align", "left")]}])
    return styler.set_caption(escape(caption)) if caption else styler


def comparison_blocks(comparison: pd.DataFrame, blocks: Iterable[str] = TITLES) -> Styler:
    """The comparison as one table whose blocks are headed by the label of their numbers (x 100)."""
    chosen = comparison[comparison["block"].isin(list(blocks))]
    titles = [TITLES[row["block"]].format(row["label"]) for _, row in chosen.iterrows()]
    shown = readable(chosen[list(SHOWN)]).assign(**{"numbers of": titles})
    shown = shown.set_index(["numbers of", HEADINGS["method"]])
    styler = Styler(shown, uuid="comparison", cell_ids=False, escape="html").set_properties(**NUMBERS)
    heads = [("text-align", "left"), ("vertical-align", "top")]
    styles = [{"selector": "th.row_heading, th.index_name", "props": heads}]
    return styler.set_table_styles(styles).set_caption("× 100; positive is anomalous; good + logical images")

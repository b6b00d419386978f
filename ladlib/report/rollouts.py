"""A group of rollouts as a table: what the policy tried, and what each try earned."""

import pandas as pd
from pandas.io.formats.style import Styler

from ladlib.report.style import strip_control

SHOWN = 2_000  # characters of a completion; the run keeps all of them
COLUMNS = ("completion", "accuracy", "format", "reward", "advantage")


def rollout_frame(rollout: dict) -> pd.DataFrame:
    """One row a completion of the group, in the order sampled."""
    rows = [{**one, "completion": _shown(one["text"])} for one in rollout["completions"]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _shown(text: str) -> str:
    left = len(text) - SHOWN
    return strip_control(text[:SHOWN]) + (f" … ({left:,} more characters)" if left > 0 else "")


def rollout_table(rollout: dict) -> Styler:
    """The same for a notebook: wrapped text, and a bar for each advantage (blue up, red down)."""
    frame = rollout_frame(rollout)
    # Values from outside are escaped; a fixed id and no cell ids make two renderings the same bytes.
    styler = Styler(frame, uuid=f"rollout{rollout['step']}", cell_ids=False, escape="html")
    title = f"step {rollout['step']}, {rollout['id']}: the label is {rollout['label']}"
    return (
        styler.format(
            {"accuracy": "{:.0f}", "format": "{:.0f}", "reward": "{:.2f}", "advantage": "{:+.2f}"},
            escape="html",
        )
        .hide(axis="index")
        .bar(subset=["advantage"], align="mid", vmin=-2.5, vmax=2.5, color=["#F2B48A", "#9CCBE8"])
        .set_properties(subset=["completion"], **{"text-align": "left", "white-space": "pre-wrap", "max-width": "46em"})
        .set_table_styles([{"selector": "th.col0", "props": [("text-align", "left")]}])
        .set_caption(title.replace("<", "&lt;"))
    )


def telling(rollouts: list[dict]) -> dict | None:
    """The last group whose rewards differ: the one a reader can learn from; else the last one."""
    spread = [one for one in rollouts if len({each["reward"] for each in one["completions"]}) > 1]
    return (spread or rollouts or [None])[-1]

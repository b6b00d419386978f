"""What notebook 03 shows of groups of completions: their pairs of images, their rewards, their spread.

A group is a row of ``logs/<arm>-seed<k>-rollouts.jsonl``: several completions of one prompt.
"""

from collections.abc import Sequence

import pandas as pd

TRENDS = (
    "reward", "accuracy_reward", "format_reward", "frac_reward_zero_std", "completion_length", "clipped_share",
    "yes_rate", "kl", "entropy",
)  # fmt: skip


def start_and_end(log_rows: Sequence[dict], share: float = 0.2) -> pd.DataFrame:
    """Mean of each quantity over the first and the last ``share`` of the steps, and the change."""
    frame_ = pd.DataFrame(log_rows)[list(TRENDS)].astype(float)
    count = max(1, round(share * len(frame_)))
    first, last = frame_.head(count).mean(), frame_.tail(count).mean()
    table = pd.DataFrame({"start": first, "end": last, "change": last - first}).round(3)
    return table.rename_axis("mean over steps")

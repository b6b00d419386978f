"""What P(anomalous) is worth: how well it ranks, how far a threshold tuned on the test set gets, is it what it says.

F1-max is tuned on the very images it is scored on: no one could have known that threshold, and it is no F1.
"""

import pandas as pd

from ladlib.report.stored import Stored
from ladlib.report.tables import readable, title_of

MEASURES = {
    "auroc": "AUROC", "average_precision": "average precision", "f1": "F1",
    "f1_max_tuned_on_test": "F1-max, tuned on test", "ece": "ECE", "mcc": "MCC",
}  # fmt: skip


def calibration_frame(stored: Stored) -> pd.DataFrame:
    """One row an arm on its pooled good + logical images, seeds averaged: method, ``MEASURES``, images, seeds, label.

    Values are x 100; a measure that one of the seeds lacks has none.
    """
    pooled = [row for row in stored.metrics if (row["subset"], row["category"]) == ("logical", "pooled")]
    rows = pd.DataFrame(pooled, columns=["arm", "n", *MEASURES]).astype(dict.fromkeys(MEASURES, float))
    arms = rows.groupby("arm", sort=False)
    means = (100 * arms[list(MEASURES)].mean(skipna=False)).round(1) + 0.0  # no -0.0
    whole = means.assign(images=arms["n"].mean().round().astype(int), seeds=arms.size(), label=stored.profile.label)
    whole.insert(0, "method", [title_of(stored, arm) for arm in whole.index])
    return whole.reset_index(drop=True)


def calibration_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`calibration_frame` to be read."""
    return readable(frame.rename(columns=MEASURES))

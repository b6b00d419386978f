"""Every arm of a study over its seeds: means, bands and single values, x 100, on good + logical images.

The good + logical images of toy MVTec LOCO AD are the paper's protocol; categories are pooled. A band is the
lowest and the highest seed. Three readings stand side by side: balanced accuracy of the strictly parsed answer
and of the first yes or no anywhere, and the area under the ROC curve of P(anomalous).
"""

import pandas as pd

from ladlib.records import ARMS, TRIVIAL_ARMS
from ladlib.report.stored import Stored
from ladlib.report.tables import MISSING, name, readable

MEASURES = {
    "accuracy": "Acc", "balanced_accuracy": "bal. acc, strict", "lenient_balanced_accuracy": "bal. acc, lenient",
    "auroc": "AUROC", "f1": "F1", "recall": "recall", "specificity": "specificity", "format_rate": "well formed",
    "unparsed": "unparsed",
}  # fmt: skip
READINGS = {"strict": "balanced_accuracy", "lenient": "lenient_balanced_accuracy", "likelihood": "auroc"}


def seeds_frame(stored: Stored) -> pd.DataFrame:
    """One row an arm and seed: arm, seed, method, the keys of ``MEASURES`` (x 100), images, label."""
    pooled = [row for row in stored.metrics if (row["subset"], row["category"]) == ("logical", "pooled")]
    rows = [
        {"arm": row["arm"], "seed": row["seed"], "method": name(row["arm"], stored.profile)}
        | {key: _percent(value) for key, value in (row | {"unparsed": row["unparsed"] / row["n"]}).items()
           if key in MEASURES}
        | {"images": round(row["n"]), "label": stored.profile.label}
        for row in pooled
    ]  # fmt: skip
    columns = ["arm", "seed", "method", *MEASURES, "images", "label"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(MEASURES, float))


def arms_frame(stored: Stored) -> pd.DataFrame:
    """One row an arm: the mean over seeds of each key of ``MEASURES``, with ``<key>_low`` and ``<key>_high``.

    All arms of the study have a row, those not run yet one without values; then other arms there may be, then
    the trivial ones.
    """
    found = {arm: rows for arm, rows in seeds_frame(stored).groupby("arm", sort=False)}
    others = [arm for arm in found if arm not in ARMS + TRIVIAL_ARMS]
    rows = [
        {"arm": arm, "method": name(arm, stored.profile)}
        | (_over_seeds(found[arm]) if arm in found else {"seeds": 0})
        | {"label": stored.profile.label}
        for arm in (*ARMS, *others, *TRIVIAL_ARMS)
    ]  # fmt: skip
    ends = [f"{key}{end}" for key in MEASURES for end in ("", "_low", "_high")]
    frame = pd.DataFrame(rows).reindex(columns=["arm", "method", *ends, "images", "seeds", "label"])
    return frame.astype(dict.fromkeys(ends, float) | {"images": "Int64", "seeds": "Int64"}).round(2)


def _over_seeds(rows: pd.DataFrame) -> dict:
    means = {key: rows[key].mean(skipna=False) for key in MEASURES}
    lows = {f"{key}_low": rows[key].min(skipna=False) for key in MEASURES}
    highs = {f"{key}_high": rows[key].max(skipna=False) for key in MEASURES}
    return means | lows | highs | {"images": rows["images"].min(), "seeds": len(rows)}


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def seeds_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`seeds_frame` to be read."""
    shown = frame[["method", "seed", *MEASURES, "images", "label"]].rename(columns=MEASURES)
    return readable(shown)


def arms_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`arms_frame` to be read: mean and band in one cell; an arm without generations says so."""
    shown = {
        title: [banded(row[key], row[f"{key}_low"], row[f"{key}_high"]) for _, row in frame.iterrows()]
        for key, title in MEASURES.items()
    }
    methods = [row["method"] + ("" if row["seeds"] else ": not run") for _, row in frame.iterrows()]
    return pd.DataFrame({"method": methods} | shown).join(readable(frame[["images", "seeds", "label"]]))


def banded(mean: float, low: float, high: float) -> str:
    """``61.2 (60.3–62.5)``; the mean alone where the band has no width, a dash without a value."""
    if pd.isna(mean):
        return MISSING
    return f"{mean:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{mean:.1f} ({low:.1f}–{high:.1f})"

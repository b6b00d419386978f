"""What notebook 04 shows of answers beyond scores: how sure, about which defects, and what training changed."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ladlib.calibration import expected_calibration_error, reliability
from ladlib.errors import UserError
from ladlib.metrics import is_right, judge, ranks
from ladlib.parsing import lenient_answer, parse, parse_answer
from ladlib.records import Generation
from ladlib.report.arithmetic import p_text
from ladlib.report.style import ANOMALY_COLOURS, ARM_COLOURS, ARM_DASHES, GREY, INK, canvas, strip_control, styled
from ladlib.report.tables import NAMES
from ladlib.statistics import holm, mcnemar, paired_bootstrap

BINS = np.linspace(0, 1, 21)


@styled
def certainty(generations: Iterable[Generation]) -> Figure:
    """Histograms of P(anomalous), a panel an arm, a colour a kind of image; 0.5 is marked.

    Answers whose P(anomalous) is not known are left out.
    """
    arms = _by_arm(generations)
    figure = canvas(max(4.2, 3.4 * len(arms)), 2.9)
    panels = figure.subplots(1, len(arms), squeeze=False, sharey=True)[0]
    for axes, (arm, rows) in zip(panels, arms.items(), strict=True):
        for kind, colour in ANOMALY_COLOURS.items():
            scores = [one.p_yes for one in rows if one.anomaly == kind and one.p_yes is not None]
            if scores:
                shares = np.full(len(scores), 1 / len(scores))
                look = {"histtype": "stepfilled", "facecolor": (*to_rgb(colour), 0.18), "edgecolor": colour}
                axes.hist(scores, BINS, weights=shares, label=kind, linewidth=1.6, **look)
        axes.axvline(0.5, color=INK, linewidth=0.8, linestyle="--")
        axes.set(title=NAMES.get(arm, arm), xlabel="P(anomalous)", xlim=(0, 1))
    panels[0].set_ylabel("share of that kind's images")
    for axes in [one for one in panels if one.get_legend_handles_labels()[0]][-1:]:
        axes.legend()
    return figure


@styled
def calibration(generations: Iterable[Generation]) -> Figure:
    """The reliability diagram of every arm that tells P(anomalous), its calibration error (ECE) x 100 beside it.

    A dot is a tenth of the scale, its area the images there; on the grey line P(anomalous) means what it says.
    """
    figure = canvas(4.6, 4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for arm, rows in _by_arm(generations).items():
        truth, said = [one.label == "yes" for one in rows], ranks([judge(one) for one in rows])
        if said:
            points, error = reliability(truth, said), expected_calibration_error(truth, said)
            look = {"color": ARM_COLOURS.get(arm, GREY), "label": f"{NAMES.get(arm, arm)}  {100 * error:.1f}"}
            axes.plot(
                [one.said for one in points],
                [one.true for one in points],
                linewidth=1.2,
                linestyle=ARM_DASHES.get(arm, "-"),
                **look,
            )
            areas = [150 * one.images / len(rows) + 8 for one in points]
            axes.scatter([one.said for one in points], [one.true for one in points], areas, look["color"])
    axes.set(title="Is P(anomalous) what it says?", xlabel="mean P(anomalous)", ylabel="share that is anomalous")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", title="ECE x 100")
    return figure


@styled
def found_by_defect(generations: Iterable[Generation]) -> Figure:
    """Of the anomalous images of each category and defect, the share that each arm found; counts beside."""
    rows = [
        (_title(one), NAMES.get(one.arm, one.arm), is_right(one)) for one in generations if one.anomaly != "good"
    ]  # fmt: skip
    if not rows:
        raise UserError("There are no anomalous images among the generations.", "Run notebook 04_evaluation first.")
    frame = pd.DataFrame(rows, columns=["defect", "arm", "right"])
    arms = list(dict.fromkeys(frame["arm"]))
    shares = frame.pivot_table(index="defect", columns="arm", values="right", aggfunc="mean")[arms]
    counts = frame[frame["arm"] == arms[0]].groupby("defect").size().reindex(shares.index, fill_value=0)
    figure = canvas(3.2 + 1.1 * len(arms), 0.9 + 0.24 * len(shares))
    axes = figure.subplots()
    axes.imshow(shares, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto", alpha=0.85)
    for (line, column), share in np.ndenumerate(shares.to_numpy(dtype=float)):
        colour = "white" if share > 0.6 else INK
        axes.text(column, line, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(shares)), [f"{name}  ({count})" for name, count in counts.items()], parse_math=False)
    axes.set_xticks(range(len(arms)), arms)
    axes.set_title("Anomalies found, by defect (images)")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


def _title(one: Generation) -> str:
    return f"{one.category}: {one.defect}".replace("_", " ")


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

"""The threshold on P(anomalous): move it, and watch the confusion matrix and the scores move."""

from collections.abc import Iterable, Sequence

import ipywidgets
from matplotlib.figure import Figure

from ladlib.explore.view import Explorer, choice, explorer, note, picture, side_by_side, table
from ladlib.metrics import is_right, judge, measure
from ladlib.records import Generation
from ladlib.report.style import INK, RED, SKY, canvas, styled

SCORES = {
    "accuracy": "accuracy", "f1": "F1", "recall": "recall", "specificity": "specificity",
    "balanced_accuracy": "balanced accuracy",
}  # fmt: skip


def threshold_slider(generations: Iterable[Generation]) -> Explorer:
    """Which model, and from which P(anomalous) on an image is called anomalous.

    Only answers with a P(anomalous) take part. Raises :class:`UserError` where there is none.
    """
    by_arm: dict[str, list[Generation]] = {}
    for one in generations:
        if one.p_yes is not None:
            by_arm.setdefault(one.arm, []).append(one)
    arm = choice("Model", list(by_arm)[::-1], "Whose answers are counted")
    at = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.01, description="Threshold", tooltip="On P(anomalous)")
    return explorer("Threshold on P(anomalous)", lambda arm, at: _view(by_arm[arm], at), arm=arm, at=at)


def measured_at(generations: Sequence[Generation], at: float) -> dict:
    """The counts and scores of :func:`ladlib.metrics.measure`, an image being called anomalous from ``at`` on."""
    return measure([judge(one)._replace(called=one.p_yes >= at) for one in generations])


def _view(rows: Sequence[Generation], at: float) -> str:
    counts, right = measured_at(rows, at), sum(map(is_right, rows))
    matrix = table(
        ["", "called good", "called anomalous"],
        [
            ["good", f"TN <b>{counts['tn']}</b>", f"FP <b>{counts['fp']}</b>"],
            ["anomalous", f"FN <b>{counts['fn']}</b>", f"TP <b>{counts['tp']}</b>"],
        ],
        f"Anomalous from {at:.2f} on",
    )
    scores = table(["score", "value"], [[name, _shown(counts[key])] for key, name in SCORES.items()])
    said = note(
        f"As the model itself answered, {right} of {len(rows)} are right. A threshold chosen by looking at these very "
        "images gives no honest score; that is what F1-max is."
    )
    alt = f"Histogram of P(anomalous) of good and of anomalous images, the threshold at {at:.2f}"
    return side_by_side(picture(_histogram(rows, at), alt), matrix + scores) + said


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@styled
def _histogram(rows: Sequence[Generation], at: float) -> Figure:
    """Good and anomalous images by P(anomalous), and where the line is drawn."""
    values = {label: [one.p_yes for one in rows if one.label == label] for label in ("no", "yes")}
    figure = canvas(4.6, 2.6)
    axes = figure.subplots()
    bins = [step / 20 for step in range(21)]
    axes.hist(values["no"], bins, color=SKY, alpha=0.7, label="good")
    axes.hist(values["yes"], bins, color=RED, alpha=0.5, hatch="///", edgecolor="white", label="anomalous")
    axes.axvline(at, color=INK, linestyle="--")
    axes.set(xlabel="P(anomalous)", ylabel="images", xlim=(0, 1))
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.2))
    return figure

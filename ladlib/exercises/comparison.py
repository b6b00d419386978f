"""Exercises of notebook 05: the step of an accuracy, rows that beat not looking, and what one more digit would cost."""

from collections.abc import Collection
from math import isclose
from numbers import Real

import pandas as pd

from ladlib.exercises.exercise import Exercise, Test, near
from ladlib.report.arithmetic import released_counts
from ladlib.statistics import wilson

BLIND = ("always anomalous", "always normal")

# about: how many images were judged
one_image = Exercise(
    kind=Real,
    empty="Accuracy in per cent is 100 times right answers by images. By how much does one right answer more move it?",
    is_right=near(lambda images: 100 / images),
    mistakes=(
        (near(lambda images: 1 / images), "As a share, yes. In points of per cent it is a hundred times that."),
        (near(lambda images: 1.0), "One image is one point only where there are a hundred images."),
        (
            near(lambda images: 200 / images),
            "That is two images. An answer that was wrong and is right now adds one to the right ones.",
        ),
    ),
    otherwise="100 divided by the number of images.",
    why="An accuracy moves in such steps, so a printed one is as good as a count; no value between them exists.",
)


def _always_yes_f1() -> float:
    """F1 x 100 of calling every good and logical image anomalous, on the released counts."""
    totals = released_counts().sum()
    return float(200 * totals["logical"] / (2 * totals["logical"] + totals["good"]))


def _ahead(rows: pd.DataFrame) -> set[str]:
    """The methods with a higher F1 than always saying yes, which is left out itself."""
    looking = rows[~rows["method"].isin(BLIND)]
    return set(looking.loc[looking["f1"] > _always_yes_f1(), "method"])


# about: the published rows, with columns method and f1
above_always_yes = Exercise(
    kind=Collection,
    empty="Section 1 has the F1 to beat. Give the names of the methods above it as a list, or an empty one.",
    is_right=lambda answer, rows: set(answer) == _ahead(rows),
    mistakes=(
        (
            lambda answer, _: bool(set(answer) & set(BLIND)),
            "A constant answer looks at nothing. The question is which methods beat it.",
        ),
        (
            lambda answer, rows: bool(set(answer) - set(rows["method"])),
            "Not all of these are names of the column `method`. Copy them from there.",
        ),
        (
            lambda answer, rows: bool(set(answer) - _ahead(rows)),
            "Too many. Put the F1 of each beside the F1 of always yes, not beside another model's.",
        ),
    ),
    otherwise="One is missing: `rows[rows['f1'] > ...]` finds them.",
    why="Not one published F1 on this benchmark is above that of a program that never opens an image. So F1 cannot be "
    "what shows progress here.",
)


def _half_width(images: int, accuracy: float) -> float:
    """Of Wilson's interval, in 0..1."""
    low, high = wilson(round(accuracy * images), images)
    return (high - low) / 2


def _enough(share: float) -> int:
    """Images at which half the width of the 95 % interval around the accuracy is one point."""
    enough, too_few = 2, 1
    while _half_width(enough, share) > 0.01:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (middle, enough) if _half_width(middle, share) > 0.01 else (too_few, middle)
    return enough


def _times(factor: float) -> Test:
    return lambda answer, share: isclose(answer, factor * _enough(share), rel_tol=0.015)


# about: the accuracy, in 0..1
images_for_a_point = Exercise(
    kind=Real,
    empty="Call `wilson(round(accuracy * n), n)` with a few numbers of images n, until half the width is 0.01.",
    is_right=lambda answer, share: isclose(answer, _enough(share), rel_tol=0.02),
    mistakes=(
        (_times(1 / 4), "At so many the whole width is four points. Half of it is to be one."),
        (_times(4), "At so many the whole width is one point. Half of it is to be one."),
        (_times(1 / 1.96**2), "That is one standard error. A 95 % interval reaches 1.96 of them to each side."),
        (lambda answer, share: answer < _enough(share), "Too few: the interval is still wider."),
    ),
    otherwise="More than needed.",
    why="Certainty goes with the root of the number: half the width costs four times the images. The whole of MVTec "
    "LOCO AD has far fewer.",
)

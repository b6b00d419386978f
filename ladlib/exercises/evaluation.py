"""Exercises of notebook 04: a flattered score, a threshold of one's own, and how much luck can look like."""

from collections.abc import Sequence
from numbers import Real

from ladlib.exercises.exercise import Exercise, near
from ladlib.explore.threshold import measured_at
from ladlib.metrics import is_right, judge
from ladlib.records import Generation
from ladlib.statistics import mcnemar


def _right(answers: Sequence[Generation]) -> int:
    return sum(map(is_right, answers))


def _read(answers: Sequence[Generation]) -> int:
    """How many answers could be read."""
    return sum(not judge(one).unparsed for one in answers)


# about: one model's generations
flattered_accuracy = Exercise(
    kind=Real,
    empty="An answer that cannot be read is None. Keep the others, and see how many of them are the label.",
    is_right=near(lambda answers: _right(answers) / max(1, _read(answers))),
    mistakes=(
        (
            near(lambda answers: _right(answers) / len(answers)),
            "That is the honest one: unread answers stay in the denominator. What if they are left out?",
        ),
        (near(lambda answers: _read(answers) / len(answers)), "That is the share that could be read at all."),
        (
            near(lambda answers: (_right(answers) + len(answers) - _read(answers)) / len(answers)),
            "You have counted the unread answers as right. They are to be left out altogether.",
        ),
    ),
    otherwise="Right answers, divided by the answers that could be read.",
    why="Never below the honest accuracy, and higher the more a model rambles: so every table here has a column for "
    "what could not be read.",
)


def _balanced(answers: Sequence[Generation], threshold: float) -> float:
    """Balanced accuracy of those with a P(anomalous), from ``threshold`` on; 0 where it is not defined."""
    known = [one for one in answers if one.p_yes is not None]
    return (measured_at(known, threshold)["balanced_accuracy"] or 0.0) if known else 0.0


def _best(answers: Sequence[Generation]) -> float:
    """The largest balanced accuracy that any threshold reaches."""
    return max((_balanced(answers, one.p_yes) for one in answers if one.p_yes is not None), default=0.0)


# about: one model's generations
best_threshold = Exercise(
    kind=Real,
    empty="Only the values of `p_yes` that occur are worth trying. Try each, and keep the best.",
    is_right=lambda answer, answers: 0 <= answer <= 1 and _balanced(answers, answer) >= _best(answers) - 1e-9,
    mistakes=(
        (lambda answer, _: not 0 <= answer <= 1, "A threshold on a probability lies between 0 and 1."),
        (
            lambda answer, answers: abs(_balanced(answers, answer) - 0.5) < 1e-9,
            "There it calls all images the same, or does no better than that: balanced accuracy one half.",
        ),
        (
            lambda answer, answers: _balanced(answers, answer) >= _balanced(answers, 0.5),
            "At least as good as one half, and there is a better one still.",
        ),
    ),
    otherwise="Even one half does better. Move the slider of section 5, and watch the balanced accuracy.",
    why="And it is no score: it was found by looking at the labels of the very images it is scored on. A threshold has "
    "to be fixed on other images first.",
)


def _p(mended: int, broken: int) -> float:
    first = [False] * mended + [True] * broken
    return mcnemar(first, [not one for one in first]) if first else 1.0


def _enough(broken: int) -> int:
    """The fewest mended answers that McNemar's test takes for more than luck, at 5 %."""
    mended = broken
    while _p(mended, broken) >= 0.05:
        mended += 1
    return mended


# about: how many answers training broke
mended_enough = Exercise(
    kind=Real,
    empty="Begin with as many mended as broken, and go up until the p-value falls below 0.05.",
    is_right=lambda answer, broken: answer == _enough(broken),
    mistakes=(
        (lambda answer, broken: answer <= broken, "Then no more were mended than broken: there is no gain at all."),
        (
            lambda answer, broken: answer == broken + 1,
            "One more than were broken: a fair coin does that, or better, nearly every other time.",
        ),
        (
            lambda answer, broken: answer < _enough(broken),
            "Not enough: a fair coin splits them at least so unevenly in more than one of twenty cases.",
        ),
    ),
    otherwise="That is enough, and fewer are too.",
    why="What both models got right, or both wrong, has no part in it: a test set is as large as its changes are many.",
)

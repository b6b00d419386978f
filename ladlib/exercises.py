"""The exercises of the notebooks: a check replies with what to try next, not only with right or wrong.

>>> check("05-1", 1 / 200, 200)
Not yet. As a share, yes. In percentage points it is a hundred times that.

The expected values are computed from the pairs, logs and answers of the run (``about``); none is typed.
"""

import math
from collections.abc import Callable, Collection, Mapping
from functools import cache
from html import escape
from numbers import Real
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import Any, NamedTuple

import yaml

from ladlib.parsing import parse_answer
from ladlib.rewards import STD_OFFSET

COLOURS = {"To do": "#0072B2", "Not yet": "#E69F00", "Right": "#009E73"}
TYPES = {Real: "a number", Callable: "a lambda", Mapping: "a dictionary", Collection: "a list or a set"}
Test = Callable[[Any, Any], bool]  # of an answer and what the question is about
LOGGED = {"accuracy_reward": 0.5, "format_reward": 1.0, "yes_rate": 0.0, "frac_reward_zero_std": 1.0}
CONSTANT = ("always anomalous", "always normal")  # published rows that look at no image

REASON = "The reference image has two washers, one above the other, and here the lower washer is missing."
TEXTS = HONEST, HOLLOW, REPEATED, STUFFED = tuple(
    f"<think>{thinking}</think><answer>yes</answer>"
    for thinking in (REASON, "yes", " ".join([REASON] * 10), f"{REASON} because missing different not same wrong " * 10)
)


class Reply(NamedTuple):
    """What a check replies, in a notebook behind a coloured bar."""

    mark: str  # of COLOURS
    text: str

    def __repr__(self) -> str:
        return f"{self.mark}. {self.text}"

    def _repr_html_(self) -> str:
        style = f"border-left:5px solid {COLOURS[self.mark]};padding:0.2em 0.8em;max-width:60em"
        return f"<p role='status' style='{style}'><b>{self.mark}.</b> {escape(self.text)}</p>"


class Question(NamedTuple):
    """A question; its words are in the notebook, those of its replies in ``assets/exercises.yaml``."""

    type: type  # of the answer, one of TYPES
    expected: Test
    mistakes: tuple[Test, ...]  # the first that applies gives its hint


def check(number: str, answer: object, about: object = None) -> Reply:
    """A hint, or why the right answer matters; ``None`` is no answer yet. What a lambda raises is raised."""
    question, texts = QUESTIONS[number], read_texts()[number]
    if answer is None:
        return Reply("To do", texts["start"])
    if not isinstance(answer, question.type) or isinstance(answer, bool | str):
        return Reply("Not yet", f"The answer is {TYPES[question.type]}, got type {type(answer).__name__}.")
    if question.expected(answer, about):
        return Reply("Right", texts["why"])
    hints = zip(question.mistakes, texts["mistakes"], strict=True)
    return Reply("Not yet", next((hint for applies, hint in hints if applies(answer, about)), texts["otherwise"]))


@cache
def read_texts() -> dict[str, dict]:
    """By question: where to ``start``, the hints for ``mistakes``, for any ``otherwise`` wrong answer, and ``why``."""
    return yaml.safe_load((Path(__file__).parent / "assets" / "exercises.yaml").read_text(encoding="utf-8"))


def near(value: Callable[[Any], float], tolerance: float = 0.005) -> Test:
    """Whether an answer is ``value`` of what the question is about, to a relative ``tolerance``."""
    return lambda answer, about: math.isclose(answer, value(about), rel_tol=tolerance, abs_tol=1e-9)


def _always_yes(pairs: Collection, positive: tuple[str, ...] = ("logical",)) -> tuple[int, int]:
    """(true positives, false positives) if every image is called anomalous."""
    kinds = [pair.test.anomaly for pair in pairs]
    return sum(kind in positive for kind in kinds), kinds.count("good")


def _f1(tp: int, fp: int) -> float:
    return 2 * tp / (2 * tp + fp)


def _tokens(images: Collection, width: int = 1, height: int = 1) -> int:
    return sum(width * image.width // 28 * (height * image.height // 28) for image in images)


def _learned(labels: Collection[int]) -> int:
    return sum(label != -100 for label in labels)


def _is_scaled(reward: Callable) -> bool:
    return all(isinstance(score, Real) and 0 <= score <= 1 for score in map(reward, TEXTS))


def _prefers_reason(reward: Callable) -> bool:
    return reward(HONEST) > reward(HOLLOW)


def _is_gamed(reward: Callable) -> bool:
    return max(reward(REPEATED), reward(STUFFED)) > reward(HONEST)


def _has_all(answer: Mapping) -> bool:
    return all(isinstance(answer.get(name), Real) for name in LOGGED)


def _off(name: str, sign: int = 0) -> Test:
    """Whether the answer's value of ``name`` is wrong: too high (1), too low (-1) or either (0).

    If every completion is the same well-formed "no", the accuracy reward is the share of good products.
    """

    def test(answer: Mapping, pairs: Collection) -> bool:
        settled = LOGGED | {"accuracy_reward": fmean(pair.test.label == "no" for pair in pairs)}
        difference = answer[name] - settled[name]
        return abs(difference) > 0.02 and difference * sign >= 0

    return test


def _any_off(answer: Mapping, pairs: Collection) -> bool:
    return any(_off(name)(answer, pairs) for name in LOGGED)


def _counts(answers: Any) -> tuple[int, int, int]:
    """(right, parsed, all) of a DataFrame of answers."""
    parsed = [parse_answer(text) for text in answers["text"]]
    right = sum(answer == label for answer, label in zip(parsed, answers["label"], strict=True))
    return right, len(parsed) - parsed.count(None), len(parsed)


def balanced_accuracy(answers: Any, threshold: float) -> float:
    """The mean of recall and specificity if an image is called anomalous from P(anomalous) = ``threshold``."""
    known = answers[answers["p_yes"].notna()]
    called, anomalous = known["p_yes"] >= threshold, known["label"] == "yes"
    if anomalous.all() or not anomalous.any():
        return 0.0
    return float((called[anomalous].mean() + 1 - called[~anomalous].mean()) / 2)


def _is_best(answers: Any, threshold: float) -> bool:
    best = max((balanced_accuracy(answers, value) for value in answers["p_yes"].dropna().unique()), default=0.0)
    return balanced_accuracy(answers, threshold) >= best - 1e-9


def _corrected(lost: int) -> int:
    """The fewest corrected answers beside ``lost`` ones for which McNemar's p is below 0.05."""
    from ladlib.statistics import mcnemar

    tried = range(max(lost, 1), 1000)
    return next(n for n in tried if mcnemar([True] * lost + [False] * n, [False] * lost + [True] * n) < 0.05)


def _above(rows: Any) -> set[str]:
    """The methods with a higher F1 than always answering yes."""
    looking, constant = rows[~rows["method"].isin(CONSTANT)], rows[rows["method"] == CONSTANT[0]]
    return set(looking.loc[looking["f1"] > constant["f1"].iloc[0], "method"])


def _images(share: float) -> int:
    """The images at which half of Wilson's 95 % interval is one point."""
    from ladlib.statistics import wilson

    low, high = 1, 1_000_000
    while high - low > 1:
        middle = (low + high) // 2
        ends = wilson(round(share * middle), middle)
        low, high = (middle, high) if ends[1] - ends[0] > 0.02 else (low, middle)
    return high


QUESTIONS = {
    # about the pairs of MVTec LOCO AD's test set
    "01-1": Question(Real, near(lambda pairs: _f1(*_always_yes(pairs))), (
        near(lambda pairs: _always_yes(pairs)[0] / sum(_always_yes(pairs))),
        near(lambda pairs: _f1(*_always_yes(pairs, ("logical", "structural")))),
        near(lambda pairs: 1),
        near(lambda pairs: 100 * _f1(*_always_yes(pairs))),
    )),
    # about the two images of a pair, as the model sees them
    "01-2": Question(Real, near(lambda images: _tokens(images, 2, 2)), (
        near(lambda images: _tokens(images, 2)),
        near(_tokens),
        near(lambda images: 4 * _tokens(images, 2, 2)),
    )),
    # about the number of normal images that a category has to choose reference images from
    "01-3": Question(Real, near(lambda normals: 1 / (normals + 1), 1e-4), (
        near(lambda normals: 1 / normals, 1e-4),
        lambda answer, normals: 0.5 < answer <= 1 < normals,
        lambda answer, normals: answer == 0,
    )),
    # about the labels of one conversation, one per token
    "02-1": Question(Real, near(lambda labels: _learned(labels) / len(labels)), (
        near(lambda labels: 1 - _learned(labels) / len(labels)),
        near(_learned),
        near(lambda labels: 100 * _learned(labels) / len(labels)),
    )),
    # about the number of different tokens
    "02-2": Question(Real, near(math.log), (
        near(math.log2), near(math.log10), near(lambda size: 1 / size), near(lambda size: -math.log(size)),
    )),
    # about (steps, batch size, conversations)
    "02-3": Question(Real, near(lambda about: about[0] * about[1] / about[2]), (
        near(lambda about: about[0] / about[2]),
        near(lambda about: about[2] / (about[0] * about[1])),
        near(lambda about: about[0] * about[1]),
    )),
    # about the rewards of a group
    "03-1": Question(Real, near(lambda rewards: (rewards[0] - fmean(rewards)) / (stdev(rewards) + STD_OFFSET)), (
        near(lambda rewards: rewards[0] - fmean(rewards)),
        near(lambda rewards: (rewards[0] - fmean(rewards)) / pstdev(rewards)),
        near(lambda rewards: rewards[0]),
        near(lambda rewards: (rewards[-1] - fmean(rewards)) / stdev(rewards)),
    )),
    "03-2": Question(
        Callable, lambda reward, _: _is_scaled(reward) and _prefers_reason(reward) and not _is_gamed(reward), (
            lambda reward, _: not _is_scaled(reward),
            lambda reward, _: len({reward(text) for text in TEXTS}) == 1,
            lambda reward, _: not _prefers_reason(reward),
            lambda reward, _: _is_gamed(reward),
        )),
    "03-3": Question(Callable, lambda reward, _: _prefers_reason(reward) and _is_gamed(reward), (
        lambda reward, _: not _prefers_reason(reward),
    )),
    # about the pairs that GRPO is trained on
    "03-4": Question(Mapping, lambda answer, pairs: _has_all(answer) and not _any_off(answer, pairs), (
        lambda answer, pairs: not _has_all(answer),
        _off("yes_rate"), _off("format_reward"), _off("accuracy_reward", -1), _off("accuracy_reward", 1),
    )),
    # about the DataFrame of one model's answers
    "04-1": Question(Real, near(lambda answers: _counts(answers)[0] / max(1, _counts(answers)[1])), (
        near(lambda answers: _counts(answers)[0] / _counts(answers)[2]),
        near(lambda answers: _counts(answers)[1] / _counts(answers)[2]),
        near(lambda answers: 1 - (_counts(answers)[1] - _counts(answers)[0]) / _counts(answers)[2]),
    )),
    # about the DataFrame of one model's answers
    "04-2": Question(Real, lambda answer, answers: 0 <= answer <= 1 and _is_best(answers, answer), (
        lambda answer, answers: not 0 <= answer <= 1,
        lambda answer, answers: abs(balanced_accuracy(answers, answer) - 0.5) < 1e-9,
        lambda answer, answers: balanced_accuracy(answers, answer) >= balanced_accuracy(answers, 0.5),
    )),
    # about the number of answers that training lost
    "04-3": Question(Real, lambda answer, lost: answer == _corrected(lost), (
        lambda answer, lost: answer <= lost,
        lambda answer, lost: answer == lost + 1,
        lambda answer, lost: answer < _corrected(lost),
    )),
    # about the number of evaluated images
    "05-1": Question(Real, near(lambda images: 100 / images), (
        near(lambda images: 1 / images), near(lambda images: 1), near(lambda images: 200 / images),
    )),
    # about the published rows, with columns method and f1
    "05-2": Question(Collection, lambda answer, rows: set(answer) == _above(rows), (
        lambda answer, rows: bool(set(answer) & set(CONSTANT)),
        lambda answer, rows: bool(set(answer) - set(rows["method"])),
        lambda answer, rows: bool(set(answer) - _above(rows)),
    )),
    # about an accuracy, in 0..1
    "05-3": Question(Real, near(_images, 0.02), (
        near(lambda share: _images(share) / 4, 0.015),
        near(lambda share: 4 * _images(share), 0.015),
        near(lambda share: _images(share) / 1.96**2, 0.015),
        lambda answer, share: answer < _images(share),
    )),
}  # fmt: skip

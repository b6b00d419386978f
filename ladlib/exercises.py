"""The exercises of the notebooks: a check replies with what to try next, not only with right or wrong.

>>> check("05-1", 1 / 200, 200)
Not yet. As a share, yes. In percentage points it is a hundred times that.

The words of the replies are in ``assets/exercises.yaml``. What is expected is computed from ``about``, the
pairs, log or answers of the run that a question is about; nothing is typed.
"""

import math
from collections.abc import Callable, Collection, Mapping
from functools import cache
from html import escape
from inspect import signature
from numbers import Real
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import Any, NamedTuple

import yaml

from ladlib.parsing import parse_answer
from ladlib.rewards import STD_OFFSET

COLOURS = {"To do": "#0072B2", "Not yet": "#E69F00", "Right": "#009E73"}
TYPES = {Real: "a number", Callable: "a lambda", Mapping: "a dictionary", Collection: "a list or a set"}
LOGGED = {"format_reward": 1.0, "yes_rate": 0.0, "frac_reward_zero_std": 1.0}  # where every answer is the same "no"
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


def check(number: str, answer: object, about: object = None) -> Reply:
    """A hint, or why the right answer matters; ``None`` is no answer yet. What a lambda raises is raised."""
    (kind, expected, *mistakes), texts = QUESTIONS[number], read_texts()[number]
    if answer is None:
        return Reply("To do", texts["start"])
    if not isinstance(answer, kind) or isinstance(answer, bool | str):
        return Reply("Not yet", f"The answer is {TYPES[kind]}, got type {type(answer).__name__}.")
    if _applies(expected, answer, about):
        return Reply("Right", texts["why"])
    hints = (hint for test, hint in zip(mistakes, texts["mistakes"], strict=True) if _applies(test, answer, about))
    return Reply("Not yet", next(hints, texts["otherwise"]))


def _applies(test: Callable, answer: Any, about: Any) -> bool:
    """A test of (about) gives the value that an answer is compared with; one of (answer, about) decides itself."""
    if len(signature(test).parameters) == 2:
        return bool(test(answer, about))
    value = test(about)
    return math.isclose(answer, value, rel_tol=1e-4 if 0 < abs(value) < 0.05 else 0.005, abs_tol=1e-9)


@cache
def read_texts() -> dict[str, dict]:
    """By question: where to ``start``, hints for ``mistakes`` and any ``otherwise`` wrong answer, and ``why``."""
    return yaml.safe_load((Path(__file__).parent / "assets" / "exercises.yaml").read_text(encoding="utf-8"))


def _share(pairs: Collection, *kinds: str) -> float:
    """The share of anomalous images among these and the good; ``kinds`` of anomaly beside logical count too."""
    anomalies = [pair.test.anomaly for pair in pairs if pair.test.anomaly in ("good", "logical", *kinds)]
    return 1 - anomalies.count("good") / len(anomalies)


def _f1(share: float) -> float:
    """Of answering yes to all images."""
    return 2 * share / (1 + share)


def _tokens(images: Collection, width: int = 1, height: int = 1) -> int:
    return sum(width * image.width // 28 * (height * image.height // 28) for image in images)


def _loss(labels: Collection[int]) -> int:
    return sum(label != -100 for label in labels)


def _centred(rewards: list[float], index: int = 0) -> float:
    return rewards[index] - fmean(rewards)


def _off(answer: Mapping, pairs: Collection, name: str) -> float:
    """How far the answer's value of ``name`` is too high; 0 within 0.02."""
    right = LOGGED | {"accuracy_reward": fmean(pair.test.label == "no" for pair in pairs)}
    difference = answer[name] - right[name]
    return difference if abs(difference) > 0.02 else 0.0


def _incomplete(answer: Mapping) -> bool:
    return not all(isinstance(answer.get(name), Real) for name in (*LOGGED, "accuracy_reward"))


def _scaled(reward: Callable) -> bool:
    return all(isinstance(score, Real) and 0 <= score <= 1 for score in map(reward, TEXTS))


def _prefers_reason(reward: Callable) -> bool:
    return reward(HONEST) > reward(HOLLOW)


def _gamed(reward: Callable) -> bool:
    return max(reward(REPEATED), reward(STUFFED)) > reward(HONEST)


def _counts(answers: Any) -> tuple[int, int, int]:
    """(right, parsed, all) of a DataFrame of answers."""
    parsed = answers["text"].map(parse_answer)
    return int((parsed == answers["label"]).sum()), int(parsed.notna().sum()), len(parsed)


def balanced_accuracy(answers: Any, threshold: float) -> float:
    """The mean of recall and specificity if an image is called anomalous from P(anomalous) = ``threshold``."""
    known = answers[answers["p_yes"].notna()]
    called, anomalous = known["p_yes"] >= threshold, known["label"] == "yes"
    return float((called[anomalous].mean() + 1 - called[~anomalous].mean()) / 2)


def _best(answers: Any) -> float:
    return max(balanced_accuracy(answers, value) for value in answers["p_yes"].dropna().unique())


def _corrected(lost: int) -> int:
    """The fewest corrected answers beside ``lost`` ones for which McNemar's exact p is below 0.05."""
    from scipy.stats import binomtest

    return next(count for count in range(lost, 1000) if binomtest(lost, lost + count).pvalue < 0.05)


def _above(rows: Any) -> set[str]:
    """The methods with a higher F1 than always answering yes."""
    least = rows.set_index("method")["f1"][CONSTANT[0]]
    return set(rows.loc[rows["f1"] > least, "method"])


def _images(share: float) -> float:
    """The images at which half of the 95 % interval is one point."""
    return 1.96**2 * share * (1 - share) / 0.01**2


# The type of the answer, what is expected, and the usual mistakes in the order of their hints.
QUESTIONS = {
    "01-1": (Real, lambda pairs: _f1(_share(pairs)), lambda pairs: _share(pairs),
             lambda pairs: _f1(_share(pairs, "structural")), lambda pairs: 1, lambda pairs: 100 * _f1(_share(pairs))),
    "01-2": (Real, lambda images: _tokens(images, 2, 2), lambda images: _tokens(images, 2),
             lambda images: _tokens(images), lambda images: 4 * _tokens(images, 2, 2)),
    "01-3": (Real, lambda normals: 1 / (normals + 1), lambda normals: 1 / normals,
             lambda answer, normals: 0.5 < answer <= 1 < normals, lambda answer, normals: answer == 0),
    "02-1": (Real, lambda labels: _loss(labels) / len(labels), lambda labels: 1 - _loss(labels) / len(labels),
             lambda labels: _loss(labels), lambda labels: 100 * _loss(labels) / len(labels)),
    "02-2": (Real, lambda size: math.log(size), lambda size: math.log2(size), lambda size: math.log10(size),
             lambda size: 1 / size, lambda size: -math.log(size)),
    # about (steps, batch size, conversations)
    "02-3": (Real, lambda about: about[0] * about[1] / about[2], lambda about: about[0] / about[2],
             lambda about: about[2] / (about[0] * about[1]), lambda about: about[0] * about[1]),
    "03-1": (Real, lambda rewards: _centred(rewards) / (stdev(rewards) + STD_OFFSET),
             lambda rewards: _centred(rewards),
             lambda rewards: _centred(rewards) / pstdev(rewards), lambda rewards: rewards[0],
             lambda rewards: _centred(rewards, -1) / stdev(rewards)),
    "03-2": (Callable, lambda reward, _: _scaled(reward) and _prefers_reason(reward) and not _gamed(reward),
             lambda reward, _: not _scaled(reward), lambda reward, _: len(set(map(reward, TEXTS))) == 1,
             lambda reward, _: not _prefers_reason(reward), lambda reward, _: _gamed(reward)),
    "03-3": (Callable, lambda reward, _: _prefers_reason(reward) and _gamed(reward),
             lambda reward, _: not _prefers_reason(reward)),
    "03-4": (Mapping,
             lambda answer, pairs: not _incomplete(answer) and not any(_off(answer, pairs, name) for name in answer),
             lambda answer, _: _incomplete(answer), lambda answer, pairs: _off(answer, pairs, "yes_rate"),
             lambda answer, pairs: _off(answer, pairs, "format_reward"),
             lambda answer, pairs: _off(answer, pairs, "accuracy_reward") < 0,
             lambda answer, pairs: _off(answer, pairs, "accuracy_reward") > 0),
    "04-1": (Real, lambda answers: _counts(answers)[0] / max(1, _counts(answers)[1]),
             lambda answers: _counts(answers)[0] / _counts(answers)[2],
             lambda answers: _counts(answers)[1] / _counts(answers)[2],
             lambda answers: 1 - (_counts(answers)[1] - _counts(answers)[0]) / _counts(answers)[2]),
    "04-2": (Real,
             lambda value, answers: 0 <= value <= 1 and balanced_accuracy(answers, value) >= _best(answers) - 1e-9,
             lambda value, _: not 0 <= value <= 1,
             lambda value, answers: abs(balanced_accuracy(answers, value) - 0.5) < 1e-9,
             lambda value, answers: balanced_accuracy(answers, value) >= balanced_accuracy(answers, 0.5)),
    "04-3": (Real, lambda answer, lost: answer == _corrected(lost), lambda answer, lost: answer <= lost,
             lambda answer, lost: answer == lost + 1, lambda answer, lost: answer < _corrected(lost)),
    "05-1": (Real, lambda images: 100 / images, lambda images: 1 / images, lambda _: 1, lambda images: 200 / images),
    "05-2": (Collection, lambda answer, rows: set(answer) == _above(rows),
             lambda answer, _: bool(set(answer) & set(CONSTANT)),
             lambda answer, rows: bool(set(answer) - set(rows["method"])),
             lambda answer, rows: bool(set(answer) - _above(rows))),
    "05-3": (Real, lambda answer, share: math.isclose(answer, _images(share), rel_tol=0.02),
             lambda share: _images(share) / 4, lambda share: 4 * _images(share), lambda share: _images(share) / 1.96**2,
             lambda answer, share: answer < _images(share)),
}  # fmt: skip

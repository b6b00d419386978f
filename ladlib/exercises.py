"""The exercises of the notebooks: a check replies with what to try next, not only with right or wrong.

>>> check("05-1", 1 / 200, 200)
Not yet. As a share, yes. In percentage points it is a hundred times that.

The words of the replies are in ``assets/exercises.yaml``. What is expected is computed from ``about``, the
pairs, log or answers of the run that a question is about; nothing is typed.
"""

import math
from collections import Counter
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
    (kind, judge), texts = QUESTIONS[number], read_texts()[number]
    if answer is None:
        return Reply("To do", texts["start"])
    if not isinstance(answer, kind) or isinstance(answer, bool | str):
        return Reply("Not yet", f"The answer is {TYPES[kind]}, got type {type(answer).__name__}.")
    is_right, *mistakes = judge(answer, about)
    if is_right:
        return Reply("Right", texts["why"])
    hints = (hint for is_made, hint in zip(mistakes, texts["mistakes"], strict=False) if is_made)
    return Reply("Not yet", next(hints, texts["otherwise"]))


@cache
def read_texts() -> dict[str, dict]:
    """By question: where to ``start``, hints for ``mistakes`` and any ``otherwise`` wrong answer, and ``why``."""
    return yaml.safe_load((Path(__file__).parent / "assets" / "exercises.yaml").read_text(encoding="utf-8"))


def _near(answer: float, *values: float) -> list[bool]:
    """Whether ``answer`` is each of ``values``, but for rounding."""
    tolerances = (1e-4 if 0 < abs(value) < 0.05 else 0.005 for value in values)
    return [math.isclose(answer, value, rel_tol=tolerance, abs_tol=1e-9)
            for value, tolerance in zip(values, tolerances, strict=True)]  # fmt: skip


def _always_yes(answer: float, pairs: Collection) -> list[bool]:
    counts = Counter(pair.test.anomaly for pair in pairs)
    share = counts["logical"] / (counts["logical"] + counts["good"])
    f1, with_structural = 2 * share / (1 + share), 1 - counts["good"] / len(pairs)
    return _near(answer, f1, share, 2 * with_structural / (1 + with_structural), 1, 100 * f1)


def _tokens(images: Collection, width: int, height: int) -> int:
    return sum(width * image.width // 28 * (height * image.height // 28) for image in images)


def _share_with_loss(answer: float, labels: Collection[int]) -> list[bool]:
    with_loss = sum(label != -100 for label in labels)
    share = with_loss / len(labels)
    return _near(answer, share, 1 - share, with_loss, 100 * share)


def _advantage(answer: float, rewards: list[float]) -> list[bool]:
    """Of the first reward."""
    centred, last, spread = rewards[0] - fmean(rewards), rewards[-1] - fmean(rewards), stdev(rewards)
    return _near(answer, centred / (spread + STD_OFFSET), centred, centred / pstdev(rewards), rewards[0], last / spread)


def _reward(reward: Callable, about: None) -> list[bool]:
    if not all(isinstance(score, Real) and 0 <= score <= 1 for score in map(reward, TEXTS)):
        return [False, True]
    prefers_reason, is_gamed = _weighed(reward)
    is_constant = len(set(map(reward, TEXTS))) == 1
    return [prefers_reason and not is_gamed, False, is_constant, not prefers_reason, is_gamed]


def _hackable(reward: Callable, about: None) -> list[bool]:
    prefers_reason, is_gamed = _weighed(reward)
    return [prefers_reason and is_gamed, not prefers_reason]


def _weighed(reward: Callable) -> tuple[bool, bool]:
    """Whether it pays a reason more than one word, and whether repeated or stuffed text even more."""
    return reward(HONEST) > reward(HOLLOW), max(reward(REPEATED), reward(STUFFED)) > reward(HONEST)


def _collapsed(answer: Mapping, pairs: Collection) -> list[bool]:
    right = LOGGED | {"accuracy_reward": fmean(pair.test.label == "no" for pair in pairs)}
    if not all(isinstance(answer.get(name), Real) for name in right):
        return [False, True]
    off = {name: answer[name] - value if abs(answer[name] - value) > 0.02 else 0 for name, value in right.items()}
    accuracy = off["accuracy_reward"]
    return [not any(off.values()), False, off["yes_rate"], off["format_reward"], accuracy < 0, accuracy > 0]


def _accuracy(answer: float, answers: Any) -> list[bool]:
    """Of a DataFrame of answers, those alone that can be parsed."""
    parsed = answers["text"].map(parse_answer)
    right, valid, count = int((parsed == answers["label"]).sum()), int(parsed.notna().sum()), len(parsed)
    return _near(answer, right / max(1, valid), right / count, valid / count, 1 - (valid - right) / count)


def balanced_accuracy(answers: Any, threshold: float) -> float:
    """The mean of recall and specificity if an image is called anomalous from P(anomalous) = ``threshold``."""
    known = answers[answers["p_yes"].notna()]
    called, anomalous = known["p_yes"] >= threshold, known["label"] == "yes"
    return float((called[anomalous].mean() + 1 - called[~anomalous].mean()) / 2)


def _threshold(answer: float, answers: Any) -> list[bool]:
    score, is_share = balanced_accuracy(answers, answer), 0 <= answer <= 1
    best = max(balanced_accuracy(answers, value) for value in answers["p_yes"].dropna().unique())
    is_blind = abs(score - 0.5) < 1e-9
    return [is_share and score >= best - 1e-9, not is_share, is_blind, score >= balanced_accuracy(answers, 0.5)]


def _corrected(answer: float, lost: int) -> list[bool]:
    """The fewest corrected answers beside ``lost`` ones for which McNemar's exact p is below 0.05."""
    from scipy.stats import binomtest

    fewest = next(count for count in range(lost, 1000) if binomtest(lost, lost + count).pvalue < 0.05)
    return [answer == fewest, answer <= lost, answer == lost + 1, answer < fewest]


def _above(answer: Collection, rows: Any) -> list[bool]:
    """The methods with a higher F1 than always answering yes."""
    names, least = set(answer), rows.set_index("method")["f1"][CONSTANT[0]]
    above = set(rows.loc[rows["f1"] > least, "method"])
    return [names == above, bool(names & set(CONSTANT)), bool(names - set(rows["method"])), bool(names - above)]


def _images(answer: float, share: float) -> list[bool]:
    """The images at which half of the 95 % interval is one point; at so many, Wilson's is the normal one."""
    count = 1.96**2 * share * (1 - share) / 0.01**2
    return [math.isclose(answer, count, rel_tol=0.02), *_near(answer, count / 4, 4 * count, count / 1.96**2),
            answer < count]  # fmt: skip


# The type of the answer; whether it is right, and each of the usual mistakes in the order of their hints.
QUESTIONS = {
    "01-1": (Real, _always_yes),
    "01-2": (Real, lambda answer, images: _near(
        answer, _tokens(images, 2, 2), _tokens(images, 2, 1), _tokens(images, 1, 1), 4 * _tokens(images, 2, 2))),
    "01-3": (Real, lambda answer, normals: [
        *_near(answer, 1 / (normals + 1), 1 / normals), 0.5 < answer <= 1 < normals, answer == 0]),
    "02-1": (Real, _share_with_loss),
    "02-2": (Real, lambda answer, size: _near(
        answer, math.log(size), math.log2(size), math.log10(size), 1 / size, -math.log(size))),
    "02-3": (Real, lambda answer, training: _near(  # steps, batch size, conversations
        answer, training[0] * training[1] / training[2], training[0] / training[2],
        training[2] / (training[0] * training[1]), training[0] * training[1])),
    "03-1": (Real, _advantage),
    "03-2": (Callable, _reward),
    "03-3": (Callable, _hackable),
    "03-4": (Mapping, _collapsed),
    "04-1": (Real, _accuracy),
    "04-2": (Real, _threshold),
    "04-3": (Real, _corrected),
    "05-1": (Real, lambda answer, images: _near(answer, 100 / images, 1 / images, 1, 200 / images)),
    "05-2": (Collection, _above),
    "05-3": (Real, _images),
}  # fmt: skip

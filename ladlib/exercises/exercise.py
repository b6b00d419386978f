"""One exercise: how an answer is judged, and the hint for each of the usual ways to miss it.

>>> half = Exercise(Real, "Half of what?", near(lambda n: n / 2), ((near(lambda n: n * 2), "Twice?"),), "No.", "Yes.")
>>> half.check(None, 8), half.check(16, 8), half.check(4, 8)
(To do. Half of what?, Not yet. Twice?, Right. Yes.)
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from html import escape
from numbers import Real
from typing import Any, Literal

from ladlib.report.style import BLUE, GREEN, ORANGE

COLOURS = {"To do": BLUE, "Not yet": ORANGE, "Right": GREEN}
KINDS = {
    Real: "a number",
    Callable: "a lambda",
    Mapping: "a dictionary",
    Collection: "a list or a set",
}

Test = Callable[[Any, Any], bool]
"""Whether something is so of an answer, given what the question is about."""


@dataclass(frozen=True)
class Reply:
    """What a check says: one or two sentences, in a notebook behind a coloured bar."""

    mark: Literal["To do", "Not yet", "Right"]
    text: str

    def __repr__(self) -> str:
        return f"{self.mark}. {self.text}"

    def _repr_html_(self) -> str:
        look = f"border-left:5px solid {COLOURS[self.mark]};padding:0.2em 0.8em;max-width:60em"
        return f"<p role='status' style='{look}'><b>{self.mark}.</b> {escape(self.text)}</p>"


@dataclass(frozen=True)
class Exercise:
    """A question whose answer is a value of ``kind``; the words of the question stand in the notebook.

    Tests get the answer and ``about``: whatever of the run the question is about, as the exercise's own comment says.
    """

    kind: type  # of KINDS
    empty: str  # where to begin
    is_right: Test
    mistakes: tuple[tuple[Test, str], ...]  # the first that is made gives its hint
    otherwise: str  # the hint for any other wrong answer
    why: str  # what a right answer is good for

    def check(self, answer: object, about: object = None) -> Reply:
        """A hint, or why it matters; ``None`` is no answer yet. What a lambda raises is raised."""
        if answer is None:
            return Reply("To do", self.empty)
        if not isinstance(answer, self.kind) or isinstance(answer, bool | str):
            asked = f"The answer is {KINDS[self.kind]}, and this is of type {type(answer).__name__}."
            return Reply("Not yet", asked)
        if self.is_right(answer, about):
            return Reply("Right", self.why)
        return Reply("Not yet", next((hint for made, hint in self.mistakes if made(answer, about)), self.otherwise))


def near(value: Callable[[Any], float], tolerance: float = 0.005) -> Test:
    """Whether an answer is ``value`` of what the question is about, to a relative ``tolerance``."""
    return lambda answer, about: math.isclose(answer, value(about), rel_tol=tolerance, abs_tol=1e-9)

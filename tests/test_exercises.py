"""The exercises: nothing answered gives a start, each usual mistake its own hint, and the solutions are right."""

import json
import math
import re
from pathlib import Path

import papermill
import pytest
from PIL import Image

from ladlib import metrics, published
from ladlib.exercises import QUESTIONS, Reply, balanced_accuracy, check, read_texts
from ladlib.records import Pair, Sample
from ladlib.results import load_answers
from ladlib.runs import RELEASED, RunFolder

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("0*.ipynb"))


def pair_of(anomaly: str, number: int) -> Pair:
    path = f"box/test/{anomaly}/{number}"
    named = {"id": path, "dataset": "mvtec_loco", "category": "box", "split": "test", "anomaly": anomaly}
    return Pair(test=Sample(**named, image=f"{path}.png"), reference="box/train/good/0.png")


PAIRS = [pair_of(kind, n) for kind, count in {"good": 6, "logical": 4, "structural": 5}.items() for n in range(count)]
HALVES = [pair_of(kind, number) for number in range(4) for kind in ("good", "logical")]
IMAGES = [Image.new("RGB", (84, 112)), Image.new("RGB", (112, 84))]
ROWS = published.read("lad_reasoner")
TABLE = {"accuracy_reward": 0.5, "format_reward": 1, "yes_rate": 0, "frac_reward_zero_std": 1}
FRAME = load_answers(RunFolder(RELEASED / "toy")).query("arm == 'base' and anomaly != 'structural'")
RAMBLING = FRAME.assign(text=["It may be so."] * 40 + FRAME["text"].tolist()[40:])
READ = int((~metrics.outcomes(RAMBLING)["unparsed"]).sum())
RIGHT = int(metrics.is_right(RAMBLING).sum())
BEST = max(FRAME["p_yes"], key=lambda value: balanced_accuracy(FRAME, value))

# number, about, the right answer, (a wrong one, words of its hint)...
CASES = [
    ("01-1", PAIRS, 8 / 14, (0.4, "accuracy"), (18 / 24, "structural"), (1.0, "recall"), (800 / 14, "per cent"),
     (math.nan, "false positive"), (math.inf, "false positive"), (-1.0, "false positive")),
    ("01-2", IMAGES, 96, (48, "Half of it"), (24, "costs now"), (384, "patches")),
    ("01-3", 60, 1 / 61, (1 / 60, "Almost"), (60 / 61, "modulo"), (0, "Some do move"), (0.3, "smallest of all")),
    ("02-1", [-100] * 30 + [5] * 10, 0.25, (0.75, "without loss"), (10, "number"), (25, "per cent")),
    ("02-2", 913, math.log(913), (math.log2(913), "bits"), (math.log10(913), "ten"), (1 / 913, "probability"),
     (-math.log(913), "positive")),
    ("02-3", (60, 16, 1000), 0.96, (0.06, "whole batch"), (1 / 0.96, "Upside down"), (960, "Divide")),
    ("03-1", [2.0, 1, 1, 1, 1, 1, 1, 1], 7 / 8 / math.sqrt(1 / 8), (0.875, "standard deviation"), (2.6458, "G - 1"),
     (2, "its reward"), (-0.3535, "one that failed")),
    ("03-2", None, lambda text: min(1.0, len(set(text.split())) / 12), (len, "from 0 to 1"),
     (lambda text: "long", "from 0"), (lambda text: 0.5, "alike"), (lambda text: float(len(text) < 60), "one word"),
     (lambda text: min(1.0, len(text) / 5000), "ten times")),
    ("03-3", None, len, (lambda text: -len(text), "one word"), (lambda text: len(set(text.split())) <= 20, "one word"),
     (lambda text: min(1.0, len(set(text.split())) / 12), "not gamed")),
    ("03-4", HALVES, TABLE, ({"yes_rate": 0}, "all four"), (TABLE | {"yes_rate": 1}, "yes by then"),
     (TABLE | {"format_reward": 0}, "format is valid"), (TABLE | {"accuracy_reward": 0}, "reward is left"),
     (TABLE | {"accuracy_reward": 1}, "too much"), (TABLE | {"frac_reward_zero_std": 0}, "eight equal rewards")),
    ("04-1", RAMBLING, RIGHT / READ, (RIGHT / len(RAMBLING), "honest"),
     (READ / len(RAMBLING), "could be parsed at all"), (1 - (READ - RIGHT) / len(RAMBLING), "Leave them out")),
    ("04-2", FRAME, BEST, (50, "between 0 and 1"), (0, "all images the same"), (0.5, "a better one still")),
    ("04-3", 5, 15, (5, "no gain"), (6, "fair coin"), (10, "Not enough"), (30, "fewer")),
    ("05-1", 400, 0.25, (0.0025, "As a share"), (1, "hundred images"), (0.5, "two images"), (0.7, "divided")),
    ("05-2", ROWS, [], (["always anomalous"], "looks at nothing"), (["GPT"], "names"),
     (["LAD-Reasoner 3B"], "Too many")),
    ("05-3", 0.6, 9216, (9216 / 4, "four points"), (4 * 9216, "one point"), (9216 / 3.84, "standard error"),
     (100, "Too few"), (15000, "More")),
]  # fmt: skip


def test_every_question_and_every_hint_is_tried_here():
    assert [case[0] for case in CASES] == list(QUESTIONS) == list(read_texts())
    for number, about, _, *mistakes in CASES:
        replies = {check(number, answer, about).text for answer, _ in mistakes}
        assert set(read_texts()[number]["mistakes"]) <= replies, number


@pytest.mark.parametrize(("number", "about", "answer"), [case[:3] for case in CASES], ids=list(QUESTIONS))
def test_no_answer_says_where_to_begin_and_a_right_one_why_it_matters(number, about, answer):
    assert check(number, None) == Reply("To do", read_texts()[number]["start"])
    assert check(number, answer, about) == Reply("Right", read_texts()[number]["why"])


@pytest.mark.parametrize(
    ("number", "about", "answer", "words"), [(case[0], case[1], *wrong) for case in CASES for wrong in case[3:]]
)
def test_a_usual_mistake_has_its_own_hint(number, about, answer, words):
    reply = check(number, answer, about)
    assert reply.mark == "Not yet" and words in reply.text


def test_an_answer_of_another_type_is_told_which_is_expected_and_a_reply_carries_no_markup():
    for number, answer, wanted in (
        ("01-1", "two thirds", "a number"),
        ("03-2", 0.5, "a lambda"),
        ("05-2", "3B", "a list"),
    ):
        assert f"The answer is {wanted}" in check(number, answer).text
    reply = Reply("Not yet", "<b>a</b> & b")
    assert repr(reply) == "Not yet. <b>a</b> & b"
    assert "&lt;b&gt;a&lt;/b&gt; &amp; b" in reply._repr_html_() and "role='status'" in reply._repr_html_()


def test_the_threshold_is_scored_as_the_metrics_score_it():
    called = metrics.outcomes(FRAME).assign(called=FRAME["p_yes"] >= BEST)
    assert balanced_accuracy(FRAME, BEST) == pytest.approx(metrics.measure(called)["balanced_accuracy"])


def sources(notebook: Path) -> str:
    return "\n".join("".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"])


@pytest.mark.parametrize("name", NAMES)
def test_each_notebook_has_its_exercises_and_a_solution_of_each(name):
    for folder in (NOTEBOOKS, NOTEBOOKS / "solutions"):
        asked = re.findall(r'lad\.exercises\.check\("(.+?)"', sources(folder / f"{name}.ipynb"))
        assert asked == [number for number in QUESTIONS if number[:2] == name[:2]]


def replies(notebook: Path) -> list[str]:
    """What the checks of an executed copy replied, as plain text."""
    outputs = [out for cell in json.loads(notebook.read_text())["cells"] for out in cell.get("outputs", [])]
    data = [output["data"] for output in outputs if "data" in output]
    return ["".join(one["text/plain"]) for one in data if "role='status'" in "".join(one.get("text/html", ""))]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_exercises_start_unanswered_and_their_solutions_are_right_on_a_finished_run(smoke, tmp_path, name):
    shipped, before = replies(smoke.notebooks / f"{name}.ipynb"), smoke.run_json.read_bytes()
    assert 3 <= len(shipped) <= 4 and all(reply.startswith("To do. ") for reply in shipped)
    parameters, out = {} if name[:2] == "05" else {"run": str(smoke.root)}, tmp_path / "out.ipynb"
    papermill.execute_notebook(NOTEBOOKS / "solutions" / f"{name}.ipynb", out, parameters, progress_bar=False)
    solved = replies(out)
    assert len(solved) == len(shipped) and all(reply.startswith("Right. ") for reply in solved)
    assert smoke.run_json.read_bytes() == before

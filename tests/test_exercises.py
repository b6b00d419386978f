"""The exercises: nothing answered gives a hint, each usual mistake its own, and the solutions pass."""

import json
import math
from pathlib import Path

import papermill
import pytest
from PIL import Image

from ladlib.exercises import Exercise, Reply, comparison, data, evaluation, grpo, sft
from ladlib.records import Pair, Sample
from ladlib.report import published
from ladlib.report.stored import read_generations
from ladlib.rewards import group_advantages
from ladlib.runs import RELEASED, RunFolder

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
MODULES = {
    "01_data_exploration": data,
    "02_sft": sft,
    "03_grpo": grpo,
    "04_evaluation": evaluation,
    "05_compare_72b": comparison,
}
EXERCISES = {
    name: one for module in MODULES.values() for name, one in vars(module).items() if isinstance(one, Exercise)
}


def pair_of(anomaly: str, number: int) -> Pair:
    test = Sample(
        id=f"box/test/{anomaly}/{number}", dataset="mvtec_loco", category="box", split="test", anomaly=anomaly,
        image=f"box/test/{anomaly}/{number}.png",
    )  # fmt: skip
    return Pair(test=test, reference="box/train/good/0.png")


PAIRS = [
    pair_of(kind, number) for kind, many in {"good": 6, "logical": 4, "structural": 5}.items() for number in range(many)
]
HALVES = [pair_of(kind, number) for number in range(4) for kind in ("good", "logical")]
IMAGES = [Image.new("RGB", (84, 112)), Image.new("RGB", (112, 84))]
LABELS = [-100] * 30 + [5] * 10
TRAINING = sft.Training(60, 16, 1000)
REWARDS = [2.0, 1, 1, 1, 1, 1, 1, 1]
ROWS = published.read("lad_reasoner")
TABLE = {"accuracy_reward": 0.5, "format_reward": 1, "yes_rate": 0, "frac_reward_zero_std": 1}
ANSWERS = [one for one in read_generations(RunFolder(RELEASED / "toy")) if one.anomaly != "structural"]
BASE = [one for one in ANSWERS if one.arm == "base"]
UNREAD = [one.model_copy(update={"text": "It may be so."}) for one in BASE[:40]] + BASE[40:]
READ = sum(not evaluation.judge(one).unparsed for one in UNREAD)
RIGHT = sum(map(evaluation.is_right, UNREAD))

# name, about, the right answer, (a wrong one, words of its hint)...
CASES = [
    ("always_yes_f1", PAIRS, 8 / 14, (0.4, "accuracy"),
     (18 / 24, "structural"), (1.0, "recall"), (800 / 14, "per cent")),
    ("visual_tokens", IMAGES, 96, (48, "Half of it"), (24, "costs now"), (384, "patches")),
    ("moved_share", 60, 1 / 61, (1 / 60, "Nearly"), (60 / 61, "modulo"), (0, "Some do move"), (0.3, "smallest of all")),
    ("loss_share", LABELS, 0.25, (0.75, "only read"), (10, "number"), (25, "per cent")),
    ("uniform_loss", 913, math.log(913), (math.log2(913), "bits"), (math.log10(913), "ten"), (1 / 913, "probability")),
    ("passes", TRAINING, 0.96, (0.06, "whole batch"), (1 / 0.96, "Upside down"), (960, "Divide")),
    ("lone_advantage", REWARDS, 7 / 8 / math.sqrt(1 / 8), (0.875, "standard deviation"), (2.6458, "G - 1"),
     (2, "its reward"), (-0.3535, "one that failed")),
    ("collapse_curves", HALVES, TABLE, ({"yes_rate": 0}, "all four"), (TABLE | {"yes_rate": 1}, "yes by then"),
     (TABLE | {"format_reward": 0}, "form is kept"), (TABLE | {"accuracy_reward": 0}, "earns something"),
     (TABLE | {"accuracy_reward": 1}, "too much"), (TABLE | {"frac_reward_zero_std": 0}, "eight equal rewards")),
    ("flattered_accuracy", UNREAD, RIGHT / READ, (RIGHT / len(UNREAD), "honest"),
     (READ / len(UNREAD), "could be read at all")),
    ("best_threshold", BASE, max((one.p_yes for one in BASE), key=lambda at: evaluation._balanced(BASE, at)),
     (50, "between 0 and 1"), (0, "all images the same")),
    ("mended_enough", 5, 15, (5, "no gain"), (6, "fair coin"), (10, "Not enough"), (30, "fewer")),
    ("one_image", 200, 0.5, (0.005, "As a share"), (1, "hundred images"), (0.7, "divided")),
    ("above_always_yes", ROWS, [], (["always anomalous"], "looks at nothing"), (["GPT"], "names"),
     (["LAD-Reasoner 3B"], "Too many")),
    ("images_for_a_point", 0.6, 9216, (9216 / 4, "four points"), (4 * 9216, "one point"),
     (9216 / 3.84, "standard error"),
     (100, "Too few"), (15000, "More")),
]  # fmt: skip


def test_every_exercise_is_tried_here():
    assert {case[0] for case in CASES} | {"third_reward", "hacked_reward"} == set(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_nothing_answered_says_where_to_begin(name):
    one = EXERCISES[name]
    assert one.check(None) == Reply("To do", one.empty)


@pytest.mark.parametrize(("name", "about", "answer"), [case[:3] for case in CASES], ids=[case[0] for case in CASES])
def test_a_right_answer_is_told_why_it_matters(name, about, answer):
    assert EXERCISES[name].check(answer, about) == Reply("Right", EXERCISES[name].why)


@pytest.mark.parametrize(
    ("name", "about", "answer", "words"),
    [(name, about, *wrong) for name, about, _, *wrongs in CASES for wrong in wrongs],
)
def test_a_usual_mistake_has_a_hint_of_its_own(name, about, answer, words):
    reply = EXERCISES[name].check(answer, about)
    assert reply.mark == "Not yet" and words in reply.text


@pytest.mark.parametrize(
    ("name", "reward", "mark", "words"),
    [
        ("third_reward", lambda text: min(1.0, len(set(text.split())) / 12), "Right", "adds spread"),
        ("third_reward", lambda text: len(text), "Not yet", "from 0 to 1"),
        ("third_reward", lambda text: "long", "Not yet", "from 0 to 1"),
        ("third_reward", lambda text: 0.5, "Not yet", "alike"),
        ("third_reward", lambda text: float(len(text) < 60), "Not yet", "one word"),
        ("third_reward", lambda text: min(1.0, len(text) / 5000), "Not yet", "ten times"),
        ("hacked_reward", lambda text: len(text), "Right", "means well"),
        ("hacked_reward", lambda text: -len(text), "Not yet", "one word"),
        ("hacked_reward", lambda text: len(set(text.split())) <= 20, "Not yet", "one word"),
        ("hacked_reward", lambda text: min(1.0, len(set(text.split())) / 12), "Not yet", "holds"),
    ],
)
def test_a_reward_of_ones_own_is_tried_on_texts_that_cheat(name, reward, mark, words):
    reply = EXERCISES[name].check(reward)
    assert reply.mark == mark and words in reply.text


def test_an_answer_of_another_kind_is_told_which_is_asked_for():
    assert "is a number" in data.always_yes_f1.check("two thirds", PAIRS).text
    assert "is a lambda" in grpo.third_reward.check(0.5).text
    assert "is a list or a set" in comparison.above_always_yes.check("LAD-Reasoner 3B", ROWS).text


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0])
def test_an_odd_number_is_an_answer_like_any_other(value):
    assert data.always_yes_f1.check(value, PAIRS).mark == "Not yet"


def test_a_reply_reads_as_a_sentence_and_cannot_carry_markup():
    reply = Reply("Not yet", "<b>a</b> & b")
    assert repr(reply) == "Not yet. <b>a</b> & b"
    assert "&lt;b&gt;a&lt;/b&gt; &amp; b" in reply._repr_html_() and "role='status'" in reply._repr_html_()


def test_advantages_of_the_collapse_are_those_that_training_would_give():
    assert grpo._collapsed(HALVES)["frac_reward_zero_std"] == 1 and not any(group_advantages([2.0] * grpo.GROUP))


def code_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("name", MODULES)
def test_each_notebook_has_two_to_four_exercises_and_a_solution_of_each(name):
    own = {key for key, one in vars(MODULES[name]).items() if isinstance(one, Exercise)}
    assert 2 <= len(own) <= 4
    for notebook in (NOTEBOOKS / f"{name}.ipynb", NOTEBOOKS / "solutions" / f"{name}.ipynb"):
        assert {key for key in own if f"exercises.{key}.check(" in code_of(notebook)} == own


def replies(notebook: Path) -> list[str]:
    """What the checks of an executed copy said, as plain text."""
    cells = json.loads(notebook.read_text())["cells"]
    shown = [out["data"] for cell in cells for out in cell.get("outputs", []) if "data" in out]
    return ["".join(one["text/plain"]) for one in shown if "role='status'" in "".join(one.get("text/html", ""))]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_a_notebook_run_as_it_is_shipped_shows_where_to_begin(smoke, name):
    said = replies(smoke.notebooks / f"{name}.ipynb")
    assert 2 <= len(said) <= 4 and all(one.startswith("To do. ") for one in said)


@pytest.mark.slow
@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda path: path.stem)
def test_the_solutions_pass_on_a_finished_run_and_change_nothing_in_it(smoke, tmp_path, solution):
    before = smoke.run_json.read_bytes()
    parameters = {} if "05" in solution.stem else {"run": str(smoke.root)}
    papermill.execute_notebook(solution, tmp_path / "out.ipynb", parameters, progress_bar=False)
    said = replies(tmp_path / "out.ipynb")
    assert 2 <= len(said) <= 4 and all(one.startswith("Right. ") for one in said)
    assert smoke.run_json.read_bytes() == before

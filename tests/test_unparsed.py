"""Every tenth answer cannot be read: the hand-worked values, in every table.

Of the 20 images of each category and kind two answers are unparsed, which is wrong. Of the 20 good ones 14 are
passed: 70 %. Of the 20 logical and the 20 structural ones 12 are found: 60 %. So the accuracy is 26 / 40 = 65 % on
good + logical images and 38 / 60 = 63.3 % on all. Leaving the unparsed ones out would give 72.2 %.
"""

import json

import pytest
from made_up import CATEGORIES, made_up, write_generations

from ladlib.records import RunRecord
from ladlib.report.answers import changes_frame, form_frame
from ladlib.report.defects import defects_frame
from ladlib.report.page import write_report
from ladlib.report.stored import read_run
from ladlib.report.study_arms import arms_frame, seeds_frame
from ladlib.report.study_paired import category_scores, differences_frame, read_answers, seeds_of
from ladlib.report.tables import categories, comparison, comparison_text, readable
from ladlib.runs import RunFolder

ANSWERS = {
    "good": ["no"] * 14 + ["yes"] * 4 + [None] * 2,
    "logical": ["yes"] * 12 + ["no"] * 6 + [None] * 2,
    "structural": ["yes"] * 12 + ["no"] * 6 + [None] * 2,
}


def answered(arm, answers):
    return [
        made_up(arm, category, kind, number, answer, text=None if answer else "I cannot say.")
        for category in CATEGORIES
        for kind, listed in answers.items()
        for number, answer in enumerate(listed)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("unparsed") / "run")
    run.write(RunRecord(profile="toy", seed=0))
    write_generations(run, "sft_grpo", answered("sft_grpo", ANSWERS))
    right = {kind: ["no" if kind == "good" else "yes"] * 20 for kind in ANSWERS}
    write_generations(run, "base", answered("base", right))
    write_report(run)
    return run


@pytest.fixture(scope="module")
def stored(run):
    return read_run(run)


def of_trained(frame, column="method"):
    return frame[frame[column].isin(["SFT + GRPO", "sft_grpo"])]


def test_the_scores_count_an_unparsed_answer_as_wrong(run):
    rows = [row for row in json.loads(run.metrics_json.read_text()) if row["arm"] == "sft_grpo"]
    expected = {"logical": 26 / 40, "structural": 26 / 40, "all": 38 / 60}
    assert len(rows) == 3 * (len(CATEGORIES) + 2)
    assert all(row["accuracy"] == pytest.approx(expected[row["subset"]]) for row in rows)
    assert {row["unparsed"] / row["n"] for row in rows} == {0.1}


def test_the_comparison_has_the_hand_worked_values(run, stored):
    (row,) = of_trained(comparison(stored)).to_dict("records")
    keys = ("accuracy", "recall", "specificity", "balanced_accuracy", "unparsed", "accuracy_all")
    assert [row[key] for key in keys] == [65.0, 60.0, 70.0, 65.0, 10.0, 63.3]
    line = next(line for line in comparison_text(run, width=200).splitlines() if "SFT + GRPO" in line)
    assert "65.0" in line and "72.2" not in line


def test_the_tables_by_category_and_by_defect_have_them(stored):
    assert of_trained(categories(stored))["accuracy"].tolist() == [65.0] * (len(CATEGORIES) + 2)
    defects = of_trained(defects_frame(stored))
    assert dict(zip(defects["kind"], defects["right"], strict=True)) == {
        "good": 70.0, "logical": 60.0, "structural": 60.0
    }  # fmt: skip
    assert set(defects["unparsed"]) == {10.0} and set(defects["images"]) == {20}


def test_the_tables_over_seeds_have_them(stored):
    for frame in (arms_frame(stored), seeds_frame(stored)):
        (row,) = of_trained(frame, "arm").to_dict("records")
        assert (row["accuracy"], row["balanced_accuracy"], row["unparsed"]) == (65.0, 65.0, 10.0)


def test_the_comparisons_of_two_arms_have_them(stored):
    protocol = [one for one in stored.generations if one.anomaly != "structural"]
    (change,) = changes_frame(protocol, [("base", "sft_grpo")]).to_dict("records")
    assert (change["mended"], change["broken"], change["accuracy, points"]) == (0, 28, "-35.0")
    strict = differences_frame(stored).query("reading == 'strict'")
    assert set(strict["difference"]) == {-35.0}
    scores = category_scores(seeds_of(read_answers(stored.generations), "sft_grpo"))
    assert [one.value for one in scores.values()] == pytest.approx([65.0] * len(CATEGORIES))


def test_the_table_of_forms_and_the_written_files_have_them(run, stored):
    form = form_frame([one for one in stored.generations if one.anomaly != "structural"]).loc["SFT + GRPO"]
    assert (form["accuracy"], form["unparsed"]) == (0.65, 0.1)
    for path in (*run.tables.iterdir(), run.report):
        if path.stem in ("comparison", "categories", "report"):
            assert "65.0" in path.read_text() and "72.2" not in path.read_text(), path


# What is not defined is a dash


def test_undefined_values_are_a_dash_in_every_table_and_never_0_or_nan(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write(RunRecord(profile="toy", seed=0))
    write_generations(run, "sft_grpo", answered("sft_grpo", {"good": ["no"] * 4}))
    write_report(run)
    stored = read_run(run)
    (row,) = of_trained(readable(comparison(stored))).to_dict("records")
    assert {row[key] for key in ("F1", "balanced acc", "recall", "AUROC", "F1, full test")} == {"–"}
    assert (row["Acc"], row["specificity"]) == ("100.0", "100.0")
    for path in run.tables.glob("*.md"):
        assert "nan" not in path.read_text() and "None" not in path.read_text().replace("None of", ""), path

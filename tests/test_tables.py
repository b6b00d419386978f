"""The tables of a run and of a study from answers that no model wrote: hand-worked values, dashes, and safe files."""

import json
import shutil
from operator import attrgetter

import pandas as pd
import pytest
from made_up import CATEGORIES, grpo_rows, made_up, made_up_arm, made_up_run, write_generations, write_rows

from ladlib import published
from ladlib.config import PROFILES, load_profile
from ladlib.errors import UserError
from ladlib.parsing import parse_answer
from ladlib.records import RunRecord, Variation
from ladlib.report import analysis, formats, tables
from ladlib.report.page import write_report, write_study
from ladlib.results import load_run
from ladlib.runs import RunFolder
from ladlib.statistics import wilson

LABEL = load_profile("toy").label


def run_of(root, **arms):
    """A run whose arms have the given generations."""
    run = RunFolder(root)
    run.write(RunRecord(profile="toy", seed=0))
    for arm, rows in arms.items():
        write_generations(run, arm, rows)
    return run


def row_of(frame, **keys):
    for key, value in keys.items():
        frame = frame[frame[key] == value]
    assert len(frame) == 1
    return frame.iloc[0]


# The run


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return load_run(made_up_run(tmp_path_factory.mktemp("tables") / "run"))


def test_a_run_without_generations_or_record_is_refused_with_the_hint(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(UserError, match="run.json"):
        load_run(run)
    run.write(RunRecord(profile="toy", seed=0))
    for write in (write_report, write_study):
        with pytest.raises(UserError, match="no generations.*04_evaluation"):
            write(run)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json"}


def test_the_comparison_has_the_run_then_the_trivial_then_the_published_rows(results):
    frame = tables.comparison(results)
    assert list(frame["block"].unique()) == ["run", "trivial", "published"]
    assert list(frame["method"])[:4] == [
        "base (toy-base)", "SFT: not yet", "SFT + GRPO", "large (toy-large): not yet",
    ]  # fmt: skip
    lad = row_of(frame, method="LAD-Reasoner 3B")
    assert (lad["accuracy"], lad["f1"], lad["label"]) == (60.4, 63.5, published.LABEL)
    assert set(frame.query("block != 'published'")["label"]) == {LABEL}
    assert set(tables.categories(results)["label"]) == {LABEL, published.LABEL}


def test_the_compared_values_are_the_hand_worked_ones(results):
    # base answers yes, no to two good and two logical images in each of two categories: half of each right
    base = tables.comparison(results).iloc[0]
    assert [base[key] for key in ("accuracy", "f1", "recall", "specificity", "accuracy_all")] == [50.0] * 5
    assert base["f1_all"] == 57.1  # TP 4, FP 2, FN 4: 8 / 14
    # sft_grpo: yes, no, yes to three images of a kind, and one unparsed logical one: TP 4, FN 3, FP 4, TN 2
    trained = tables.comparison(results).iloc[2]
    assert (trained["images"], trained["accuracy"], trained["unparsed"]) == (13, 46.2, 7.7)
    assert (trained["format"], trained["f1"]) == (92.3, 53.3)


def test_the_terminal_table_names_every_method_and_label(results):
    text = tables.comparison_text(results.run)
    for part in (LABEL, published.LABEL, "SFT + GRPO", "large (toy-large): not yet", "always yes", "63.5"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("profile", PROFILES)
def test_departures_are_filled_from_the_profile_and_name_its_fields(profile):
    profile = load_profile(profile)
    frame = tables.departures(profile).set_index("item")
    assert frame.loc["Completions a prompt (G)", "ours"] == str(profile.grpo.group_size)
    assert not frame["ours"].str.contains(r"[{}]|^$").any()
    assert frame.loc["SFT learning rate", "parameter"] == "sft.learning_rate, sft.warmup"
    fields = {name for cell in frame["parameter"] for name in cell.split(", ") if name}
    assert len(fields) > 20
    for name in fields:
        attrgetter(name)(profile)  # raises where the profile has no such field


# An unparsed answer is wrong in every table. Of the 20 images of each category and kind two are unparsed; 14 good ones
# are passed, 12 anomalous ones found: accuracy 26 / 40 on good + logical images and 38 / 60 on all, and never 72.2 %.

ANSWERS = {
    "good": ["no"] * 14 + ["yes"] * 4 + [None] * 2,
    "logical": ["yes"] * 12 + ["no"] * 6 + [None] * 2,
    "structural": ["yes"] * 12 + ["no"] * 6 + [None] * 2,
}


def answered(arm, answers):
    return [
        made_up(arm, category, kind, number, answer, text=None if answer else "I cannot say.")
        for category in CATEGORIES for kind, listed in answers.items() for number, answer in enumerate(listed)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def unparsed(tmp_path_factory):
    right = {kind: ["no" if kind == "good" else "yes"] * 20 for kind in ANSWERS}
    arms = {"sft_grpo": answered("sft_grpo", ANSWERS), "base": answered("base", right)}
    return load_run(run_of(tmp_path_factory.mktemp("unparsed") / "run", **arms))


def test_an_unparsed_answer_is_wrong_in_every_table(unparsed):
    rows = [row for row in unparsed.scores if row["arm"] == "sft_grpo"]
    expected = {"logical": 26 / 40, "structural": 26 / 40, "all": 38 / 60}
    assert all(row["accuracy"] == pytest.approx(expected[row["subset"]]) for row in rows)
    row = row_of(tables.comparison(unparsed), method="SFT + GRPO")
    keys = ("accuracy", "recall", "specificity", "balanced_accuracy", "unparsed", "accuracy_all")
    assert [row[key] for key in keys] == [65.0, 60.0, 70.0, 65.0, 10.0, 63.3]
    assert set(tables.categories(unparsed).query("method == 'SFT + GRPO'")["accuracy"]) == {65.0}
    defects = analysis.defects(unparsed).query("method == 'SFT + GRPO'")
    shares = {"good": 70.0, "logical": 60.0, "structural": 60.0}
    assert dict(zip(defects["kind"], defects["right"], strict=True)) == shares
    assert set(defects["unparsed"]) == {10.0} and set(defects["images"]) == {20}
    row = row_of(analysis.arms(unparsed), arm="sft_grpo")
    assert (row["accuracy"], row["balanced_accuracy"], row["unparsed"]) == (65.0, 65.0, 10.0)
    differences = analysis.differences(unparsed).query("reading == 'strict'")
    assert set(differences["difference"]) == {-35.0}


# What is undefined or unknown is a dash, never 0 or nan

SERVED = "Qwen2.5-VL-72B-Instruct, FP8, vLLM 0.11"


def test_undefined_values_are_a_dash_in_every_table(tmp_path):
    results = load_run(run_of(tmp_path, sft_grpo=answered("sft_grpo", {"good": ["no"] * 4})))
    row = row_of(tables.readable(tables.comparison(results)), method="SFT + GRPO")
    assert {row[key] for key in ("F1", "balanced acc", "recall", "AUROC", "F1, full test")} == {"–"}
    assert (row["Acc"], row["specificity"]) == ("100.0", "100.0")
    for name, frame in (tables.of_run(results) | tables.of_study(results)).items():
        text = formats.markdown(tables.readable(frame))
        assert "nan" not in text and "None" not in text.replace("None of", ""), name
    assert set(tables.readable(analysis.differences(results)).get("points", ())) <= {"–"}


def test_an_endpoints_arm_without_probabilities_has_dashes_and_is_named_by_its_model(tmp_path):
    rows = [row.model_copy(update={"p_yes": None, "served": SERVED}) for row in made_up_arm("large", ["yes", "no"])]
    results = load_run(run_of(tmp_path, large=rows, sft_grpo=made_up_arm("sft_grpo", ["yes", "no"])))
    shown = row_of(tables.readable(tables.comparison(results)), method=f"large ({SERVED})")
    assert (shown["AUROC"], shown["Acc"]) == ("–", "50.0")
    assert tables.categories(results).query("method.str.startswith('large')")["auroc"].isna().all()
    tables.write_all(results, tmp_path / "out", {})
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {row["auroc"] for row in written if row["arm"] == "large"} == {None}
    found = analysis.differences(results).query("arm == 'large'").set_index("reading")["difference"]
    assert pd.isna(found["likelihood"]) and found["strict"] == 0


# Answers to changed inputs: two good and two logical pairs, (answer, P(anomalous)) by condition

SAID = {
    ("none", ""): [("no", 0.1), ("yes", 0.9), ("yes", 0.8), ("no", 0.2)],
    ("blind", ""): [("no", 0.1), ("no", 0.1), ("no", 0.1), ("no", 0.1)],
    ("swapped", ""): [("no", 0.1), ("yes", 0.9), ("yes", 0.8), ("yes", 0.6)],
    ("wording", "short"): [("no", 0.3), ("yes", 0.9), ("", 0.4), ("no", 0.2)],
}
IMAGES = {"blind": ("reference", "reference"), "swapped": ("test", "reference")}


def variations():
    rows = []
    for (factor, level), answers in SAID.items():
        for number, (answer, p) in enumerate(answers):
            kind, text = "good" if number < 2 else "logical", None if answer else "no answer"
            one = made_up("sft_grpo", "pushpins", kind, number, answer, text=text)
            known = one.model_dump() | {"answer": parse_answer(one.text), "p_yes": p}
            shown = IMAGES.get(factor, ("reference", "test"))
            rows.append(Variation(**known, factor=factor, level=level, shown=shown))
    return rows


def test_scores_flips_and_changes_are_as_worked_by_hand(tmp_path):
    run = made_up_run(tmp_path)
    write_rows(run.sensitivity("sft_grpo", 0), [one.model_dump(mode="json") for one in variations()])
    results = load_run(run)
    frame = analysis.sensitivity(results)
    usual, blind, short = (row_of(frame, condition=name) for name in
                           ("as evaluated", "blind: reference twice", "wording: short"))  # fmt: skip
    assert [usual[name] for name in ("pairs", "accuracy", "recall", "specificity")] == [4, 50.0, 50.0, 50.0]
    assert pd.isna(usual["flips"]) and pd.isna(usual["change"])
    assert [blind[name] for name in ("accuracy", "recall", "specificity", "flips")] == [50.0, 0.0, 100.0, 50.0]
    assert blind["change"] == pytest.approx(100 * (0.8 + 0.7 + 0.1) / 4)
    assert (blind["low"], blind["high"]) == tuple(round(100 * end, 1) for end in wilson(2, 4))
    assert (short["flips"], short["unparsed"], short["accuracy"]) == (25.0, 25.0, 25.0)  # unparsed: wrong, and a flip
    swapped = row_of(frame, condition="images exchanged")
    assert (swapped["accuracy"], swapped["flips"]) == (75.0, 25.0)  # better, and a flip all the same
    blind = row_of(tables.comparison(results), method="SFT + GRPO, blind")
    assert (blind["accuracy"], blind["images"], blind["recall"]) == (50.0, 4, 0.0) and pd.isna(blind["accuracy_all"])
    assert blind["label"].endswith("; shown the reference image twice, 4 of the test pairs")


# A study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    arms = {arm: made_up_arm(arm, ["yes", "no", "no"]) for arm in ("base", "sft", "sft_grpo")}
    run = run_of(tmp_path_factory.mktemp("study") / "run", **arms)
    row = dict(anomaly="logical", label="yes", statements=10, true=8, unread=0, words=30, agrees=True)
    row |= dict(names_difference=True, implied="yes", answer="yes")
    write_rows(run.rationales("sft", 0), [row, row])
    write_rows(run.samples("base", 0), [{"id": "a", "arm": "base", "seed": 0, "rule": "place", "right": [True] * 8}])
    for arm in ("sft_grpo", "accuracy_only", "high_rate"):
        write_rows(run.log(arm, 0), grpo_rows(30))
    return load_run(run)


def test_only_images_that_both_arms_answered_are_compared(tmp_path):
    run = run_of(tmp_path, base=made_up_arm("base", ["no"]), sft_grpo=made_up_arm("sft_grpo", ["no", "yes"]))
    assert set(analysis.differences(load_run(run))["images"]) == {4}


def test_collapses_come_after_the_run_they_are_compared_with(study, results):
    assert list(analysis.collapsed_runs(study)) == ["SFT + GRPO", "accuracy reward only", "learning rate too high"]
    assert list(analysis.collapsed_runs(results)) == ["SFT + GRPO"]


def test_a_rationale_that_begins_with_kind_matches_parts_by_type(study):
    models = analysis.strategies(study)
    answers = study.answers.query("anomaly != 'structural'")
    for row in models.itertuples():
        texts = answers[(answers["arm"] == row.arm) & (answers["seed"] == row.seed)]["text"]
        assert row.by_type == pytest.approx(100 * texts.str.contains(r"<think>\s*kind\b").mean()), row


def test_a_study_has_its_tables_and_figures_the_same_bytes_each_time(study, tmp_path):
    copy = RunFolder(shutil.copytree(study.run.root, tmp_path / "copy"))
    write_study(copy)
    first = {path: path.read_bytes() for path in copy.root.rglob("*") if path.is_file()}
    names = {path.relative_to(copy.root).as_posix() for path in first}
    assert {f"tables/study-{name}.{kind}" for name in ("arms", "differences", "rationales", "passes")
            for kind in ("csv", "md", "tex")} <= names  # fmt: skip
    assert {f"figures/study-{name}.{kind}" for name in ("collapse", "strategy") for kind in ("png", "pdf")} <= names
    write_study(copy)
    assert {path: path.read_bytes() for path in first} == first
    for file in copy.tables.glob("*.csv"):
        assert set(pd.read_csv(file)["label"]) == {LABEL}, file.name


def test_a_table_in_a_notebook_shows_markup_as_text_and_blocks_alone(results):
    page = tables.display(pd.DataFrame({"a": ["<script>"]}, index=[77]), "<i>").to_html()
    assert "<script>" not in page and "<i>" not in page and "77" not in page
    page = tables.display(tables.comparison(results).query("block == 'published'")).to_html()
    assert "LAD-Reasoner 3B" in page and "always yes" not in page


# As files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 50 %", r"a\_b \& 50 \%"),
        ("\\", r"\textbackslash{}"),
        ("a\nb", "a b"),
        ("[x]", "{[}x]"),
        ("中\u202e\x00", "{[}U+4E2D]{[}U+202E]{[}U+0000]"),
        ("57.3–65.3", "57.3–65.3"),
    ],
)
def test_latex_sets_a_text_as_it_is_written(text, expected):
    assert formats.escape_latex(text) == expected


def test_rows_of_a_printed_table_have_what_their_numbers_are_of_above_them():
    frame = pd.DataFrame({"m": ["a", "b"], "Acc": ["1.0", "–"], "label": ["toy", "published"]})
    lines = formats.latex(frame).splitlines()
    toy, other = (next(number for number, line in enumerate(lines) if name in line) for name in ("toy", "published"))
    assert (lines[toy + 1], lines[other + 1]) == (r"a & 1.0 \\", r"b & – \\") and lines[1].endswith("{@{}lr@{}}")
    text = formats.latex(pd.DataFrame({"category": ["pushpins"] * 50, "right": ["1"] * 50}))
    assert text.count(r"\begin{longtable}") == 1 and r"\endhead" in text

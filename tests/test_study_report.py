"""Tables and figures of a study, from stored files that no model wrote. Everything in them is invented."""

import math
import random
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from made_up import grpo_rows, made_up, write_generations, write_rows

from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.records import RunRecord
from ladlib.report.claims import claims_frame, claims_text
from ladlib.report.stored import read_run
from ladlib.report.study import collapsed_runs, write_study
from ladlib.report.study_arms import arms_frame, arms_text, banded, seeds_frame
from ladlib.report.study_paired import differences_frame, differences_text
from ladlib.report.study_spoken import passes_frame, rationale_frame, read_summaries
from ladlib.runs import RunFolder

LABEL = load_profile("toy").label
PARTS = ("run.json", "generations", "logs", "rationales", "samples")


def toy_claims(stored, rationales):
    return claims_frame(stored, rationales, "toy study")


def answers(arm, right, seed=0, count=40):
    """``count`` good and logical images of each of two categories, the given share of them right."""
    draw, rows = random.Random(f"{arm}:{seed}"), []
    for category in ("pushpins", "screw_bag"):
        for number in range(count):
            anomaly = "logical" if number % 2 else "good"
            label = "yes" if anomaly == "logical" else "no"
            said = label if draw.random() < right else {"yes": "no", "no": "yes"}[label]
            rows.append(made_up(arm, category, anomaly, number, said, seed=seed))
    return [*rows, made_up(arm, "pushpins", "structural", 900, "no", seed=seed)]


def checked(true, agrees=0.99, count=20):
    """Rows of rationales: ten statements each; a structural one that must not count."""
    row = {"category": "pushpins", "anomaly": "logical", "label": "yes", "statements": 10, "true": round(10 * true),
           "unread": 0, "names_difference": True, "implied": "yes", "answer": "yes", "words": 30}  # fmt: skip
    rows = [row | {"id": str(number), "agrees": number < agrees * count} for number in range(count)]
    return [*rows, row | {"id": "s", "anomaly": "structural", "true": 0, "agrees": False}]


def sampled(arm, seed=0):
    groups = {"place": [True] * 8, "count": [True] + [False] * 7, "relation": [False] * 8}
    return [{"id": rule, "arm": arm, "seed": seed, "rule": rule, "right": right} for rule, right in groups.items()]


def logged(high=0.5):
    return [row | {"yes_rate": high} for row in grpo_rows(30)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("study") / "run")
    run.write(RunRecord(profile="toy", seed=0))
    for arm, right, seeds in (("base", 0.5, 1), ("sft", 0.6, 3), ("sft_grpo", 0.95, 3)):
        for seed in range(seeds):
            write_generations(run, arm, answers(arm, right, seed), seed)
            write_rows(run.rationales(arm, seed), checked(0.8 if arm == "sft" else 0.9))
    for arm in ("base", "sft"):
        write_rows(run.samples(arm, 0), sampled(arm))
    for arm in ("sft_grpo", "accuracy_only", "high_rate"):
        write_rows(run.log(arm, 0), logged())
    write_study(run)
    return run


@pytest.fixture(scope="module")
def stored(study):
    return read_run(study)


@pytest.fixture(scope="module")
def differences(stored):
    return differences_frame(stored)


@pytest.fixture(scope="module")
def bars(study, stored):
    return toy_claims(stored, read_summaries(study, [("sft", 0), ("sft_grpo", 0), ("sft_grpo", 1), ("large", 0)]))


def names(run):
    return {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if path.is_file()}


# The whole


def test_a_study_has_its_tables_and_figures(study):
    tables = ("arms", "seeds", "differences", "claims", "rationales", "passes")
    assert {f"tables/study-{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")} <= names(study)
    figures = ("readings", "categories", "passes", "collapse")
    assert {f"figures/study-{name}.{kind}" for name in figures for kind in ("png", "pdf")} <= names(study)


def test_the_same_stored_files_give_the_same_bytes(study, tmp_path):
    for part in PARTS:
        take = shutil.copytree if (study.root / part).is_dir() else shutil.copy
        take(study.root / part, tmp_path / part)
    write_study(RunFolder(tmp_path))
    assert names(study) == names(RunFolder(tmp_path))
    changed = [name for name in names(study) if (study.root / name).read_bytes() != (tmp_path / name).read_bytes()]
    assert not changed


def test_every_table_says_what_its_numbers_are_of(study):
    for file in study.tables.glob("*.csv"):
        assert set(pd.read_csv(file)["label"]) == {LABEL}, file.name


def test_a_study_of_one_arm_leaves_out_what_it_cannot_draw(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    write_generations(run, "grpo_only", answers("grpo_only", 0.6))
    write_study(run)
    assert {path.name for path in run.figures.glob("*.png")} == {"study-readings.png"}
    bars = pd.read_csv(run.tables / "study-claims.csv")
    assert set(bars["status"]) == {"not testable here"} and bars["measured"].isna().all()
    assert pd.read_csv(run.tables / "study-differences.csv").empty


def test_a_study_without_generations_is_refused(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    with pytest.raises(UserError, match="no generations"):
        write_study(run)


def test_the_study_is_reported_without_torch():
    code = "import sys, ladlib.report.study; print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Arms


def test_an_arm_is_the_mean_of_its_seeds_between_the_lowest_and_the_highest(stored):
    seeds = seeds_frame(stored).query("arm == 'sft'")["balanced_accuracy"]
    row = arms_frame(stored).query("arm == 'sft'").iloc[0]
    assert len(set(seeds)) > 1
    assert row["balanced_accuracy"] == pytest.approx(seeds.mean(), abs=0.01)
    assert (row["balanced_accuracy_low"], row["balanced_accuracy_high"]) == (seeds.min(), seeds.max())
    assert (row["seeds"], row["images"]) == (3, 80)


def test_arms_not_run_and_trivial_arms_have_a_row(stored):
    methods = arms_text(arms_frame(stored))["method"].tolist()
    assert len(methods) == 11
    assert "large (toy-large): not run" in methods and methods[-3:] == [
        "always yes",
        "always no",
        "yes at the base rate",
    ]


def test_a_band_is_shown_only_where_it_has_a_width():
    assert banded(61.24, 60.3, 62.5) == "61.2 (60.3–62.5)"
    assert banded(61.24, 61.22, 61.24) == "61.2"
    assert banded(math.nan, math.nan, math.nan) == "–"


def test_the_lenient_reading_has_its_own_column(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    bare = [made_up("base", "pushpins", kind, 0, "no", text="no") for kind in ("good", "logical")]
    write_generations(run, "base", bare)
    row = arms_frame(read_run(run)).iloc[0]
    assert (row["balanced_accuracy"], row["lenient_balanced_accuracy"], row["unparsed"]) == (0.0, 50.0, 100.0)


# Differences


def test_differences_are_pooled_against_each_arm_and_single_against_base(differences):
    found = set(zip(differences["arm"], differences["seeds"], strict=True))
    assert found == {("base", "0"), ("base", "1"), ("base", "2"), ("base", "all"), ("sft", "all")}
    assert len(differences) == 3 * len(found)


def test_a_pooled_difference_is_that_of_the_arms_means(stored, differences):
    arms = arms_frame(stored).set_index("arm")
    row = differences.query("arm == 'sft' and reading == 'strict'").iloc[0]
    expected = arms.loc["sft_grpo", "balanced_accuracy"] - arms.loc["sft", "balanced_accuracy"]
    assert row["difference"] == pytest.approx(expected, abs=0.02)
    assert row["low"] < row["difference"] < row["high"] and row["images"] == 80
    ranked = differences.query("arm == 'sft' and reading == 'likelihood'").iloc[0]
    assert ranked["difference"] == pytest.approx(arms.loc["sft_grpo", "auroc"] - arms.loc["sft", "auroc"], abs=0.02)


def test_only_images_that_both_arms_answered_are_compared(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    write_generations(run, "base", answers("base", 0.5)[:30])
    write_generations(run, "sft_grpo", answers("sft_grpo", 0.9))
    assert set(differences_frame(read_run(run))["images"]) == {30}


def test_images_of_one_kind_give_no_difference_and_no_reached_bar(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    for arm in ("base", "sft_grpo"):
        write_generations(run, arm, [made_up(arm, "pushpins", "good", 0, "no")])
    stored = read_run(run)
    shown = differences_text(differences_frame(stored))
    assert set(shown["points"]) == {"–"} and set(shown["95 % interval"]) == {"–"}
    assert toy_claims(stored, {})["status"].tolist()[:3] == ["not testable here"] * 3


# Claims about the toy


def test_claims_about_the_toy_hold_or_not_or_cannot_be_tested(bars):
    outcome = dict(zip(bars["claim"], bars["status"], strict=True))
    assert outcome["SFT + GRPO above base in each seed (strict answer)"] == "holds"
    assert outcome["SFT + GRPO above SFT"] == "holds"
    assert outcome["SFT + GRPO above SFT for as long again"] == "not testable here"
    assert outcome["SFT + GRPO within 3 points of large, or above"] == "not testable here"
    assert outcome["No category below chance by more than its interval"] == "holds"
    assert set(claims_text(bars)["status"]) == {"holds", "not testable here"}


def test_one_bad_seed_misses_the_bar_of_every_seed_and_is_the_one_shown(study, tmp_path):
    shutil.copytree(study.root / "generations", tmp_path / "generations")
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    write_generations(run, "sft_grpo", answers("sft_grpo", 0.4, seed=1), seed=1)
    stored = read_run(run)
    row = toy_claims(stored, {}).iloc[0]
    single = differences_frame(stored).query("arm == 'base' and reading == 'strict' and seeds == '1'").iloc[0]
    assert row["status"] == "does not hold" and row["measured"] == single["difference"]


def test_rationales_are_judged_on_good_and_logical_images(bars):
    row = bars[bars["claim"].str.contains("statements in rationales")].iloc[0]
    assert (row["measured"], row["status"]) == (90.0, "holds")
    assert bars[bars["claim"].str.contains("no less true")].iloc[0]["measured"] == pytest.approx(10)


def test_rationales_less_true_than_those_of_sft_miss_their_bar(stored):
    spoken = {("sft", 0): {"statements_true": 0.9}, ("sft_grpo", 0): {"statements_true": 0.86}}
    rows = toy_claims(stored, spoken).set_index("claim")["status"]
    assert rows["After SFT + GRPO, statements in rationales are true"] == "holds"
    assert rows["After SFT + GRPO, statements are no less true than after SFT"] == "does not hold"
    assert rows["After SFT + GRPO, rationale and answer agree"] == "not testable here"


def test_a_category_below_chance_is_named_and_missed(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    rows = [made_up("sft_grpo", "screw_bag", kind, number, "no" if kind == "logical" else "yes")
            for kind in ("good", "logical") for number in range(20)]  # fmt: skip
    write_generations(run, "sft_grpo", [*answers("sft_grpo", 0.9)[:40], *rows])
    row = toy_claims(read_run(run), {}).iloc[-1]
    assert row["status"] == "does not hold" and "screw bag" in row["over"]


# What is said


def test_rationales_are_averaged_over_seeds_within_a_band():
    said = {"statements_true": 0.9, "difference_named": None, "agree": 1.0, "compared": 1.0, "empty": 0.0,
            "statements_mean": 5.0, "words_mean": 30.0}  # fmt: skip
    summaries = {("sft", 0): said, ("sft", 1): said | {"statements_true": 0.8, "words_mean": 20.0}}
    row = rationale_frame(summaries, LABEL).iloc[0]
    assert (row["statements_true"], row["statements_true_low"], row["statements_true_high"]) == (85.0, 80.0, 90.0)
    assert (row["words_mean"], row["seeds"]) == (25.0, 2) and math.isnan(row["difference_named"])


def test_passes_are_shown_by_rule_in_their_usual_order():
    rows = [(arm, seed, rule, k, value) for arm in ("sft", "base") for seed in (0, 1) for rule in ("all", "place")
            for k, value in ((1, 0.25 + 0.5 * seed), (8, 1.0))]  # fmt: skip
    frame = passes_frame(pd.DataFrame(rows, columns=["arm", "seed", "rule", "k", "pass_at"]), LABEL)
    assert frame[["arm", "rule"]].to_numpy().tolist() == [
        ["base", "place"], ["base", "all"], ["sft", "place"], ["sft", "all"],
    ]  # fmt: skip
    assert set(frame["pass@1"]) == {50.0} and set(frame["pass@8"]) == {100.0} and set(frame["seeds"]) == {2}


# Figures


def test_collapses_stand_beside_the_healthy_run(stored):
    runs = collapsed_runs(stored)
    assert list(runs) == ["healthy", "accuracy reward only", "learning rate too high"]


def test_without_a_healthy_run_there_is_nothing_to_compare_a_collapse_with(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    write_generations(run, "base", answers("base", 0.5))
    write_rows(run.log("high_rate", 0), logged())
    assert collapsed_runs(read_run(run)) == {}


def test_a_seed_that_ends_in_one_answer_is_a_collapse_and_never_the_healthy_run(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    write_generations(run, "base", answers("base", 0.5))
    always_no = [row | {"yes_rate": 0.0} for row in logged()]
    write_rows(run.log("sft_grpo", 0), always_no)
    write_rows(run.log("sft_grpo", 1), logged())
    runs = collapsed_runs(read_run(run))
    assert list(runs) == ["healthy", "same settings, seed 0"]
    assert runs["healthy"] == logged() and runs["same settings, seed 0"] == always_no

import shutil

import pandas as pd
import pytest
from made_up import made_up_arm, made_up_run, write_generations

from ladlib.config import PROFILES, load_profile
from ladlib.errors import UserError
from ladlib.records import RunRecord
from ladlib.report import figures, published
from ladlib.report.page import write_report
from ladlib.report.stored import read_generations, read_run
from ladlib.report.tables import categories, comparison, comparison_text, departures, markdown, readable, write
from ladlib.runs import RunFolder


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    run = made_up_run(tmp_path_factory.mktemp("report") / "run")
    write_report(run)
    return run


def files_of(run):
    return {path.relative_to(run.root): path.read_bytes() for path in run.root.rglob("*") if path.is_file()}


# The report as a whole


def test_the_same_stored_files_give_the_same_bytes(reported, tmp_path):
    copy = RunFolder(tmp_path / "elsewhere")
    for part in ("run.json", "generations", "logs"):
        take = shutil.copytree if (reported.root / part).is_dir() else shutil.copy
        (copy.root).mkdir(exist_ok=True)
        take(reported.root / part, copy.root / part)
    write_report(copy)
    first, second = files_of(reported), files_of(copy)
    assert {str(name) for name in first if first[name] != second.get(name)} == set()
    assert set(first) == set(second)


# Bad input


def test_a_run_without_generations_is_refused_with_the_mend(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    with pytest.raises(UserError, match="no generations.*04_evaluation"):
        write_report(run)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json"}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="run.json"):
        write_report(RunFolder(tmp_path))


@pytest.mark.parametrize("line", ['{"id": "a"}\n', "not json\n"])
def test_a_damaged_line_is_refused_by_the_name_of_its_file(tmp_path, line):
    run = made_up_run(tmp_path)
    with run.generations("base", 0).open("a") as file:
        file.write(line)
    with pytest.raises(UserError, match="base-seed0.jsonl"):
        read_generations(run)


def test_an_empty_training_log_is_no_reason_to_refuse_the_rest(tmp_path):
    run = made_up_run(tmp_path)
    run.log("sft", 0).write_text("")
    assert read_run(run).logs["sft", 0] == []
    with pytest.raises(UserError, match="no rows"):
        figures.training([])


# Tables


@pytest.fixture(scope="module")
def stored(reported):
    return read_run(reported)


def test_the_comparison_has_the_run_then_the_trivial_then_the_published_rows(stored):
    frame = comparison(stored)
    assert list(frame["block"].unique()) == ["run", "trivial", "published"]
    assert list(frame["method"])[:4] == [
        "base (toy-base)", "SFT: not yet", "SFT + GRPO", "large (toy-large): not yet",
    ]  # fmt: skip
    lad = frame[frame["method"] == "LAD-Reasoner 3B"].iloc[0]
    assert (lad["accuracy"], lad["f1"], lad["label"]) == (60.4, 63.5, "published, other data")


def test_every_row_of_every_scored_table_says_what_it_is_of(stored):
    label = load_profile("toy").label
    for frame in (comparison(stored), categories(stored)):
        assert set(frame["label"]) == {label, published.LABEL}
    assert set(comparison(stored).query("block != 'published'")["label"]) == {label}


def test_the_compared_values_are_the_hand_worked_ones(stored):
    # base answers yes, no to two good and two logical images in each of two categories: half of each right
    base = comparison(stored).iloc[0]
    assert [base[key] for key in ("accuracy", "f1", "recall", "specificity", "accuracy_all")] == [50.0] * 5
    assert base["f1_all"] == 57.1  # TP 4, FP 2, FN 4: 8 / 14
    # sft_grpo: yes, no, yes to three images of a kind, and one unparsed logical one: TP 4, FN 3, FP 4, TN 2
    trained = comparison(stored).iloc[2]
    assert (trained["images"], trained["accuracy"], trained["unparsed"]) == (13, 46.2, 7.7)
    assert (trained["format"], trained["f1"]) == (92.3, 53.3)


def test_several_seeds_of_an_arm_are_averaged(tmp_path):
    run = made_up_run(tmp_path)
    write_generations(run, "base", made_up_arm("base", ["no", "no"], seed=1), seed=1)
    base = comparison(read_run(run)).iloc[0]
    assert (base["seeds"], base["recall"], base["specificity"]) == (2, 25.0, 75.0)


def test_the_terminal_table_names_every_method_and_label(reported):
    text = comparison_text(reported, width=140)
    for part in ("toy model on drawn images", "published, other data", "SFT + GRPO", "large (toy-large): not yet",
                 "always yes", "LAD-Reasoner 3B", "63.5"):  # fmt: skip
        assert part in text
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize("profile", PROFILES)
def test_departures_are_filled_from_the_profile(profile):
    profile = load_profile(profile)
    frame = departures(profile).set_index("item")
    assert frame.loc["Completions a prompt (G)", "ours"] == str(profile.grpo.group_size)
    assert not frame["ours"].str.contains(r"[{}]|^$").any()
    assert frame.loc["SFT learning rate", "parameter"] == "sft.learning_rate, sft.warmup"
    assert frame.loc["GRPO trained weights", "parameter"] == "model.lora_rank, model.freeze_vision"


def test_every_parameter_that_changes_a_departure_is_a_field_of_the_profile():
    values = load_profile("paper").model_dump()
    named = {name for cell in departures(load_profile("paper"))["parameter"] for name in cell.split(", ") if name}
    assert len(named) > 20
    for name in named:
        section, field = name.split(".")
        assert field in values[section], name


def test_text_in_a_table_cannot_break_markdown_or_latex(tmp_path):
    frame = pd.DataFrame({"label": ["50 % of a_b & | <c>"], "value": [0.25]})
    assert "a_b & \\| \\<c>" in markdown(readable(frame))
    write(frame, tmp_path, "odd")
    assert r"50 \% of a\_b \&" in (tmp_path / "odd.tex").read_text()
    assert pd.read_csv(tmp_path / "odd.csv").equals(frame)


# Published numbers


def test_every_published_row_has_a_source_and_a_tag():
    for name in set(published.names()) - {"departures"}:
        frame = published.read(name)
        assert frame["source"].str.len().min() > 5, name
        assert set(frame["tag"]) <= {"P", "S", "I", "R", "N"}, name


def test_recovered_values_agree_with_the_published_accuracy_and_f1():
    for row in published.read("lad_reasoner").to_dict("records"):
        found, right = row["recall"] * 5.61, row["specificity"] * 5.75
        assert (found + right) / 11.36 == pytest.approx(row["accuracy"], abs=0.15)
        assert 200 * found / (found + 561 + 575 - right) == pytest.approx(row["f1"], abs=0.15)
        assert (row["recall"] + row["specificity"]) / 2 == pytest.approx(row["balanced_accuracy"], abs=0.1)


def test_the_72bs_categories_pool_to_its_published_accuracy():
    frame = published.read("lad_reasoner_categories")
    assert (100 * frame["correct"] / frame["n"]).round(1).tolist() == frame["accuracy"].tolist()
    assert 100 * frame["correct"].sum() / frame["n"].sum() == pytest.approx(62.1, abs=0.06)


def test_an_unknown_published_table_is_refused():
    with pytest.raises(UserError, match="loco_logical"):
        published.read("loco_logic")


def test_the_published_numbers_of_an_installed_package_come_first(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "only_here.csv").write_text("a,source\n1,b\n")
    monkeypatch.setattr(published.ladlib, "__file__", str(tmp_path / "__init__.py"))
    assert published.names() == ["only_here"]

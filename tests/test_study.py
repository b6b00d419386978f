"""The study: which stages there are, what each depends on, a tiny whole, and pass@k against counting it out."""

from itertools import combinations

import pytest
import yaml
from tiny import tiny_base, tiny_profile, write_data
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.metrics import pass_at, pass_frame
from ladlib.records import ARMS as REPORTED
from ladlib.runs import RunFolder, read_jsonl
from ladlib.study import ARMS, find_arms, pairs_by_rule, plan, sample, study


def planned(*names, seeds=(0, 1), **changes):
    return {
        stage.name: stage for stage in plan(load_profile("toy", **changes), RunFolder("r"), find_arms(names), seeds)
    }


def test_an_arm_brings_the_arms_it_starts_from_but_only_their_training():
    assert list(planned("sft_grpo")) == [
        "data", "train-sft-seed0", "train-sft-seed1", "train-sft_grpo-seed0", "train-sft_grpo-seed1",
        "judge-sft_grpo-seed0", "judge-sft_grpo-seed1", "check-sft_grpo-seed0", "check-sft_grpo-seed1", "report",
    ]  # fmt: skip


def test_every_arm_of_the_report_is_planned_each_stage_below_those_it_needs_and_untrained_models_once():
    assert tuple(arm.name for arm in ARMS) == REPORTED
    stages = list(planned(seeds=(4, 5)).values())
    for number, stage in enumerate(stages):
        assert set(stage.after) <= {earlier.name for earlier in stages[:number]}
    names = [stage.name for stage in stages]
    assert [name for name in names if "-base-" in name] == ["sample-base-seed0", "judge-base-seed0", "check-base-seed0"]
    assert [name for name in names if "-large-" in name] == ["judge-large-seed0", "check-large-seed0"]


def test_a_changed_value_runs_again_what_has_it_and_no_value_means_the_same_twice():
    values = {name: stage.values for name, stage in planned().items()}
    assert values == {name: stage.values for name, stage in planned(label="other").items()}
    changed = planned(**{"sft.steps": 7})
    same = {name.split("-")[1] for name in values if "train" in name and values[name] == changed[name].values}
    assert same == {"sft_long"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arms", "base,stf"], ["'stf'", "sft_grpo"]),
        (["--seeds", "0,one"], ["0,one", "whole numbers"]),
        (["--arms", ","], ["','", "names no arm"]),
        (["--seeds", ""], ["whole numbers"]),
        (["--profile", "paper"], ["'paper'", "no toy datasets"]),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is_written(tmp_path, options, words):
    result = CliRunner().invoke(app, ["study", "--run", str(tmp_path / "study"), *options])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words)
    assert not (tmp_path / "study").exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def test_sampled_pairs_are_balanced_in_number_and_label(data):
    pairs = pairs_by_rule(tiny_profile(), data, per_rule=4)
    assert [pair.test.label for rule, pair in pairs if rule == "place"] == ["yes", "no"] * 2
    assert len({pair.id for _, pair in pairs}) == len(pairs)
    assert len(pairs_by_rule(tiny_profile(), data, per_rule=3)) < len(pairs)


def test_a_sample_holds_a_group_of_answers_to_each_pair_and_follows_its_seed(data, tmp_path):
    profile, runs = tiny_profile(grpo__group_size=3, model__max_new_tokens=6), []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = RunFolder(tmp_path / name)
        run.root.mkdir()
        run.data.symlink_to(data)
        sample(profile, run, "base", seed, tiny_base(), per_rule=2)
        runs.append(read_jsonl(run.samples("base", seed)))
    texts = [[row["texts"] for row in rows] for rows in runs]
    assert texts[0] == texts[1] != texts[2]
    for row in runs[0]:
        assert len(row["texts"]) == len(row["answers"]) == len(row["right"]) == 3
        assert row["right"] == [answer == row["label"] for answer in row["answers"]]
        assert len(set(row["texts"])) > 1, "answers are drawn, not the likeliest"


def write_tiny(folder, **changes):
    """The smoke profile with the tiny model, as a file, after ``changes``."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_profile(**changes).model_dump()), "utf-8")
    return str(path)


def test_a_base_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no-base is not there"):
        study(write_tiny(tmp_path, model__base=str(tmp_path / "no-base")), run=str(tmp_path / "study"))


@pytest.mark.slow
def test_a_whole_tiny_study_is_made_once_and_then_resumes_with_what_is_missing(tmp_path):
    arms = ["--arms", "sft_grpo,large", "--seeds", "0", "--run", str(tmp_path / "study")]
    command = ["study", *arms, "--profile", write_tiny(tmp_path, model__large=str(tmp_path / "nowhere"))]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "[large] left out" in result.output
    run = RunFolder(tmp_path / "study")
    ids = [row["id"] for row in read_jsonl(run.generations("sft_grpo", 0))]
    assert len(ids) == len(set(ids)) == 25  # five categories, all of their two + two + one test images
    assert len(read_jsonl(run.rationales("sft_grpo", 0))) == 25
    assert run.report.is_file() and any(run.tables.iterdir()) and any(run.figures.iterdir())
    run.rationales("sft_grpo", 0).unlink()
    again = CliRunner().invoke(app, command)
    done = sorted(line.split("]")[0][1:] for line in again.output.splitlines() if "] done in" in line)
    assert again.exit_code == 0 and done == ["check-sft_grpo-seed0"]


# pass@k


def row(rule, right, arm="base", seed=0):
    return {"arm": arm, "seed": seed, "rule": rule, "right": right}


@pytest.mark.parametrize("drawn", range(1, 7))
def test_pass_at_k_is_the_share_of_choices_of_k_answers_with_a_right_one(drawn):
    for correct in range(drawn + 1):
        for k in range(1, drawn + 1):
            choices = list(combinations([True] * correct + [False] * (drawn - correct), k))
            assert pass_at(correct, drawn, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_the_frame_holds_each_kind_of_rule_and_all_of_them_and_no_k_above_the_number_drawn():
    half, never = [True, False] * 4, [False] * 8
    frame = pass_frame([row("place", half), row("place", never), row("count", never), row("count", half, "sft", 1)])
    found = {(one.arm, one.seed, one.rule, one.k): one.pass_at for one in frame.itertuples()}
    assert found[("base", 0, "place", 1)] == 0.25 and found[("base", 0, "all", 1)] == pytest.approx(0.5 / 3)
    assert found[("base", 0, "place", 8)] == 0.5 and found[("base", 0, "count", 8)] == 0
    assert found[("sft", 1, "all", 8)] == 1 and len(found) == 10
    assert set(pass_frame([row("place", [True, False])])["k"]) == {1}

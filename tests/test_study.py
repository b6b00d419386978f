"""The study: which stages there are, what runs again, what a failed or killed stage leaves, and a tiny whole."""

import json
import subprocess
import sys
import time

import fake_stages
import pytest
import yaml
from fake_stages import stage
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.pipeline.stages import PACKAGE
from ladlib.runs import RunFolder
from ladlib.study.arms import ARMS, find_arms, with_starts
from ladlib.study.plan import Plan
from ladlib.study.runner import Runner


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "study")
    folder.open("smoke", 0)
    return folder


def go(run, stages, jobs=2):
    """Run ``stages``; (names that were lost, lines that were told)."""
    told: list[str] = []
    return Runner(stages, run, jobs, told.append).finish(), told


def ran(told):
    return sorted(line.split("]")[0][1:] for line in told if "] done in" in line)


def chain(run, **options):
    """Two stages, one of them built on the other, and one that stands alone."""
    return [
        stage(run.root, "one", **options), stage(run.root, "two", after="one"), stage(run.root, "three"),
    ]  # fmt: skip


def plan(*names, seeds=(0, 1)):
    return {one.name: one for one in Plan(load_profile("toy"), RunFolder("r"), find_arms(names), seeds).stages()}


def test_an_arm_brings_the_arms_it_starts_from_but_only_their_training():
    assert list(plan("sft_grpo")) == [
        "data", "train-sft-seed0", "train-sft-seed1", "train-sft_grpo-seed0", "train-sft_grpo-seed1",
        "judge-sft_grpo-seed0", "judge-sft_grpo-seed1", "check-sft_grpo-seed0", "check-sft_grpo-seed1", "report",
    ]  # fmt: skip


def test_base_and_sft_are_sampled_before_any_grpo_and_untrained_arms_have_one_seed():
    names = list(plan())
    assert max(names.index(name) for name in names if name.startswith("sample")) < names.index("train-grpo_only-seed0")
    assert [name for name in names if "-base-" in name] == ["sample-base-seed0", "judge-base-seed0", "check-base-seed0"]
    assert [name for name in names if "-large-" in name] == ["judge-large-seed0", "check-large-seed0"]


def test_a_collapse_is_trained_with_the_first_seed_only_and_not_judged():
    for name in ("high_rate", "unbalanced"):
        assert [one for one in plan(seeds=(4, 5)) if name in one] == [f"train-{name}-seed4"]


def test_every_stage_stands_below_those_it_needs():
    stages = list(plan().values())
    for number, one in enumerate(stages):
        assert set(one.after) <= {earlier.name for earlier in stages[:number]}


def test_every_arm_of_the_report_is_in_the_table():
    from ladlib.records import ARMS as REPORTED

    assert tuple(arm.name for arm in ARMS if arm.judged) == REPORTED


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_an_arm_changes_only_values_that_a_profile_has(arm):
    toy = load_profile("toy")
    changed = arm.profile(toy).model_dump()
    assert (changed == toy.model_dump()) == (not arm.overrides and not arm.factors)
    assert arm.start in ("", "large") or find_arms([arm.start])[0] in with_starts([arm])


def test_a_change_of_grpo_trains_grpo_again_and_nothing_else():
    before, changed = plan(), load_profile("toy", **{"grpo.steps": 7})
    after = {one.name: one for one in Plan(changed, RunFolder("r"), ARMS, (0, 1)).stages()}
    differ = {name for name in before if before[name].values != after[name].values}
    assert differ and all(plan()[name].work.__name__ == "train_grpo" for name in differ)


def test_files_of_the_package_that_stages_depend_on_are_there():
    for one in plan().values():
        assert all(path.is_file() for path in one.files if path.is_relative_to(PACKAGE)), one.name


def test_unbalanced_pairs_are_nine_to_one_in_a_mixed_order(tmp_path):
    from ladlib.study.work import unbalanced_pairs
    from ladlib.toy.datasets import write_datasets

    profile = load_profile("smoke", **{"data.grpo_pairs": 20, "data.toy.good": 3})
    write_datasets(tmp_path / "data", profile.data.toy)
    labels = [one.test.label for one in unbalanced_pairs(profile, tmp_path / "data", 0, 0.9)]
    assert labels.count("yes") == 18 and labels.count("no") == 2
    assert labels[-2:] != ["no", "no"]


def test_a_first_call_runs_all_stages_each_in_a_process_of_its_own_and_a_second_none(run):
    lost, told = go(run, chain(run))
    assert lost == () and ran(told) == ["one", "three", "two"]
    assert "[one] started" in told and any("3 of 3 stages" in line and "elapsed" in line for line in told)
    assert len({(run.root / name).read_text() for name in ("one", "two", "three")}) == 3
    assert (run.root / "logs" / "one.txt").read_text() == "writing one\n"
    assert [one.outputs for one in run.read().stages] == [("one",), ("three",), ("two",)]
    lost, told = go(run, chain(run))
    assert lost == () and ran(told) == [] and all("unchanged, skipped" in line for line in told)


def test_a_changed_value_runs_its_stage_again_and_what_is_built_on_it(run):
    go(run, chain(run))
    assert ran(go(run, chain(run, text="other"))[1]) == ["one", "two"]


def test_a_missing_output_is_made_again(run):
    go(run, chain(run))
    (run.root / "three").unlink()
    assert ran(go(run, chain(run))[1]) == ["three"]


def test_a_failed_stage_is_named_with_its_last_line_and_only_holds_up_what_needs_it(run):
    stages = [
        stage(run.root, "one", fake_stages.fail), stage(run.root, "two", after="one"),
        stage(run.root, "last", after="two"), stage(run.root, "three"),
    ]  # fmt: skip
    lost, told = go(run, stages)
    assert set(lost) == {"one", "two", "last"} and ran(told) == ["three"]
    assert any(line.startswith("[one] failed: ValueError: the oven is cold") for line in told)
    assert "[last] left out, since one failed" in told
    assert "Traceback" in (run.root / "logs" / "one.txt").read_text()
    assert go(run, [stage(run.root, "one"), *stages[1:]])[0] == ()


def test_a_killed_stage_takes_no_other_with_it(run):
    lost, told = go(run, [stage(run.root, "one", fake_stages.die), stage(run.root, "two", seconds=1.0)])
    assert lost == ("one",) and ran(told) == ["two"]
    assert any("[one] failed: its process was ended by signal 9, perhaps for want of memory" in line for line in told)


def test_a_stage_that_does_not_write_its_output_has_failed(run):
    lost, told = go(run, [stage(run.root, "one", fake_stages.forget)])
    assert lost == ("one",) and any("it did not write one" in line for line in told)


def test_a_killed_study_ends_its_stages_and_goes_on_with_what_is_left(run):
    code = (
        "import sys; from pathlib import Path; from fake_stages import stage; from ladlib.runs import RunFolder;"
        "from ladlib.study.runner import Runner; root = Path(sys.argv[1]);"
        "stages = [stage(root, 'one'), stage(root, 'two', after='one', seconds=1.5)];"
        "Runner(stages, RunFolder(root), 1, lambda line: print(line, flush=True)).finish()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.root)], stdout=subprocess.PIPE, text=True, cwd=fake_stages.__file__[:-15]
    )
    while "[two] started" not in process.stdout.readline():
        pass
    while "writing" not in (run.root / "logs" / "two.txt").read_text():
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(2)
    assert not (run.root / "two").exists(), "a stage outlived its study"
    stages = [stage(run.root, "one"), stage(run.root, "two", after="one", seconds=1.5)]
    assert ran(go(run, stages)[1]) == ["two"]


def test_side_by_side_stages_share_the_cores(run, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("ladlib.study.runner.hardware", lambda: {"cores": 8})
    go(run, [stage(run.root, "one", fake_stages.threads)], jobs=4)
    assert (run.root / "one").read_text() == "2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arms", "base,stf"], ["'stf'", "sft_grpo"]),
        (["--seeds", "0,one"], ["0,one", "whole numbers"]),
        (["--seeds", ""], ["whole numbers"]),
        (["--profile", "paper"], ["'paper'", "no toy datasets"]),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is_written(tmp_path, options, words):
    result = CliRunner().invoke(app, ["study", "--run", str(tmp_path / "study"), *options])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words)
    assert not (tmp_path / "study").exists()


@pytest.fixture
def tiny_yaml(tmp_path):
    """The smoke profile with the tiny model, as a file."""
    from tiny import tiny_profile

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_profile(model__large=str(tmp_path / "nowhere")).model_dump()), "utf-8")
    return str(path)


def test_a_base_that_is_not_there_is_refused(tmp_path, tiny_yaml):
    from ladlib.study import study

    values = yaml.safe_load((tmp_path / "tiny.yaml").read_text("utf-8"))
    values["model"]["base"] = str(tmp_path / "no-base")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values), "utf-8")
    with pytest.raises(UserError, match="no-base is not there"):
        study(tiny_yaml, run=str(tmp_path / "study"))


@pytest.mark.slow
def test_a_whole_tiny_study_is_made_once_and_then_goes_on_with_what_is_missing(tmp_path, tiny_yaml):
    arms = ["--arms", "base,sft,sft_grpo,large", "--seeds", "0", "--run", str(tmp_path / "study")]
    command = ["study", *arms, "--profile", tiny_yaml]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "[large] left out" in result.output
    run = RunFolder(tmp_path / "study")
    for arm in ("base", "sft", "sft_grpo"):
        ids = [json.loads(line)["id"] for line in run.generations(arm, 0).read_text().splitlines()]
        assert len(ids) == len(set(ids)) == 25  # five categories, all of their two + two + one test images
        assert len(run.rationales(arm, 0).read_text().splitlines()) == 25
    assert run.samples("base", 0).is_file() and run.samples("sft", 0).is_file()
    assert run.report.is_file() and any(run.tables.iterdir()) and any(run.figures.iterdir())
    run.rationales("sft", 0).unlink()
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0 and ran(again.output.splitlines()) == ["check-sft-seed0"]

"""A training that is killed and goes on, against one that was left alone."""

import json

import pytest
import torch
from tiny import tiny_base, tiny_profile, write_data

from ladlib import grpo, sft
from ladlib.models import load_model
from ladlib.runs import RunFolder, read_jsonl
from ladlib.training import StepLog, state_dir

STAGES = [pytest.param(sft.train, "sft", id="sft"), pytest.param(grpo.train, "sft_grpo", id="grpo")]
CLOCKS = {"seconds", "seconds_generate", "seconds_reward", "seconds_update"}


class Killed(BaseException):
    """Stands for a signal: nothing in the trainer catches it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def profile(**changes):
    four = {"sft__steps": 4, "grpo__steps": 4, "sft__trl": {"save_steps": 2}, "grpo__trl": {"save_steps": 2}}
    return tiny_profile(**four | {"grpo__temperature": 2.0} | changes)


def train(stage, data, folder, **changes):
    run = RunFolder(folder)
    return run, stage(profile(**changes), data, run, 0, model=tiny_base())


def kill_after(monkeypatch, step, stage, data, folder):
    tell = StepLog.on_log

    def told(self, args, state, control, **rest):
        tell(self, args, state, control, **rest)
        if state.global_step == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(StepLog, "on_log", told)
        with pytest.raises(Killed):
            train(stage, data, folder)


def without_clocks(path):
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in read_jsonl(path)]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "arm"), STAGES)
def test_a_killed_training_ends_where_an_undisturbed_one_does(data, tmp_path, monkeypatch, capsys, stage, arm):
    whole, expected = train(stage, data, tmp_path / "whole")
    kill_after(monkeypatch, 3, stage, data, tmp_path / "killed")
    capsys.readouterr()
    run, folder = train(stage, data, tmp_path / "killed")
    assert f"{arm}: resuming after step 2" in capsys.readouterr().out
    assert [row["step"] for row in read_jsonl(run.log(arm, 0))] == [1, 2, 3, 4]
    assert without_clocks(run.log(arm, 0)) == without_clocks(whole.log(arm, 0))
    assert read_jsonl(run.rollouts(arm, 0)) == read_jsonl(whole.rollouts(arm, 0))
    settings = profile().model
    weights, left_alone = (load_model(str(one), settings).state_dict() for one in (folder, expected))
    assert all(torch.equal(weights[name], left_alone[name]) for name in left_alone)
    assert sorted(one.name for one in folder.iterdir()) == sorted(one.name for one in expected.iterdir())
    assert not state_dir(folder).exists()


@pytest.mark.slow
def test_a_state_that_was_cut_off_while_being_written_is_not_gone_on_from(data, tmp_path, monkeypatch, capsys):
    kill_after(monkeypatch, 3, sft.train, data, tmp_path)
    kept = state_dir(RunFolder(tmp_path).checkpoint("sft", 0))
    written = (kept / "checkpoint-2" / "trainer_state.json").read_text()
    (kept / "checkpoint-2" / "trainer_state.json").write_text(written[: len(written) // 2])
    run, _ = train(sft.train, data, tmp_path)
    assert "resuming" not in capsys.readouterr().out
    assert [row["step"] for row in read_jsonl(run.log("sft", 0))] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"sft__learning_rate": 1e-5}, {"data__max_pixels": 12544}])
def test_a_training_with_other_values_begins_anew(data, tmp_path, monkeypatch, capsys, changes):
    kill_after(monkeypatch, 3, sft.train, data, tmp_path)
    run, _ = train(sft.train, data, tmp_path, **changes)
    assert "resuming" not in capsys.readouterr().out
    assert [row["step"] for row in read_jsonl(run.log("sft", 0))] == [1, 2, 3, 4]


@pytest.mark.slow
def test_an_image_that_changed_since_makes_a_training_begin_anew(data, tmp_path, monkeypatch, capsys):
    kill_after(monkeypatch, 3, sft.train, data, tmp_path)
    origin = state_dir(RunFolder(tmp_path).checkpoint("sft", 0)) / "origin.json"
    origin.write_text(json.dumps(json.loads(origin.read_text()) | {"shown": "other images"}, indent=2) + "\n")
    train(sft.train, data, tmp_path)
    assert "resuming" not in capsys.readouterr().out

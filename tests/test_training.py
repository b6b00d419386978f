"""What both stages share: losses, TRL's options, alarms, resuming."""

import json
import math
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_base, tiny_profile, weights_of
from transformers import TrainingArguments
from trl.trainer import grpo_trainer

from ladlib import grpo, launch, sft, training
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.pipeline import reproduce
from ladlib.runs import RELEASED, RunFolder, read_jsonl, stored
from ladlib.sft_data import balanced_pairs, make_conversations
from ladlib.toy.datasets import write_datasets
from ladlib.training import StepLog, load_policy, state_dir

DEFAULTS = {
    "gradient_checkpointing", "save_steps", "ddp_find_unused_parameters", "top_p", "top_k", "use_bias_correction_kl",
    "num_iterations", "loss_type", "scale_rewards", "lr_scheduler_type", "disable_dropout", "dataloader_num_workers",
}  # fmt: skip  # of TRL's options, that a profile may set otherwise
LOSSES = json.loads(Path(__file__).with_name("losses.json").read_text())
SPREAD = {"grpo.group_size": 4, "grpo.temperature": 1.5, "model.max_new_tokens": 100}  # groups differ in reward
ACCUMULATED = {"data.sft_samples": 8, "sft.batch_size": 4, "sft.micro_batch_size": 2}  # rows sorted by length
RUNS = {"grpo": {}, "grpo spread": SPREAD, "grpo spread stock": SPREAD | {"model.shared_prefix": False}}


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{models[0] if models else platform.processor()} torch {torch.__version__}"


def measure(folder: Path) -> dict[str, list[dict]]:
    """Two steps of each stage on the smoke profile, at one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    write_datasets(folder / "data", load_profile("smoke").toy)
    logs = {}
    for name, changes in {"sft accumulated": ACCUMULATED, "sft": {}}.items():
        run = RunFolder(folder / name)
        start = sft.train(load_profile("smoke", **changes), folder / "data", run, 0)
        logs[name] = read_jsonl(run.log("sft", 0))
    for name, changes in RUNS.items():
        run = RunFolder(folder / name)
        grpo.train(load_profile("smoke", **changes), folder / "data", run, 0, model=str(start))
        logs[name] = read_jsonl(run.log("sft_grpo", 0))
    torch.set_num_threads(threads)
    return {
        name: [{key: row[key] for key in LOSSES["columns"] if key in row} for row in rows]
        for name, rows in logs.items()
    }


def test_two_steps_of_each_stage_lose_what_they_always_lost(tmp_path):
    """Equal to eight digits on the machine that wrote the file; elsewhere the order of a sum may differ."""
    rel = 1e-8 if machine() == LOSSES["machine"] else 1e-4
    measured = measure(tmp_path)
    assert measured.keys() == LOSSES["steps"].keys()
    for name, rows in LOSSES["steps"].items():
        assert [list(row) for row in measured[name]] == [list(row) for row in rows]
        for row, expected in zip(measured[name], rows, strict=True):
            assert row == pytest.approx(expected, rel=rel, abs=1e-7), name


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ("sft", {"num_iterations": 2}, "sft.trl.num_iterations is no option of TRL."),
        ("grpo", {"epsilon": "big"}, "grpo.trl.epsilon: Input should be a valid number, got 'big'."),
        ("grpo", {"mask_truncated_completions": 1}, "Input should be a valid boolean, got 1."),
        ("sft", {"learning_rate": 0.1}, "sft.trl.learning_rate is set by ladlib."),
    ],
)
def test_an_option_that_trl_does_not_have_or_we_set_is_refused_before_anything_runs(
    section, options, message, tmp_path
):
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(load_profile("smoke", **{f"{section}.trl": options}).model_dump()))
    with pytest.raises(UserError, match=message):
        reproduce(str(file), run=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_trl_gets_the_profiles_options_and_all_others_that_we_set_are_ours(tmp_path, monkeypatch):
    options = {"weight_decay": 0.5, "save_steps": 7, "max_grad_norm": 2}
    profile = tiny_profile(sft__trl=options, grpo__trl=options)
    training.check_trl_options(profile)
    handed = []
    monkeypatch.setattr(sft, "SFTConfig", lambda **given: handed.append(given) or 1 / 0)
    monkeypatch.setattr(grpo, "GRPOConfig", lambda **given: handed.append(given) or SimpleNamespace(n_gpu=0))
    policy, processor = training.load_policy(profile, tiny_base())
    grpo.make_config(profile, policy, tmp_path, 0)
    with pytest.raises(ZeroDivisionError):
        sft.make_trainer(profile, [], tmp_path, policy, processor, tmp_path, 0)
    assert all(options.items() <= given.items() for given in handed)
    assert handed[0].keys() | handed[1].keys() | {"vllm_mode"} == {*training.SET_BY_LADLIB, *DEFAULTS, *options}


# Alarms

FINE = {"frac_reward_zero_std": 0.5, "clipped_share": 0.0, "yes_rate": 0.5, "loss": 1.0, "grad_norm": 1.0}
LOGS = {
    f"{run.name}-{name}": path
    for run in sorted(RELEASED.iterdir())
    for name, path in stored(run / "logs").items()
    if "rollouts" not in name
}


def alarms(rows) -> list[tuple[int, str]]:
    """(number of the row, alarm) of each alarm of a log."""
    log = StepLog(RunFolder(Path("none")), "sft", 0, dict, stop=False)
    return [(number, text) for number, row in enumerate(rows, 1) for text in log.alarms(row)]


@pytest.mark.parametrize(
    ("row", "step", "words"),
    [
        ({"loss": math.nan}, 1, "the loss is not finite"),
        ({"grad_norm": math.inf}, 1, "the gradient is not finite"),
        ({"frac_reward_zero_std": 0.9}, 5, "nothing to learn from"),
        ({"clipped_share": 0.6}, 5, "truncated"),
        ({"yes_rate": 0.0}, 5, "all answers are no"),
        ({"yes_rate": 1.0}, 5, "all answers are yes"),
    ],
)
def test_each_rule_raises_one_alarm_that_says_what_to_do(row, step, words):
    ((number, text),) = alarms([FINE | row] * 9)
    assert number == step and words in text and ";" in text
    assert alarms([FINE] * 9) == alarms([FINE, *[FINE | row] * (step - 1)] * 3) == []


@pytest.mark.parametrize("name", LOGS)
def test_of_the_released_trainings_only_those_without_reward_spread_raise_an_alarm(name):
    raised = alarms(read_jsonl(LOGS[name]))
    arm = name.removeprefix("study-").removeprefix("toy-")
    assert all("nothing to learn from" in text for _, text in raised)
    assert not raised or arm.startswith(("format_only", "unbalanced"))
    assert raised or not arm.startswith("unbalanced")  # which learned to answer yes


@pytest.mark.parametrize("stop", [True, False])
def test_a_loss_that_is_nan_is_logged_and_stops_the_training_where_the_profile_says_so(stop, data, tmp_path):
    profile, run = tiny_profile(sft__steps=3, sft__learning_rate=1e30, stop_on_alarm=stop), RunFolder(tmp_path)
    with pytest.warns(UserWarning, match="not finite"):
        if stop:
            with pytest.raises(UserError, match="sft stopped at step 2: the loss is not finite"):
                sft.train(profile, data, run, 0)
        else:
            with pytest.raises(UserError, match="sft ended with weights that are not finite"):
                sft.train(profile, data, run, 0)
    rows = read_jsonl(run.log("sft", 0))
    assert len(rows) == (2 if stop else 3) and math.isnan(rows[1]["loss"]) and rows[1]["alarms"]
    assert not run.checkpoint("sft", 0).exists()


@pytest.mark.parametrize("changes", [{"grpo__steps": 2}, {"grpo__steps": 0}], ids=["steps", "epochs"])
def test_pairs_that_do_not_fill_a_step_are_refused_and_leave_no_checkpoint(data, tmp_path, changes):
    profile, run = tiny_profile(**changes), RunFolder(tmp_path)
    pairs = balanced_pairs(profile, data, 0)[:1]
    with pytest.raises(UserError, match="1 pairs do not fill one step of 2 prompts"):
        grpo.train(profile, data, run, 0, model=tiny_base(), pairs=pairs)
    assert not run.checkpoint("sft_grpo", 0).exists()


def test_a_training_that_ends_before_its_last_step_keeps_no_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(StepLog, "on_log", lambda *args, **rest: setattr(args[3], "should_training_stop", True))
    with pytest.raises(UserError, match="sft ended before its 3 steps"):
        sft.train(tiny_profile(sft__steps=3), data, RunFolder(tmp_path), 0)
    assert not RunFolder(tmp_path).checkpoint("sft", 0).exists()


def test_fewer_pairs_than_wanted_are_trained_on_with_one_warning_of_both_numbers(data, tmp_path):
    profile = tiny_profile(data__grpo_pairs=1000, grpo__steps=1)
    with pytest.warns(UserWarning, match=r"sft_grpo: the data give \d+ pairs, data.grpo_pairs wants 1000"):
        grpo.train(profile, data, RunFolder(tmp_path), 0, model=tiny_base())


# Resuming


class Killed(BaseException):
    """Stands for a signal: nothing in the trainer catches it."""


def train(stage, data, folder, workers=0, **changes):
    trl = {"save_steps": 2, "dataloader_num_workers": workers}
    profile = tiny_profile(**{f"{stage}__steps": 4, f"{stage}__trl": trl, "grpo__temperature": 2.0} | changes)
    return RunFolder(folder), launch.run_stage(stage, profile, data, RunFolder(folder), 0)


def kill_after(monkeypatch, step, stage, data, folder, workers=0):
    log = StepLog.on_log

    def on_log(self, args, state, control, **rest):
        log(self, args, state, control, **rest)
        if state.global_step == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(StepLog, "on_log", on_log)
        with pytest.raises(Killed):
            train(stage, data, folder, workers)


def rows_of(path):
    """The rows of a log without the columns of the clock."""
    return [{name: row[name] for name in row if not name.startswith("seconds")} for row in read_jsonl(path)]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "arm"), launch.ARMS.items())
def test_a_killed_training_ends_where_an_undisturbed_one_does(data, tmp_path, monkeypatch, capsys, stage, arm):
    """Also where processes of its own open the images."""
    whole, expected = train(stage, data, tmp_path / "whole")
    kill_after(monkeypatch, 3, stage, data, tmp_path / "killed", workers=2)
    capsys.readouterr()
    load, is_safe = torch.load, []
    monkeypatch.setattr(
        torch, "load", lambda *args, **rest: is_safe.append(rest.get("weights_only", True)) or load(*args, **rest)
    )
    run, folder = train(stage, data, tmp_path / "killed", workers=2)
    assert f"{arm}: resuming after step 2" in capsys.readouterr().out
    assert is_safe and all(is_safe), "optimizer, schedule and random state are tensors and numbers, no objects"
    assert [row["step"] for row in read_jsonl(run.log(arm, 0))] == [1, 2, 3, 4]
    assert rows_of(run.log(arm, 0)) == rows_of(whole.log(arm, 0))
    assert read_jsonl(run.rollouts(arm, 0)) == read_jsonl(whole.rollouts(arm, 0))
    weights, others = weights_of(folder), weights_of(expected)
    assert all(torch.equal(weights[name], others[name]) for name in others)
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in expected.iterdir())
    assert not state_dir(folder).exists()


def cut(name):
    """Cut a file of the state to half."""

    def damage(states):
        file = states / "checkpoint-2" / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def other_images(states):
    file = states / "checkpoint-2" / "origin.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shown": "other images"}, indent=2) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "changes"),
    [
        *((cut(name), {}) for name in ("trainer_state.json", "model.safetensors", "optimizer.pt", "rng_state.pth")),
        (lambda states: (states / "checkpoint-2" / "scheduler.pt").unlink(), {}),
        (lambda states: (states / "checkpoint-2" / "config.json").unlink(), {}),
        (other_images, {}),
        (None, {"sft__learning_rate": 1e-5}),
    ],
)
def test_a_training_begins_again_where_its_state_is_incomplete_or_of_another_training(
    data, tmp_path, monkeypatch, capsys, damage, changes
):
    kill_after(monkeypatch, 3, "sft", data, tmp_path)
    if damage:
        damage(state_dir(RunFolder(tmp_path).checkpoint("sft", 0)))
    run, _ = train("sft", data, tmp_path, **changes)
    assert "resuming" not in capsys.readouterr().out
    assert [row["step"] for row in read_jsonl(run.log("sft", 0))] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_checkpoint_that_was_trained_by_hand_is_kept_or_moved_aside_and_a_damaged_one_made_again(
    data, tmp_path, capsys
):
    run, folder = train("sft", data, tmp_path)
    first = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    train("sft", data, tmp_path)
    assert "same inputs and is kept" in capsys.readouterr().out
    assert first == {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    (folder / "model.safetensors").write_bytes(first["model.safetensors"][0][:-1])
    train("sft", data, tmp_path)
    assert "model.safetensors is not the file that" in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == first["model.safetensors"][0]
    train("sft", data, tmp_path, sft__learning_rate=1e-5)
    assert (folder.with_name("sft-seed0-before") / "model.safetensors").read_bytes() == first["model.safetensors"][0]
    assert "trained from other inputs, is now" in capsys.readouterr().out


def test_a_process_that_sees_eight_gpus_trains_on_one_and_loads_the_reference_model_whole(data, tmp_path, monkeypatch):
    set_up, loaded, load = TrainingArguments.__post_init__, [], grpo_trainer.create_model_from_path

    def sees_eight(arguments):
        set_up(arguments)
        arguments._n_gpu = 8

    def record(name, **options):
        loaded.append(options)
        return load(name, **options)

    monkeypatch.setattr(TrainingArguments, "__post_init__", sees_eight)
    monkeypatch.setattr(grpo_trainer, "create_model_from_path", record)
    profile = tiny_profile(grpo__beta=0.1)
    policy, processor = load_policy(profile, tiny_base())
    conversations, pairs = make_conversations(profile, data, 0), balanced_pairs(profile, data, 0)
    sft.make_trainer(profile, conversations, data, policy, processor, tmp_path / "sft", 0)
    grpo.make_trainer(profile, pairs, data, policy, processor, tmp_path / "grpo", 0)
    assert [(options["device_map"], options["revision"]) for options in loaded] == [(None, "main")]

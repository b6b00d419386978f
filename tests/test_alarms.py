"""A training that fails says so in the log and in a warning, and stops where the profile asks for it."""

import math
import warnings

import pytest
from tiny import tiny_base, tiny_profile, write_data

from ladlib import alarms, grpo, sft
from ladlib.alarms import ALARM_STEPS, Alarms, alarms_of
from ladlib.errors import UserError
from ladlib.models import load_model
from ladlib.runs import RELEASED, RunFolder, read_jsonl, stored
from ladlib.training import state_dir

FINE = {"frac_reward_zero_std": 0.5, "clipped_share": 0.0, "yes_rate": 0.5, "loss": 1.0, "grad_norm": 1.0}
CALM = [{"grad_norm": 1.0}] * 20
LOGS = {
    f"{run.name}-{name}": path
    for run in sorted(RELEASED.iterdir())
    for name, path in stored(run / "logs").items()
    if "rollouts" not in name
}


def raised(rows) -> list[tuple[int, str]]:
    """(number of the row, alarm) of each alarm, which is also a warning."""
    watch = Alarms()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        new = [(number, text) for number, row in enumerate(rows, 1) for text in watch({"step": number} | FINE | row)]
    assert len(caught) == len(new)
    return new


@pytest.mark.parametrize(
    ("rows", "step", "words"),
    [
        *[([{}, {name: value}], 2, f"the {name} is not finite") for name in ("loss", "grad_norm", "reward")
          for value in (math.nan, math.inf, -math.inf)],
        ([*CALM, *[{"grad_norm": 30.0}] * 10], 20 + ALARM_STEPS, "gradient norm is more than 10 times"),
        ([{"frac_reward_zero_std": 0.9}] * 9, ALARM_STEPS, "nothing to learn from"),
        ([{"clipped_share": 0.6}] * 9, ALARM_STEPS, "truncated"),
        ([{"yes_rate": 0.0}] * 9, ALARM_STEPS, "all answers are no"),
        ([{"yes_rate": 1.0}] * 9, ALARM_STEPS, "all answers are yes"),
    ],
)  # fmt: skip
def test_each_rule_raises_one_alarm_that_says_what_to_do(rows, step, words):
    ((number, text),) = raised(rows)
    assert number == step and words in text and ";" in text


@pytest.mark.parametrize(
    "rows",
    [
        [FINE] * 9,
        [*[{"yes_rate": 0.0}] * (ALARM_STEPS - 1), FINE] * 3,
        [*CALM, {"grad_norm": 500.0}, *CALM],
        [*CALM, *[{"grad_norm": 9.0}] * 10],
        [{"grad_norm": 100.0 / step} for step in range(1, 60)],
        [{"frac_reward_zero_std": None, "clipped_share": None, "yes_rate": None}] * 9,  # stage 1
    ],
    ids=["fine", "interrupted", "spike", "below", "high at first", "stage 1"],
)
def test_a_training_that_learns_raises_none(rows):
    assert raised(rows) == []


@pytest.mark.parametrize("name", LOGS)
def test_of_the_released_trainings_only_those_without_reward_spread_raise_an_alarm(name):
    texts = alarms_of(read_jsonl(LOGS[name]))
    arm = name.removeprefix("study-").removeprefix("toy-")
    assert all("nothing to learn from" in text for text in texts)
    assert not texts or arm.startswith(("format_only", "unbalanced"))
    assert texts or not arm.startswith("unbalanced")  # which learned to answer yes


@pytest.fixture
def collapse(monkeypatch):
    """Call it to let every later row look like that of a policy that always answers no."""
    columns, count = grpo._columns, iter(range(10_000))

    def after(steps: int) -> None:
        bad = {"yes_rate": 0.0}
        monkeypatch.setattr(grpo, "_columns", lambda logs: columns(logs) | FINE | (bad if next(count) >= steps else {}))

    return after


@pytest.mark.slow
def test_a_training_that_stops_stores_the_last_checkpoint_without_a_sign(tmp_path, monkeypatch, collapse):
    monkeypatch.setattr(alarms, "ALARM_STEPS", 2)
    data, run = write_data(tmp_path / "data"), RunFolder(tmp_path / "run")
    profile = tiny_profile(grpo__steps=9, grpo__trl={"save_steps": 1}, stop_on_alarm=True)
    collapse(2)
    with pytest.warns(UserWarning, match="all answers are no"), pytest.raises(UserError) as error:
        grpo.train(profile, data, run, 0, model=tiny_base())
    copy = run.checkpoint("sft_grpo", 0).with_name("sft_grpo-seed0-step2")
    assert "GRPO stopped at step 4: all answers are no" in error.value.what
    assert f"The last good checkpoint is {copy}." in error.value.hint
    assert load_model(str(copy), profile.model) and not [
        file for file in copy.iterdir() if file.suffix in (".pt", ".bin")
    ]
    assert not run.checkpoint("sft_grpo", 0).exists()
    rows = read_jsonl(run.log("sft_grpo", 0))
    assert [row["step"] for row in rows if "alarms" in row] == [4] and len(rows) == 4


def test_a_training_that_is_not_to_stop_continues_and_logs_the_alarm(tmp_path, monkeypatch, collapse):
    monkeypatch.setattr(alarms, "ALARM_STEPS", 2)
    data, run = write_data(tmp_path / "data"), RunFolder(tmp_path / "run")
    collapse(0)
    with pytest.warns(UserWarning, match="all answers are no"):
        grpo.train(tiny_profile(grpo__steps=3), data, run, 0, model=tiny_base())
    rows = read_jsonl(run.log("sft_grpo", 0))
    assert [len(row.get("alarms", ())) for row in rows] == [0, 1, 0] and run.checkpoint("sft_grpo", 0).is_dir()


def test_a_loss_that_is_nan_is_logged_and_stops_stage_1(tmp_path):
    data, run = write_data(tmp_path / "data"), RunFolder(tmp_path / "run")
    profile = tiny_profile(sft__steps=3, sft__learning_rate=1e30, stop_on_alarm=True)
    with pytest.warns(UserWarning, match="not finite"), pytest.raises(UserError, match="No checkpoint was stored"):
        sft.train(profile, data, run, 0)
    last = read_jsonl(run.log("sft", 0))[-1]
    assert not (math.isfinite(last["loss"]) and math.isfinite(last["grad_norm"])) and last["alarms"]
    assert state_dir(run.checkpoint("sft", 0)).is_dir() and not run.checkpoint("sft", 0).exists()

"""Training that goes wrong is told in the log and in a warning, and stopped where that was asked for."""

import math
import warnings

import pytest
from tiny import tiny_base, tiny_profile, write_data

from ladlib import alarms, grpo, sft
from ladlib.alarms import ALARM_STEPS, Alarms, Stopped
from ladlib.errors import UserError
from ladlib.models import load_model
from ladlib.runs import RELEASED, RunFolder, read_jsonl
from ladlib.training import states

FINE = {"frac_reward_zero_std": 0.5, "clipped_share": 0.0, "yes_rate": 0.5, "loss": 1.0, "grad_norm": 1.0}
LOGS = sorted(path for path in RELEASED.glob("*/logs/*.jsonl") if "rollouts" not in path.name)


def raised(rows, **options):
    watch = Alarms(**options)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        return [(number, text) for number, row in enumerate(rows, 1) for text in watch({"step": number} | FINE | row)]


@pytest.mark.parametrize("name", ["loss", "grad_norm", "reward"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_told_at_once(name, value):
    ((step, told),) = raised([{}, {name: value}])
    assert step == 2 and told.startswith(f"the {name} is no number any more") and "learning rate" in told


def test_an_exploding_norm_is_told_after_some_steps_and_a_spike_is_not():
    calm = [{"grad_norm": 1.0}] * 20
    assert raised([*calm, {"grad_norm": 500.0}, *calm]) == []
    assert raised([*calm, *[{"grad_norm": 9.0}] * 10]) == []
    ((step, told),) = raised([*calm, *[{"grad_norm": 30.0}] * 10])
    assert step == 20 + ALARM_STEPS and "gradient norm is more than 10 times" in told


def test_a_norm_that_is_high_only_at_the_beginning_is_none():
    assert raised([{"grad_norm": 100.0 / step} for step in range(1, 60)]) == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"frac_reward_zero_std": 1.0}, "nothing to learn from"), ({"clipped_share": 1.0}, "cut off"),
        ({"yes_rate": 0.0}, "no answer is yes"), ({"yes_rate": 1.0}, "no answer is anything but yes"),
    ],
)  # fmt: skip
def test_each_sign_of_stage_2_says_what_it_means_and_what_to_do(row, words):
    ((step, told),) = raised([row] * 9)
    assert step == ALARM_STEPS and words in told and ";" in told


def test_a_log_of_stage_1_has_fewer_columns_and_raises_nothing():
    assert raised([{"loss": 1.0, "grad_norm": 1.0, "frac_reward_zero_std": None, "yes_rate": None}] * 9) == []


@pytest.mark.parametrize("path", LOGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_of_the_released_trainings_only_those_set_up_without_spread_raise_an_alarm_and_it_is_that_one(path):
    told = {text for _, text in raised(read_jsonl(path))}
    assert all("nothing to learn from" in text for text in told)
    assert not told or path.name.startswith(("format_only", "unbalanced"))
    assert told or not path.name.startswith("unbalanced")  # that learned to say yes


def test_only_where_it_is_asked_for_an_alarm_stops():
    with pytest.warns(UserWarning, match="SFT, step 7: the loss is no number"):
        assert Alarms("SFT")(FINE | {"step": 7, "loss": math.nan})
    watch = Alarms("SFT", stop=True)
    watch.halt([], 3)
    with pytest.raises(Stopped, match="SFT stopped at step 7: the loss"):
        watch.halt(["the loss"], 7)


def collapse(monkeypatch, after: int) -> None:
    """Let every row that comes after so many look like that of a policy that says no to all."""
    row = grpo._row
    monkeypatch.setattr(
        grpo, "_row", lambda logs: row(logs) | FINE | ({"yes_rate": 0.0} if next(count) >= after else {})
    )
    count = iter(range(10_000))


@pytest.mark.slow
def test_a_training_that_stops_keeps_the_last_checkpoint_without_a_sign(tmp_path, monkeypatch):
    monkeypatch.setattr(alarms, "ALARM_STEPS", 3)
    data, run = write_data(tmp_path / "data"), RunFolder(tmp_path / "run")
    profile = tiny_profile(grpo__steps=9, grpo__save_steps=1, grpo__stop_on_alarm=True)
    collapse(monkeypatch, after=2)
    with pytest.warns(UserWarning, match="no answer is yes"), pytest.raises(UserError) as error:
        grpo.train(profile, data, run, 0, model=tiny_base())
    kept = run.checkpoint("sft_grpo", 0).with_name("sft_grpo-seed0-step2")
    assert "GRPO stopped at step 5: no answer is yes any more" in error.value.what
    assert f"The last good checkpoint is {kept}." in error.value.hint
    assert load_model(str(kept), profile.model) and not [one for one in kept.iterdir() if one.suffix in (".pt", ".bin")]
    assert not run.checkpoint("sft_grpo", 0).exists()
    rows = read_jsonl(run.log("sft_grpo", 0))
    assert [row["step"] for row in rows if "alarms" in row] == [5] and len(rows) == 5


@pytest.mark.slow
def test_a_training_that_is_not_told_to_stop_goes_on_and_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(alarms, "ALARM_STEPS", 2)
    data, run = write_data(tmp_path / "data"), RunFolder(tmp_path / "run")
    collapse(monkeypatch, after=0)
    with pytest.warns(UserWarning, match="no answer is yes"):
        grpo.train(tiny_profile(grpo__steps=3), data, run, 0, model=tiny_base())
    rows = read_jsonl(run.log("sft_grpo", 0))
    assert [len(row.get("alarms", ())) for row in rows] == [0, 1, 0] and run.checkpoint("sft_grpo", 0).is_dir()


@pytest.mark.slow
def test_a_loss_that_is_no_number_reaches_the_log_and_stops_stage_1(tmp_path):
    data, run = write_data(tmp_path / "data"), RunFolder(tmp_path / "run")
    profile = tiny_profile(sft__steps=3, sft__learning_rate=1e30, sft__stop_on_alarm=True)
    with pytest.warns(UserWarning, match="no number"), pytest.raises(UserError, match="No checkpoint was kept before"):
        sft.train(profile, data, run, 0)
    last = read_jsonl(run.log("sft", 0))[-1]
    assert not (math.isfinite(last["loss"]) and math.isfinite(last["grad_norm"])) and last["alarms"]
    assert states(run.checkpoint("sft", 0)).is_dir() and not run.checkpoint("sft", 0).exists()

"""Training in several processes, against one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from tiny import tiny_base, tiny_profile, write_data

from ladlib import launch
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.models import outline
from ladlib.published_models import PUBLISHED
from ladlib.runs import RunFolder, read_jsonl

STEADY = str(Path(__file__).with_name("steady_stage.py"))
COMMON = {
    "sft__steps": 3, "sft__save_steps": 1, "grpo__steps": 3, "grpo__save_steps": 1, "grpo__prompts_per_step": 2,
    "grpo__group_size": 2, "grpo__micro_batch_size": 2, "sft__micro_batch_size": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def start(stage, data, folder, processes, **environment):
    """The stage in so many processes, each optimizer step over the same two conversations or pairs."""
    profile = tiny_profile(**COMMON, sft__batch_size=2)
    folder.mkdir(exist_ok=True)
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile.model_dump()))
    given = ["--profile", folder / "profile.yaml", "--data", data, "--run", folder, "--model", tiny_base()]
    how = [sys.executable] if processes == 1 else launch.launcher("ddp", processes)
    command = [*how, STEADY, stage, *map(str, given)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment
    )


def losses(folder, stage):
    """Loss and norm of the gradient of each step: GRPO's loss itself is near zero, its gradient is not."""
    return [[row["loss"], row["grad_norm"]] for row in read_jsonl(RunFolder(folder).log(launch.ARMS[stage], 0))]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_processes_lose_as_much_as_one_and_go_on_where_they_were_killed(stage, data, tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        done = start(stage, data, tmp_path / name, processes)
        assert done.returncode == 0, done.stderr[-3000:]
    expected = losses(tmp_path / "two", stage)
    assert len(expected) == 3 and all(norm > 0.1 for _, norm in expected)
    np.testing.assert_allclose(expected, losses(tmp_path / "one", stage), rtol=1e-4, atol=1e-6)
    assert start(stage, data, tmp_path / "killed", 2, DIE_AFTER="2").returncode != 0
    assert len(losses(tmp_path / "killed", stage)) == 2
    again = start(stage, data, tmp_path / "killed", 2)
    assert again.returncode == 0 and again.stdout.count("goes on after step 1") == 1, again.stderr[-3000:]
    np.testing.assert_allclose(losses(tmp_path / "killed", stage), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_notebook_starts_the_processes_that_its_profile_asks_for(data, tmp_path, capfd):
    profile = tiny_profile(sft__steps=1, sft__batch_size=2, sft__micro_batch_size=1, parallel__processes=2)
    run = RunFolder(tmp_path)
    run.open(profile.name, 0)
    folder = launch.train("sft", profile, data, run, 0)
    assert (folder / "model.safetensors").is_file() and len(read_jsonl(run.log("sft", 0))) == 1
    told = capfd.readouterr().out
    assert "sft: 2 processes" in told and told.count("sft · step 1/1") == 1, "one of them tells the progress"


@pytest.mark.slow
def test_what_a_process_dies_of_is_shown_and_told_in_one_line(data, tmp_path, capfd):
    profile = tiny_profile(parallel__processes=2)
    run = RunFolder(tmp_path)
    run.open(profile.name, 0)
    with pytest.raises(UserError, match="ended with exit code 1"):
        launch.train("grpo", profile, data, run, 0, model=str(tmp_path / "nowhere"))
    assert "nowhere" in capfd.readouterr().out


def test_one_device_is_this_process(data, tmp_path, monkeypatch):
    called = {}
    monkeypatch.setattr(launch.grpo, "train", lambda *given, **named: called.update(named) or tmp_path)
    run = RunFolder(tmp_path)
    run.open("smoke", 3)
    assert launch.train("grpo", tiny_profile(), run=run, data=data, seed=3, model="somewhere") == tmp_path
    assert called == {"model": "somewhere", "arm": "sft_grpo"}


@pytest.mark.parametrize(
    ("method", "kind"),
    [("ddp", DistributedType.MULTI_GPU), ("fsdp2", DistributedType.FSDP), ("zero3", DistributedType.DEEPSPEED)],
)
def test_accelerate_reads_the_configurations(method, kind):
    read = load_config_from_file(str(launch.config(method)))
    assert read.distributed_type == kind and read.mixed_precision == "bf16"


@pytest.mark.parametrize("name", PUBLISHED)
def test_fsdp_divides_all_layers_of_the_models_and_gathers_the_rest_as_one(name):
    model = outline(PUBLISHED[name])
    wrapped = yaml.safe_load(launch.config("fsdp2").read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]
    layers = [module for module in model.modules() if type(module).__name__ in wrapped.split(",")]
    config = model.config
    assert len(layers) == config.text_config.num_hidden_layers + config.vision_config.depth
    inside = {id(weight) for layer in layers for weight in layer.parameters()}
    outside = {key for key, weight in model.named_parameters() if id(weight) not in inside}
    rest = ("visual.patch_embed", "visual.merger", "language_model.embed_tokens", "language_model.norm", "lm_head")
    assert all(any(part in key for part in rest) for key in outside)


def test_the_paper_profile_divides_the_model_among_all_gpus():
    assert load_profile("paper").parallel.model_dump() == {"processes": 0, "method": "fsdp2"}
    assert load_profile("toy").parallel.processes == load_profile("small").parallel.processes == 1

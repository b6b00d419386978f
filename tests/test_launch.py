"""Training in several processes, compared with one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from tiny import meta_model, tiny_base, tiny_profile

from ladlib import launch
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.families import PUBLISHED
from ladlib.runs import RunFolder, read_jsonl

STEADY = str(Path(__file__).with_name("steady_stage.py"))
SETTINGS = {
    "sft__steps": 3, "sft__trl": {"save_steps": 1}, "grpo__steps": 3, "grpo__trl": {"save_steps": 1},
    "grpo__prompts_per_step": 2,
    "grpo__group_size": 2, "grpo__micro_batch_size": 2, "sft__batch_size": 2, "sft__micro_batch_size": 1,
}  # fmt: skip


def start(stage, data, folder, processes, **environment):
    """The stage in so many processes, each optimizer step over the same two conversations or pairs."""
    profile = folder.with_suffix(".yaml")
    profile.write_text(yaml.safe_dump(tiny_profile(**SETTINGS).model_dump()))
    options = ["--profile", profile, "--data", data, "--run", folder, "--model", tiny_base()]
    program = [sys.executable] if processes == 1 else launch.launcher("ddp", processes)
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [*program, STEADY, stage, *map(str, options)], capture_output=True, text=True, env=environment
    )


def losses(folder, stage):
    """Loss and norm of the gradient of each step: GRPO's loss itself is near zero, its gradient is not."""
    return [[row["loss"], row["grad_norm"]] for row in read_jsonl(RunFolder(folder).log(launch.ARMS[stage], 0))]


@pytest.mark.slow
@pytest.mark.parametrize("stage", launch.ARMS)
def test_two_processes_lose_as_much_as_one_and_resume_where_they_were_killed(stage, data, tmp_path):
    assert start(stage, data, tmp_path / "one", 1).returncode == 0
    expected = losses(tmp_path / "one", stage)
    assert len(expected) == 3 and all(norm > 0.1 for _, norm in expected)
    assert start(stage, data, tmp_path / "two", 2, DIE_AFTER="2").returncode != 0
    assert len(losses(tmp_path / "two", stage)) == 2
    again = start(stage, data, tmp_path / "two", 2)
    assert again.returncode == 0 and again.stdout.count("resuming after step 1") == 1, again.stderr[-3000:]
    np.testing.assert_allclose(losses(tmp_path / "two", stage), expected, rtol=1e-4, atol=1e-6)


def test_zero3_without_deepspeed_is_one_line(monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="deepspeed is not installed, and parallel.method is zero3. Install it"):
        launch.start("ladlib.launch", [], load_profile("paper").parallel.model_copy(update={"method": "zero3"}), "sft")


@pytest.mark.slow
def test_an_error_in_a_process_that_the_profile_asked_for_is_shown_and_becomes_one_line(data, tmp_path, capfd):
    profile = tiny_profile(parallel__processes=2)
    with pytest.raises(UserError, match="grpo ended with exit code 1"):
        launch.train("grpo", profile, data, RunFolder(tmp_path), 0, str(tmp_path / "nowhere"))
    output = capfd.readouterr().out
    assert "grpo: 2 processes, ddp" in output and "nowhere" in output


def test_each_process_takes_its_own_gpu_before_anything_is_loaded(monkeypatch, tmp_path):
    order = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", order.append)
    monkeypatch.setattr(launch, "run_stage", lambda stage, *_: order.append(stage))
    monkeypatch.setattr(sys, "argv", ["launch", "sft", "--profile", "smoke", "--data", "d", "--run", str(tmp_path)])
    launch.main()
    assert order == [3, "sft"]


@pytest.mark.parametrize(
    ("method", "distributed_type"),
    [("ddp", DistributedType.MULTI_GPU), ("fsdp2", DistributedType.FSDP), ("zero3", DistributedType.DEEPSPEED)],
)
def test_accelerate_reads_the_configurations(method, distributed_type):
    config = load_config_from_file(str(launch.config_file(method)))
    assert config.distributed_type == distributed_type and config.mixed_precision == "bf16"


@pytest.mark.parametrize("name", PUBLISHED)
def test_fsdp_divides_all_layers_of_the_models_and_gathers_the_rest_as_one(name):
    model = meta_model(name)
    fsdp = yaml.safe_load(launch.config_file("fsdp2").read_text())["fsdp_config"]
    wrapped = fsdp["fsdp_transformer_layer_cls_to_wrap"].split(",")
    layers = [module for module in model.modules() if type(module).__name__ in wrapped]
    assert len(layers) == model.config.text_config.num_hidden_layers + model.config.vision_config.depth
    inside = {id(weight) for layer in layers for weight in layer.parameters()}
    outside = {key for key, weight in model.named_parameters() if id(weight) not in inside}
    rest = ("visual.patch_embed", "visual.merger", "language_model.embed_tokens", "language_model.norm", "lm_head")
    assert all(any(part in key for part in rest) for key in outside)

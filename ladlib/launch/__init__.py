"""Training on one device in this process, or on several through accelerate, by one call.

    launch.train("grpo", profile, data, run, seed=0, model="…/sft-seed0")

How many devices and how they share the model is in the profile's section ``parallel``. Where there are several,
``accelerate launch`` starts ``python -m ladlib.launch`` on each; for several machines it is typed by hand, on each:

    accelerate launch --config_file $(python -m ladlib.launch fsdp2) --num_machines 2 --machine_rank 0 \\
      --main_process_ip HOST --num_processes 16 -m ladlib.launch sft --profile paper --data DIR --run RUN
"""

import gc
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import torch
import yaml

from ladlib import grpo, sft
from ladlib.config import Method, Profile
from ladlib.errors import UserError
from ladlib.processes import count_processes
from ladlib.runs import RunFolder, write_text

Stage = Literal["sft", "grpo"]
OWNER = "LADLIB_OWNER"  # the process that started a training on several devices, which ends with it
ARMS: dict[Stage, str] = {"sft": "sft", "grpo": "sft_grpo"}


def train(stage: Stage, profile: Profile, data: Path, run: RunFolder, seed: int, model: str = "") -> Path:
    """Train ``model`` (the profile's base where "") under ``profile`` and return the folder of its checkpoint.

    Raises :class:`UserError` as the stage does, and where a process that was started for it failed.
    """
    gc.collect()
    torch.cuda.empty_cache()  # what models of earlier cells held, so that other processes find it free
    processes = count_processes(profile.parallel)
    if processes == 1:
        return run_stage(stage, profile, data, run, seed, model)
    file = run.root / "profile.yaml"  # with the notebook's overrides
    write_text(file, yaml.safe_dump(profile.model_dump(), sort_keys=False))
    given = {"--profile": file, "--data": data, "--run": run.root, "--seed": seed}
    given |= {"--model": model} if model else {}
    options = [str(part) for pair in given.items() for part in pair]
    print(f"{stage}: {processes} processes, {profile.parallel.method}", flush=True)
    _follow([*launcher(profile.parallel.method, processes), "-m", "ladlib.launch", stage, *options])
    return run.checkpoint(ARMS[stage], seed)


def run_stage(stage: Stage, profile: Profile, data: Path, run: RunFolder, seed: int, model: str = "") -> Path:
    """The stage in this process, which is the only one or one of those that accelerate started."""
    module = {"sft": sft, "grpo": grpo}[stage]
    return module.train(profile, data, run, seed, model=model or profile.model.base, arm=ARMS[stage])


def launcher(method: Method, processes: int) -> list[str]:
    """The command line up to what is to be launched. Without a GPU, each process holds all of the model (gloo)."""
    gpu = torch.cuda.is_available()
    how = ["--config_file", str(config(method if gpu else "ddp")), *([] if gpu else ["--mixed_precision", "no"])]
    free_port = ["--main_process_port", "0"]
    return [sys.executable, "-m", "accelerate.commands.launch", *how, *free_port, "--num_processes", str(processes)]


def config(method: Method) -> Path:
    """The file that tells accelerate how the devices share the model."""
    return Path(str(resources.files("ladlib") / "launch" / f"{method}.yaml"))


def _follow(command: Sequence[str]) -> None:
    """Run ``command`` and print its lines as they come, so that a notebook shows them."""
    owned = os.environ | {OWNER: str(os.getpid())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=owned) as started:
        for line in started.stdout:
            print(line, end="", flush=True)
    if started.returncode:
        raise UserError(
            f"Training ended with exit code {started.returncode} in one of its processes.",
            "Its first error stands above; the same command goes on from the last kept step.",
        )

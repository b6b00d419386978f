"""Training on one device in this process, or on several through accelerate.

    train("grpo", profile, data, run, seed=0, model="…/sft-seed0")

The profile's section ``parallel`` says how many devices share the model, and how. For several machines, on each:

    accelerate launch --config_file $(python -m ladlib.launch fsdp2) --num_machines 2 --machine_rank 0 \\
      --main_process_ip HOST --num_processes 16 -m ladlib.launch sft --profile paper --data DIR --run RUN
"""

import argparse
import gc
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import yaml

from ladlib.config import Method, Parallel, Profile, load_profile
from ladlib.errors import UserError
from ladlib.runs import RunFolder, write_text

OWNER = "LADLIB_OWNER"  # the process that started the others, which end with it
ARMS = {"sft": "sft", "grpo": "sft_grpo"}  # stage: its arm


def train(stage: str, profile: Profile, data: Path, run: RunFolder, seed: int, model: str = "") -> Path:
    """The checkpoint that ``stage``, a key of :data:`ARMS`, trains from ``model`` (the profile's base where "").

    Raises :class:`UserError` as the stage does, and where one of several processes fails.
    """
    if count_processes(profile.parallel) == 1:
        return run_stage(stage, profile, data, run, seed, model)
    write_text(run.profile, yaml.safe_dump(profile.model_dump(), sort_keys=False))  # with the notebook's overrides
    options = ["--profile", run.profile, "--data", data, "--run", run.root, "--seed", seed]
    options += ["--model", model] if model else []
    start("ladlib.launch", [stage, *map(str, options)], profile.parallel, stage)
    return run.checkpoint(ARMS[stage], seed)


def run_stage(stage: str, profile: Profile, data: Path, run: RunFolder, seed: int, model: str = "") -> Path:
    """The checkpoint of ``stage``, trained by this process, alone or as one of those that accelerate started."""
    from ladlib import grpo, sft

    train_stage = {"sft": sft.train, "grpo": grpo.train}[stage]
    return train_stage(profile, data, run, seed, model=model or profile.model.base, arm=ARMS[stage])


def count_processes(parallel: Parallel) -> int:
    """The number of processes of the profile; for 0, one for each GPU, or one."""
    import torch

    return parallel.processes or max(1, torch.cuda.device_count())


def start(module: str, options: Sequence[str], parallel: Parallel, title: str) -> None:
    """Run ``python -m module options`` on each device and print its lines as they come.

    Raises :class:`UserError` where one of the processes fails.
    """
    import torch

    if parallel.method == "zero3" and find_spec("deepspeed") is None:
        raise UserError("deepspeed is not installed, and parallel.method is zero3.", "Install it, or use fsdp2.")
    gc.collect()
    torch.cuda.empty_cache()  # memory of earlier cells' models
    processes = count_processes(parallel)
    print(f"{title}: {processes} processes, {parallel.method}", flush=True)
    command = [*launcher(parallel.method, processes), "-m", module, *options]
    owned = os.environ | {OWNER: str(os.getpid())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=owned) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise UserError(
            f"{title} ended with exit code {process.returncode} in one of its processes.",
            "Its first error is printed above; the same command resumes from the last stored step.",
        )


def launcher(method: Method, processes: int) -> list[str]:
    """The command line up to the module. Without a GPU, each process holds all of the model (gloo)."""
    import torch

    options = [config_file(method)] if torch.cuda.is_available() else [config_file("ddp"), "--mixed_precision", "no"]
    options += ["--main_process_port", 0, "--num_processes", processes]  # 0: any free port
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", *map(str, options)]


def config_file(method: Method) -> Path:
    """Accelerate's configuration of ``method``."""
    return Path(str(resources.files("ladlib") / "assets" / "accelerate" / f"{method}.yaml"))


@contextmanager
def as_rank() -> Iterator[None]:
    """Within, this process is one of several: it has its own GPU, ends with its owner, prints if it is the first."""
    import torch

    threading.Thread(target=_end_with_owner, daemon=True).start()
    if torch.cuda.is_available():  # before any weight is loaded
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    try:
        with redirect_stdout(sys.stdout if os.environ.get("RANK", "0") == "0" else io.StringIO()):
            yield
    except UserError as error:
        raise SystemExit(str(error)) from error


def _end_with_owner() -> None:
    """End this process when the notebook that started it is killed, else it would still write when that runs again."""
    while owner := os.environ.get(OWNER):
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)


def main() -> None:
    """Train a stage as one of the processes that accelerate starts; or print the path of a configuration for it."""
    parser = argparse.ArgumentParser(prog="python -m ladlib.launch", description=main.__doc__)
    parser.add_argument("command", choices=[*ARMS, *get_args(Method)])
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--data", type=Path, help="the folder that holds the datasets")
    parser.add_argument("--run", type=RunFolder, help="the run folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="", help="a folder or a hub id; by default the profile's base")
    given = parser.parse_args()
    if given.command not in ARMS:
        print(config_file(given.command))
        return
    if not (given.data and given.run):
        parser.error("--data and --run are required")
    with as_rank():
        profile = load_profile(given.profile)
        given.run.check(profile.name, given.seed)
        if os.environ.get("RANK", "0") == "0":
            given.run.open(profile.name, given.seed)
        run_stage(given.command, profile, given.data, given.run, given.seed, given.model)


if __name__ == "__main__":
    main()

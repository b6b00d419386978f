"""A training stage in which FSDP2 divides the model among processes without a GPU.

    accelerate launch --config_file fsdp2.yaml --num_processes 2 fsdp_stage.py sft --profile P --data D --run R

Where COPY_TO is set, it becomes a copy of the run folder once step COPY_AFTER is logged: what a kill then leaves.
"""

import inspect
import os
import shutil
import textwrap
from pathlib import Path

from accelerate import state

from ladlib import training
from ladlib.launch import main
from ladlib.training import StepLog

# Accelerate divides a model among accelerators only; one word more lets it do so among processors.
source, listed = textwrap.dedent(inspect.getsource(state.AcceleratorState.__init__)), "DistributedType.MULTI_GPU,\n"
assert source.count(listed) == 1, "accelerate lists elsewhere where FSDP is possible"
exec(source.replace(listed, f"DistributedType.MULTI_CPU, {listed}"), vars(state))
state.AcceleratorState.__init__ = vars(state).pop("__init__")


def copy(self, args, state, control, logs: dict, **rest: object) -> None:
    on_log(self, args, state, control, logs, **rest)
    is_step = state.is_world_process_zero and "loss" in logs
    if is_step and str(state.global_step) == os.environ.get("COPY_AFTER"):
        shutil.copytree(Path(args.output_dir).parents[1], os.environ["COPY_TO"])


on_log, StepLog.on_log = StepLog.on_log, copy
training.LARGE = 0  # recompute activations, as for the 3B

if __name__ == "__main__":
    main()

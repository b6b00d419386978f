"""A training stage as one of the processes that accelerate starts; or the path of a configuration for it.

python -m ladlib.launch fsdp2
accelerate launch … -m ladlib.launch sft --profile paper --data DIR --run results/runs/paper
"""

import argparse
import io
import os
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import get_args

from ladlib.config import Method, load_profile
from ladlib.errors import UserError
from ladlib.launch import ARMS, OWNER, config, run_stage
from ladlib.runs import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ladlib.launch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for method in get_args(Method):
        commands.add_parser(method, help="print the path of the configuration for accelerate")
    for stage in ARMS:
        one = commands.add_parser(stage, help="train")
        one.add_argument("--profile", required=True)
        one.add_argument("--data", type=Path, required=True, help="the folder that holds the datasets")
        one.add_argument("--run", type=Path, required=True, help="the run folder")
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--model", default="", help="a folder or a hub id; the profile's base where left out")
    given = parser.parse_args()
    if given.command not in ARMS:
        print(config(given.command))
        return
    threading.Thread(target=_end_with_owner, daemon=True).start()
    told = sys.stdout if os.environ.get("RANK", "0") == "0" else io.StringIO()  # one process speaks for all
    try:
        with redirect_stdout(told):
            run_stage(
                given.command, load_profile(given.profile), given.data, RunFolder(given.run), given.seed, given.model
            )
    except UserError as error:
        raise SystemExit(str(error)) from error


def _end_with_owner() -> None:
    """A notebook that was killed must not leave processes behind that still write when it is run again."""
    while owner := os.environ.get(OWNER):
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)


if __name__ == "__main__":
    main()

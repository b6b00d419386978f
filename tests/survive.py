"""A whole run, disturbed again and again, compared with one that nobody disturbed.

    python tests/survive.py kill --times 50 --out /tmp/survive      # SIGKILL at random moments of every stage
    python tests/survive.py short --times 20 --out /tmp/survive     # no file may grow beyond a random size

A run is disturbed in one stage after the other, at a moment drawn with ``--seed``, until it ends; then the next run
begins. It is equal to the undisturbed one where generations, logs, rollouts and manifests (seconds left out), metrics
and tables are: no sample missing, none twice. Each line of the log is one disturbance. Exits with 1 where a
run ends otherwise, or where a file that cannot grow is reported in anything but one line.
"""

import argparse
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

STAGES = ("01_data_exploration", "02_sft", "03_grpo", "04_evaluation", "05_compare_72b")
RUNNING = re.compile(r"^\[(\d\d_\w+)\] cell", re.MULTILINE)
COMPARED = (
    "generations/*.jsonl", "logs/*.jsonl", "manifests/*", "rationales/*", "samples/*", "tables/*", "metrics.json",
)  # fmt: skip


@dataclass
class Chain:
    """One run folder that ``ladlib reproduce`` is called on until it ends well."""

    folder: Path
    seconds: Mapping[str, float]  # of each stage of the undisturbed run
    random: random.Random

    def start(self, limit: int | None = None) -> subprocess.Popen:
        command = [sys.executable, "-m", "ladlib", "reproduce", "--profile", "smoke", "--run", str(self.folder)]
        shrink = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)) if limit else None
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_suffix(".txt").open("w") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, preexec_fn=shrink)

    def printed(self) -> str:
        return self.folder.with_suffix(".txt").read_text(errors="replace")

    def stage(self) -> str:
        """The stage that is running; "" where none has begun."""
        return ([""] + RUNNING.findall(self.printed()))[-1]

    def finish(self) -> None:
        """Undisturbed to the end. Raises AssertionError where it does not end well."""
        code = self.start().wait()
        assert code == 0, f"exit {code}: {self.printed()[-2000:]}"


def kill(chain: Chain, stage: str) -> str:
    """SIGKILL to the pipeline alone, as one kills a process, or to all of it, as a machine that is switched off."""
    process = chain.start()
    while process.poll() is None and chain.stage() < stage:
        time.sleep(0.05)
    end = time.monotonic() + chain.random.uniform(0, chain.seconds[stage])
    while process.poll() is None and chain.stage() == stage and time.monotonic() < end:
        time.sleep(0.05)
    if process.poll() is not None:
        return ""
    where, whole = chain.stage(), chain.random.random() < 0.5
    (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    return f"killed {'all processes' if whole else 'the pipeline'} in {where}"


def shorten(chain: Chain, stage: str) -> str:
    """No file may grow beyond a size between 1 KiB and 8 MiB: the last line is a plain word about the disk."""
    limit = int(2 ** chain.random.uniform(10, 23))
    if chain.start(limit).wait(timeout=900) == 0:
        return ""
    last = chain.printed().strip().splitlines()[-1]
    assert "Traceback" not in chain.printed() and "disk" in last, chain.printed()[-3000:]
    return f"files of at most {limit} bytes, ended in {chain.stage() or 'the beginning'}: {last}"


DISTURB = {"kill": kill, "short": shorten}


def disturb(
    steps: Sequence[tuple[str, str]], times: int, out: Path, seed: int, undisturbed: Path | None = None
) -> list[str]:
    """Disturb as many runs below ``out`` as it takes, each by all ``steps`` (way, stage); the log.

    Raises AssertionError where a run ends otherwise.
    """
    expected, log, numbers, run = undisturbed or _undisturbed(out), [], random.Random(seed), 0
    seconds = {one["name"]: one["seconds"] for one in json.loads((expected / "run.json").read_text())["stages"]}
    while len(log) < times:
        run += 1
        chain = Chain(out / f"run-{run}", seconds, numbers)
        for way, stage in steps:
            done = DISTURB[way](chain, stage) if len(log) < times else ""
            if done:
                log.append(f"{len(log) + 1:>3}  run {run}: {done}")
                print(log[-1], flush=True)
        chain.finish()
        wrong = differences(chain.folder, expected)
        assert not wrong, f"run {run} differs: {wrong}"
        print(f"     run {run}: equal to the undisturbed run", flush=True)
    return log


def _undisturbed(out: Path) -> Path:
    chain = Chain(out / "undisturbed", {}, random.Random(0))
    if not (chain.folder / "report.html").is_file():
        chain.finish()
    return chain.folder


def differences(run: Path, expected: Path) -> list[str]:
    """What differs between two runs, by file; [] where they are equal."""
    files = ((root, file) for root in (run, expected) for pattern in COMPARED for file in root.glob(pattern))
    names = sorted({file.relative_to(root).as_posix() for root, file in files})
    return [name for name in names if _content(run / name) != _content(expected / name)]


def _content(file: Path) -> object:
    if not file.is_file():
        return None
    if file.suffix != ".jsonl":
        return file.read_bytes()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    timeless = [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]
    return sorted(timeless, key=lambda row: str(row.get("id", ""))) if "generations" in file.parts else timeless


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="+", choices=DISTURB)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        disturb([(way, stage) for stage in STAGES for way in given.ways], given.times, given.out, given.seed)
    except AssertionError as error:
        sys.exit(str(error))
    print(f"{given.times} times disturbed, every run equal to the undisturbed one")

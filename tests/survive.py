"""A whole run, disturbed again and again, and held against one that nobody disturbed.

    python tests/survive.py kill --times 50 --out /tmp/survive      # SIGKILL at random moments of every stage
    python tests/survive.py full --times 20 --out /tmp/survive      # the disk fills up (root: a tmpfs is mounted)
    python tests/survive.py short --times 20 --out /tmp/survive     # no file may grow beyond a random size

A run is disturbed in one stage after the other, at a moment drawn with ``--seed``, until it ends; then the next run
begins. It is equal to the undisturbed one where generations, logs, rollouts and manifests (seconds left out), metrics
and tables are: no sample missing, none twice. Each line of the log is one disturbance. Exits with 1 where a
run ends otherwise, or where a full disk is told in anything but one line.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

STAGES = ("01_data_exploration", "02_sft", "03_grpo", "04_evaluation", "05_compare_72b")
ROOM = "400m"  # of the disk that fills up
SHOWN = re.compile(r"^\[(\d\d_\w+)\] cell", re.MULTILINE)


@dataclass
class Chain:
    """One run folder that ``ladlib reproduce`` is called on until it ends well."""

    folder: Path
    spent: Mapping[str, float]  # seconds of each stage of the undisturbed run
    random: random.Random
    told: list[str] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.txt")

    def start(self, limit: int | None = None) -> subprocess.Popen:
        command = [sys.executable, "-m", "ladlib", "reproduce", "--profile", "smoke", "--run", str(self.folder)]
        shrink = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)) if limit else None
        with self.output.open("w") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, preexec_fn=shrink)

    def stage(self) -> str:
        """The stage that is running; "" where none has begun."""
        shown = SHOWN.findall(self.output.read_text(errors="replace"))
        return shown[-1] if shown else ""

    def wait_for(self, process: subprocess.Popen, stage: str) -> bool:
        """Until a random moment of ``stage``, or its end; whether the process still runs then."""
        while process.poll() is None and self.stage() < stage:
            time.sleep(0.05)
        end = time.monotonic() + self.random.uniform(0, self.spent[stage])
        while process.poll() is None and self.stage() == stage and time.monotonic() < end:
            time.sleep(0.05)
        return process.poll() is None

    def finish(self) -> None:
        """Undisturbed to the end. Raises AssertionError where it does not end well."""
        code = self.start().wait()
        assert code == 0, f"exit {code}: {self.output.read_text()[-2000:]}"


def kill(chain: Chain, stage: str) -> str:
    """SIGKILL to the pipeline alone, as one kills a process, or to all of it, as a machine that is switched off."""
    process = chain.start()
    if not chain.wait_for(process, stage):
        return ""
    where, whole = chain.stage(), chain.random.random() < 0.5
    (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    return f"killed {'all processes' if whole else 'the pipeline'} in {where}"


def fill(chain: Chain, stage: str) -> str:
    """Leave no byte on the disk from a random moment until the pipeline has given up."""
    process, ballast = chain.start(), chain.folder.parent / "ballast"
    if not chain.wait_for(process, stage):
        return ""
    where = chain.stage()
    with ballast.open("wb", buffering=0) as file:
        try:
            while process.poll() is None:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    code = process.wait(timeout=300)
    ballast.unlink()
    return "" if code == 0 else f"full disk in {where}: {_told(chain)}"


def shorten(chain: Chain, stage: str) -> str:
    """No file may grow beyond a size between 1 KiB and 8 MiB."""
    limit = int(2 ** chain.random.uniform(10, 23))
    code, where = chain.start(limit).wait(timeout=900), chain.stage()
    return "" if code == 0 else f"files of at most {limit} bytes, ended in {where or 'the beginning'}: {_told(chain)}"


def _told(chain: Chain) -> str:
    """The last line of what was printed. Raises AssertionError where it is no plain word about the disk."""
    text = chain.output.read_text(errors="replace")
    last = text.strip().splitlines()[-1]
    assert "Traceback" not in text and "disk" in last, text[-3000:]
    return last


DISTURB = {"kill": kill, "full": fill, "short": shorten}


def disturb(what: str, times: int, out: Path, seed: int, undisturbed: Path | None = None) -> list[str]:
    """Disturb as many runs below ``out`` as it takes; the log. Raises AssertionError where one ends otherwise."""
    expected, log = undisturbed or _undisturbed(out), []
    spent = {one["name"]: one["seconds"] for one in json.loads((expected / "run.json").read_text())["stages"]}
    numbers = random.Random(seed)
    run = 0
    while len(log) < times:
        run += 1
        with _disk(out / f"{what}-{run}", mounted=what == "full") as disk:
            chain = Chain(disk / "run", spent, numbers)
            for stage in STAGES:
                done = DISTURB[what](chain, stage) if len(log) < times else ""
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
        out.mkdir(parents=True, exist_ok=True)
        chain.finish()
    return chain.folder


@contextmanager
def _disk(folder: Path, mounted: bool) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    if not mounted:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def differences(run: Path, expected: Path) -> list[str]:
    """What differs between two runs, by file; [] where they are equal."""
    names = sorted({*_names(run), *_names(expected)})
    return [name for name in names if _content(run / name) != _content(expected / name)]


def _names(run: Path) -> list[str]:
    kinds = (
        "generations/*.jsonl",
        "logs/*.jsonl",
        "manifests/*",
        "rationales/*",
        "samples/*",
        "tables/*",
        "metrics.json",
    )
    return [file.relative_to(run).as_posix() for kind in kinds for file in run.glob(kind)]


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
    parser.add_argument("what", choices=DISTURB)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        disturb(given.what, given.times, given.out, given.seed)
    except AssertionError as error:
        sys.exit(str(error))
    print(f"{given.times} times disturbed, every run equal to the undisturbed one")

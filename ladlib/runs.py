"""A run folder: every path in one place, and ``run.json`` with what the run was made from."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from ladlib.errors import UserError, parse_json
from ladlib.records import RunRecord, StageRecord

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill", "pillow", "numpy", "pandas",
)  # fmt: skip

DAMAGED = "Move the file away and run its stage again."


CHANGED = "changed by hand"
SEEDS = 2**32  # numpy's generators take the whole numbers below it


def check_seed(seed: int) -> None:
    """Raises :class:`UserError` for a number that is no seed."""
    if not 0 <= seed < SEEDS:
        raise UserError(f"{seed} is no seed.", f"Give a whole number from 0 to {SEEDS - 1}.")


class RunFolder:
    """The files of one run below ``root``; each has one producer.

    >>> RunFolder("results/runs/toy").generations("sft", 0).name
    'sft-seed0.jsonl'
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.root)!r})"

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def metrics_json(self) -> Path:
        return self.root / "metrics.json"

    @property
    def data(self) -> Path:
        """Where the toy datasets of this run are drawn."""
        return self.root / "data"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def checkpoint(self, arm: str, seed: int) -> Path:
        """The folder of a trained model."""
        return self.root / "checkpoints" / f"{arm}-seed{seed}"

    def log(self, arm: str, seed: int) -> Path:
        """The training log of an arm: one JSON object a step."""
        return self.root / "logs" / f"{arm}-seed{seed}.jsonl"

    def manifest(self, arm: str, seed: int) -> Path:
        """The images that an arm was trained on, by the SHA-256 of their files: a row a pair."""
        return self.root / "manifests" / f"{arm}-seed{seed}.csv"

    def rollouts(self, arm: str, seed: int) -> Path:
        """Sampled groups of GRPO with their rewards: one JSON object a group."""
        return self.root / "logs" / f"{arm}-seed{seed}-rollouts.jsonl"

    def generations(self, arm: str, seed: int) -> Path:
        return self.root / "generations" / f"{arm}-seed{seed}.jsonl"

    def rationales(self, arm: str, seed: int) -> Path:
        """What the scenes say about each generation's rationale: one JSON object an image."""
        return self.root / "rationales" / f"{arm}-seed{seed}.jsonl"

    def samples(self, arm: str, seed: int) -> Path:
        """Several sampled completions of each of some training pairs: one JSON object a pair."""
        return self.root / "samples" / f"{arm}-seed{seed}.jsonl"

    def sensitivity(self, arm: str, seed: int) -> Path:
        """Some of the pairs judged again, each with one thing changed: one JSON object a pair and condition."""
        return self.root / "sensitivity" / f"{arm}-seed{seed}.jsonl"

    @property
    def neighbours(self) -> Path:
        """What the nearest-neighbour detector says: one JSON object a test image."""
        return self.root / "baselines" / "neighbours.jsonl"

    def places(self) -> str:
        """Where the results are, a line for each kind that there is."""
        found = {
            "report": self.report, "tables": self.tables, "figures": self.figures,
            "executed notebooks": self.notebooks, "record of the run": self.run_json,
        }  # fmt: skip
        width = max(map(len, found))
        return "\n".join(f"{what:<{width}}  {path}" for what, path in found.items() if path.exists())

    def open(self, profile: str, seed: int, **parameters: str | int | float | bool) -> RunRecord:
        """Make the folder if needed and return its record, stamped with versions and hardware.

        Raises :class:`UserError` where the folder belongs to a run of another profile or seed, and for what is no seed.
        """
        check_seed(seed)
        if self.run_json.exists():
            record = self.check(profile, seed)
            record = record.model_copy(update={"parameters": record.parameters | parameters})
        else:
            record = RunRecord(profile=profile, seed=seed, parameters=parameters)
        record = record.model_copy(update={"versions": versions(), "commit": commit(), "hardware": hardware()})
        self.write(record)
        return record

    def check(self, profile: str, seed: int) -> RunRecord:
        """The record; raises :class:`UserError` where it is that of another profile or seed."""
        record = self.read()
        if (record.profile, record.seed) != (profile, seed):
            raise UserError(
                f"{self.root} holds a run of profile {record.profile!r}, seed {record.seed}.",
                f"Give another folder with --run for profile {profile!r}, seed {seed}.",
            )
        return record

    def read(self) -> RunRecord:
        """The record, its ``sha256`` being ``CHANGED`` where the file was edited by hand.

        Raises :class:`UserError` where there is no readable ``run.json``.
        """
        try:
            fields = json.loads(self.run_json.read_text(encoding="utf-8"))
            record = RunRecord.model_validate(fields)
        except FileNotFoundError as error:
            raise UserError(
                f"{self.root} is not a run folder: it has no run.json.", "Run `ladlib reproduce` first."
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{self.run_json} is damaged.", "Move it away and run again.") from error
        edited = record.sha256 and record.sha256 != _sha256(fields)
        return record.model_copy(update={"sha256": CHANGED}) if edited else record

    def write(self, record: RunRecord) -> None:
        """Keep ``record`` with its hash; one that was edited by hand stays known as such."""
        fields = record.model_dump(mode="json")
        fields["sha256"] = CHANGED if record.sha256 == CHANGED else _sha256(fields)
        write_text(self.run_json, json.dumps(fields, indent=2) + "\n")

    def stage(self, name: str) -> StageRecord | None:
        """What ``run.json`` keeps of the stage; None where it has not been finished, or there is no run yet."""
        stages = self.read().stages if self.run_json.exists() else ()
        return next((one for one in stages if one.name == name), None)

    def add_stage(self, stage: StageRecord) -> None:
        """Keep ``stage`` in ``run.json`` in place of an earlier record of the same name."""
        self._keep_stages(*self._other_stages(stage.name), stage)

    def drop_stage(self, name: str) -> None:
        """Forget the stage, if ``run.json`` has it."""
        self._keep_stages(*self._other_stages(name))

    def _other_stages(self, name: str) -> list[StageRecord]:
        return [one for one in self.read().stages if one.name != name]

    def _keep_stages(self, *stages: StageRecord) -> None:
        ordered = tuple(sorted(stages, key=lambda one: one.name))
        self.write(self.read().model_copy(update={"stages": ordered}))


def _sha256(fields: Mapping) -> str:
    """Of the fields of a record but its hash."""
    others = {name: value for name, value in fields.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


RELEASED = Path(__file__).parents[1] / "results" / "released"
"""Committed runs. A wheel does not carry them."""
STUDY = RunFolder(RELEASED / "study")


def write_text(path: Path, text: str) -> None:
    """Write all of ``text`` or nothing: to a temporary name first, then renamed."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write all of ``data`` and have it on disk, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def append_json(path: Path, row: dict) -> None:
    """Append ``row`` as one line and have it on disk before returning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> list[dict]:
    """The rows of a ``.jsonl`` file; [] where it does not exist; a torn last line is left out.

    Raises :class:`UserError` where another line is no JSON object.
    """
    if not path.exists():
        return []
    lines = _whole(path).split("\n")
    if lines[-1]:
        lines[-1] = ""  # a line without its line end was cut off while being written
    return [_row(path, number, line) for number, line in enumerate(lines, 1) if line]


def _whole(path: Path) -> str:
    """The text of ``path``, of which the last line may be torn in the middle of a character."""
    try:
        data = path.read_bytes()
        return data[: data.rfind(b"\n") + 1].decode() + data[data.rfind(b"\n") + 1 :].decode(errors="replace")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text.", DAMAGED) from error


def _row(path: Path, number: int, line: str) -> dict:
    row = parse_json(line, f"{path}, line {number}", DAMAGED)
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number} is no JSON object.", DAMAGED)
    return row


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Python's version and those of the packages a result depends on."""
    return {"python": platform.python_version(), "ladlib": metadata.version("ladlib")} | {
        name: metadata.version(name) for name in PACKAGES
    }


def commit() -> str:
    """The commit of the checkout this code lies in, "+" added where files differ; "" outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def hardware() -> dict[str, str | int | float]:
    """Processor, cores and memory (GiB). Accelerators are added by the stages that use torch."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": round(memory, 1),
    }

"""A run folder: every path in one place, ``run.json`` with what the run was made from, and whole files on disk."""

import gzip
import hashlib
import json
import os
import platform
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from ladlib.errors import UserError, parse_json, read_text
from ladlib.records import RunRecord, StageRecord

DAMAGED = "Move the file away and run its stage again."
EDITED = "changed by hand"
SEEDS = 2**32  # numpy's generators take the integers below it
RUNS = "results/runs"  # below the root
BATCH = "LADLIB_BATCH"  # set in the environment of a kernel that the pipeline starts
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill", "pillow", "numpy", "pandas")


def check_seed(seed: int) -> None:
    """Raises :class:`UserError` unless ``seed`` is one that numpy takes."""
    if not 0 <= seed < SEEDS:
        raise UserError(f"Seed must be an integer from 0 to 2**32 - 1, got {seed}.", "Give another one with --seed.")


class RunFolder:
    """The files of one run below ``root``; each has one producer.

    >>> RunFolder("results/runs/toy").generations("sft", 0).name
    'sft-seed0.jsonl'
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.run_json = self.root / "run.json"
        self.profile = self.root / ".profile.yaml"  # where it is none of the shipped ones, or several processes read it
        self.metrics_json = self.root / "metrics.json"
        self.data = self.root / "data"  # the toy datasets of this run
        self.tables, self.figures = self.root / "tables", self.root / "figures"
        self.notebooks = self.root / "notebooks"  # executed copies
        self.report = self.root / "report.html"
        self.neighbours = self.root / "baselines" / "neighbours.jsonl"  # one row per test image

    def checkpoint(self, arm: str, seed: int) -> Path:  # the folder of a trained model
        return self.root / "checkpoints" / f"{arm}-seed{seed}"

    def log(self, arm: str, seed: int) -> Path:  # the training log: one row per step
        return self.root / "logs" / f"{arm}-seed{seed}.jsonl"

    def rollouts(self, arm: str, seed: int) -> Path:  # sampled groups of GRPO with their rewards: one row per group
        return self.root / "logs" / f"{arm}-seed{seed}-rollouts.jsonl"

    def manifest(self, arm: str, seed: int) -> Path:  # training images by SHA-256, one row per pair
        return self.root / "manifests" / f"{arm}-seed{seed}.csv"

    def generations(self, arm: str, seed: int) -> Path:  # one Generation per pair
        return self.root / "generations" / f"{arm}-seed{seed}.jsonl"

    def rationales(self, arm: str, seed: int) -> Path:  # checked against the scenes: one row per image
        return self.root / "rationales" / f"{arm}-seed{seed}.jsonl"

    def samples(self, arm: str, seed: int) -> Path:  # several completions of some training pairs: one row per pair
        return self.root / "samples" / f"{arm}-seed{seed}.jsonl"

    def sensitivity(self, arm: str, seed: int) -> Path:  # one Variation per pair and change
        return self.root / "sensitivity" / f"{arm}-seed{seed}.jsonl"

    def locations(self) -> str:
        """Where the results are, a line for each that exists."""
        paths = (self.report, self.tables, self.figures, self.notebooks, self.run_json)
        return "\n".join(f"{path.name:<11}  {path}" for path in paths if path.exists())

    def open(self, profile: str, seed: int, **parameters: str | int | float | bool) -> RunRecord:
        """The record, made if needed, stamped with versions and hardware. Raises as :meth:`check` and check_seed."""
        check_seed(seed)
        record = self.check(profile, seed) or RunRecord(profile=profile, seed=seed)
        stamp = {"versions": versions(), "commit": commit(), "hardware": hardware()}
        record = record.model_copy(update={"parameters": record.parameters | parameters} | stamp)
        self.write(record)
        return record

    def check(self, profile: str, seed: int) -> RunRecord | None:
        """The record, None in an empty folder; :class:`UserError` in one of another profile, seed or of other files."""
        if not self.run_json.exists():
            if self.root.exists() and any(not path.name.startswith(".") for path in self.root.iterdir()):
                raise UserError(f"{self.root} is no run folder and holds files.", "Name a new or empty folder.")
            return None
        record = self.read()
        if (record.profile, record.seed) != (profile, seed):
            raise UserError(
                f"{self.root} holds a run of profile {record.profile!r}, seed {record.seed}.",
                f"Give another folder with --run for profile {profile!r}, seed {seed}.",
            )
        return record

    def read(self) -> RunRecord:
        """The record, ``sha256`` being ``EDITED`` after an edit by hand. :class:`UserError` where none can be read."""
        if not self.run_json.exists():
            raise UserError(f"{self.root} is not a run folder: it has no run.json.", "Run `ladlib reproduce` first.")
        try:
            fields = json.loads(read_text(self.run_json, "Restore it."))
            whole = fields.get("sha256") == _sha256(fields) and self.run_json.read_bytes() == _as_bytes(fields)
            record = RunRecord.model_validate(fields)
        except (ValueError, AttributeError, RecursionError) as error:
            raise UserError(f"{self.run_json} is damaged.", "Restore it, or name another run folder.") from error
        return record if whole or not record.sha256 else record.model_copy(update={"sha256": EDITED})

    def write(self, record: RunRecord) -> None:
        """Store ``record`` with its hash; one that was edited by hand stays marked as such."""
        fields = record.model_dump(mode="json")
        fields["sha256"] = EDITED if record.sha256 == EDITED else _sha256(fields)
        write_bytes(self.run_json, _as_bytes(fields))

    def stage(self, name: str) -> StageRecord | None:
        """The record of a finished stage; None where it has not finished, or there is no run yet."""
        stages = self.read().stages if self.run_json.exists() else ()
        return next((stage for stage in stages if stage.name == name), None)

    def set_stage(self, name: str, stage: StageRecord | None) -> None:
        """Store ``stage`` in place of an earlier record of that name; None removes it."""
        record = self.read()
        stages = [other for other in record.stages if other.name != name] + ([stage] if stage else [])
        self.write(record.model_copy(update={"stages": tuple(sorted(stages, key=lambda stage: stage.name))}))


def _as_bytes(fields: Mapping) -> bytes:
    return f"{json.dumps(fields, indent=2)}\n".encode()


def _sha256(fields: Mapping) -> str:
    """Of the fields of a record but its hash."""
    fields = {name: value for name, value in fields.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


RELEASED = Path(__file__).parents[1] / "results" / "released"  # a wheel does not carry them
STUDY = RunFolder(RELEASED / "study")


# What a number was computed with


def versions() -> dict[str, str]:
    """Python's version and those of the packages a result depends on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("ladlib", *PACKAGES)}


def commit() -> str:
    """The commit of the checkout this code lies in, "+" added where files differ; "" outside one."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def hardware() -> dict[str, str | int | float]:
    """Processor, cores and memory (GiB, or "unknown"). Accelerators are added by the stages that use torch."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0  # Windows
    return {
        "processor": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": round(size / 2**30, 1) or "unknown",
    }


# Paths as a user gives them


def from_root(path: Path | str) -> Path:
    """``path`` as a notebook's parameter means it: relative to the root, "~" the home folder."""
    return find_root(Path.cwd()) / Path(path).expanduser()


def find_root(start: Path) -> Path:
    """The nearest folder at or above ``start`` with ladlib's ``pyproject.toml``; ``start`` where there is none."""
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file() and 'name = "ladlib"' in file.read_text(encoding="utf-8", errors="replace"):
            return folder
    return start


def shown_path(path: Path) -> str:
    """``path`` relative to the root, so that an executed notebook does not tell where a home folder lies."""
    root = find_root(Path.cwd())
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


# One process at a time


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of the run ``folder`` until this one leaves or ends, however that ends.

    Raises :class:`UserError` where another is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"Another ladlib process is at work in {folder}.", "Wait for it or stop it, or give another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def lock_kernel(folder: Path) -> None:
    """In a kernel that the pipeline started, wait until the last one has ended; held until this process ends.

    A pipeline that is killed leaves its kernel behind for a second, until that notices. Two of them must not write.
    """
    if os.environ.pop(BATCH, ""):  # popped: processes that this one starts do not wait for it
        folder.mkdir(parents=True, exist_ok=True)
        lock_kernel.held = FileLock(folder / ".kernel.lock")
        lock_kernel.held.acquire(timeout=50)


# Whole files


def write_text(path: Path, text: str) -> None:
    """Write all of ``text`` and have it on disk, or nothing."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write all of ``data`` and have it on disk, or nothing. Raises :class:`UserError` for a link, device or pipe."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is no regular file.", "Name another file, or move it away.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")  # renamed at the end
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
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
    with path.open("ab", buffering=len(line) + 1) as file:  # one write, so that several processes may append
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def find(path: Path) -> Path | None:
    """``path``, or ``path.gz`` where only that exists: released runs are compressed."""
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.exists()), None)


def stored(folder: Path, suffix: str = ".jsonl") -> dict[str, Path]:
    """The files in ``folder`` by their names without ".gz", sorted."""
    files = sorted(folder.glob("*"), reverse=True)  # a plain file after its .gz, and in place of it
    by_name = {file.name.removesuffix(".gz"): file for file in files if not file.name.startswith(".")}
    return {name: by_name[name] for name in sorted(by_name) if name.endswith(suffix)}


def read_jsonl(path: Path) -> list[dict]:
    """The rows of a ``.jsonl`` or ``.jsonl.gz`` file; [] where there is none; a torn last line is left out.

    Raises :class:`UserError` where it cannot be read, or another line is not a JSON object.
    """
    file = find(path)
    if file is None:
        return []
    if not file.is_file():
        raise UserError(f"{file} is no regular file.", DAMAGED)
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        text = data[: data.rfind(b"\n") + 1].decode()  # a line without its line end was cut off while being written
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read.", DAMAGED) from error
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line:
            rows.append(parse_json(line, f"{path}, line {number}", DAMAGED))
            if not isinstance(rows[-1], dict):
                raise UserError(f"{path}, line {number} is not a JSON object.", DAMAGED)
    return rows

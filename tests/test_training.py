"""The losses of both stages, which nothing but a new release of the study may change."""

import json
import platform
from pathlib import Path

import pytest
import torch

from ladlib import grpo, sft
from ladlib.config import load_profile
from ladlib.runs import RunFolder, read_jsonl
from ladlib.toy.datasets import write_datasets

LOSSES = json.loads(Path(__file__).with_name("losses.json").read_text())
SPREAD = {"grpo.group_size": 4, "grpo.temperature": 1.5, "model.max_new_tokens": 100}  # groups differ in reward
ACCUMULATED = {"data.sft_samples": 8, "sft.batch_size": 4, "sft.micro_batch_size": 2}  # rows sorted by length
RUNS = {"grpo": {}, "grpo spread": SPREAD, "grpo spread stock": SPREAD | {"model.shared_prefix": False}}


def machine() -> str:
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{models[0] if models else platform.processor()} torch {torch.__version__}"


def measure(folder: Path) -> dict[str, list[dict]]:
    """Two steps of each stage on the smoke profile, at one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    write_datasets(folder / "data", load_profile("smoke").toy)
    logs = {}
    for name, changes in {"sft accumulated": ACCUMULATED, "sft": {}}.items():
        run = RunFolder(folder / name)
        start = sft.train(load_profile("smoke", **changes), folder / "data", run, 0)
        logs[name] = read_jsonl(run.log("sft", 0))
    for name, changes in RUNS.items():
        run = RunFolder(folder / name)
        grpo.train(load_profile("smoke", **changes), folder / "data", run, 0, model=str(start))
        logs[name] = read_jsonl(run.log("sft_grpo", 0))
    torch.set_num_threads(threads)
    return {
        name: [{key: row[key] for key in LOSSES["columns"] if key in row} for row in rows]
        for name, rows in logs.items()
    }


def test_two_steps_of_each_stage_lose_what_they_always_lost(tmp_path):
    """Equal to eight digits on the machine that wrote the file; elsewhere the order of a sum may differ."""
    rel = 1e-8 if machine() == LOSSES["machine"] else 1e-4
    measured = measure(tmp_path)
    assert measured.keys() == LOSSES["steps"].keys()
    for name, rows in LOSSES["steps"].items():
        assert [list(row) for row in measured[name]] == [list(row) for row in rows]
        for row, expected in zip(measured[name], rows, strict=True):
            assert row == pytest.approx(expected, rel=rel, abs=1e-7), name

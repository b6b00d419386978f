"""Put a finished run, or the study, under ``results/released`` and its numbers into the READMEs.

    python results/release.py results/runs/toy toy
    python results/release.py results/runs/study study

A release has the layout of a run, its records gzipped, without what ``ladlib report`` makes again (the figures that a
README shows excepted). The blocks of the READMEs are written from released files only; a test compares the two.
"""

import gzip
import re
import shutil
import sys
from pathlib import Path
from statistics import median

import pandas as pd

from ladlib import checksums, claims
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.report import analysis, tables
from ladlib.report.formats import markdown
from ladlib.results import load_run
from ladlib.runs import RELEASED, STUDY, RunFolder, read_jsonl, write_bytes, write_text

ROOT = Path(__file__).parents[1]
SPEED = ROOT / "results" / "speed.jsonl"  # the last lines of `ladlib bench`, run after run
READMES = ROOT / "README.md", ROOT / "notebooks" / "README.md", ROOT / "results" / "README.md"
TOY = RunFolder(RELEASED / "toy")
RECORDS = ("generations", "sensitivity", "baselines", "rationales", "samples", "logs", "manifests")
SHOWN = {"toy": ("products.png", "training-sft_grpo-seed0.png"), "study": ("study-strategy.png", "study-collapse.png")}
COLUMNS = ["method", "accuracy", "f1", "balanced_accuracy", "auroc", "label"]
METHODS = ("always yes", "LAD-Reasoner 3B", "Qwen2.5-VL-3B (base)", "Qwen2.5-VL-72B", "always anomalous")


def release(run: RunFolder, released: RunFolder) -> None:
    """Copy ``run`` to ``released`` in place of what was there, rollouts of the study left out for their size."""
    name = released.root.name
    results = load_run(run)
    old = {file: (released.figures / file) for file in SHOWN[name]}
    figures = {file: (path if (path := run.figures / file).exists() else old[file]).read_bytes() for file in old}
    shutil.rmtree(released.root, ignore_errors=True)
    tables.write_all(results, released.root)
    if name == "study":
        tables.write_all(results, released.root, tables.of_study(results))
    shutil.copy2(run.run_json, released.run_json)
    for file in (file for folder in RECORDS for file in sorted((run.root / folder).glob("*"))):
        if file.suffix in (".jsonl", ".csv") and not (name == "study" and file.name.endswith("-rollouts.jsonl")):
            data = gzip.compress(file.read_bytes(), mtime=0)  # the same bytes at any time
            write_bytes(released.root / file.parent.name / f"{file.name}.gz", data)
    for file, data in figures.items():
        released.figures.mkdir(exist_ok=True)
        (released.figures / file).write_bytes(data)
    checksums.write(released)


def with_blocks(text: str) -> str:
    """``text`` with its generated blocks filled from what is released. Raises KeyError for an unknown block."""
    makers = {
        "results": results, "finding": finding, "minutes": minutes, "seconds": seconds, "study": study,
        "claims": of_claims, "departures": departures, "speed": speed,
    }  # fmt: skip
    pattern = r"(<!-- (\w+) -->)\n.*?(<!-- end -->)"
    return re.sub(pattern, lambda block: f"{block[1]}\n{makers[block[2]]()}{block[3]}", text, flags=re.DOTALL)


def results() -> str:
    """The main rows of the comparison as Markdown."""
    frame = tables.comparison(load_run(TOY))
    is_main = (frame["block"] == "run") | frame["method"].isin(METHODS)
    return markdown(tables.readable(frame.loc[is_main, COLUMNS]))


def finding() -> str:
    """How the models of the study compare two images, and how well they do, in a sentence each."""
    models = analysis.strategies(load_run(STUDY)).groupby("arm")
    shares = {arm: _ends(rows["by_type"], 0) for arm, rows in models}
    scores = {arm: _ends(rows["balanced_accuracy"], 1) for arm, rows in models}
    return (
        f"Before training, {shares['base']} % of the rationales match parts by type; after SFT {shares['sft']} %, "
        f"after SFT + GRPO {shares['sft_grpo']} %, after GRPO alone {shares['grpo_only']} %. Balanced accuracy is "
        f"{scores['base']}, {scores['sft']}, {scores['sft_grpo']} and {scores['grpo_only']} (lowest to highest seed).\n"
    )


def _ends(column: pd.Series, digits: int) -> str:
    return " to ".join(dict.fromkeys(f"{end:.{digits}f}" for end in (column.min(), column.max())))


def minutes() -> str:
    """How long the released toy run took, and on what."""
    record = TOY.read()
    total, cores = sum(stage.seconds for stage in record.stages) / 60, record.hardware["cores"]
    return f"`make reproduce` takes {total:.0f} minutes on {cores} CPU cores without a GPU, after the installation.\n"


def study() -> str:
    return markdown(tables.readable(analysis.arms(load_run(STUDY))))


def of_claims() -> str:
    return markdown(claims.readable(claims.table(load_run(STUDY))))


def departures() -> str:
    """What the paper leaves open and the paper profile does."""
    return markdown(tables.readable(tables.departures(load_profile("paper")).drop(columns="tag")))


def seconds() -> str:
    """How long each notebook of the released toy run took, and on what."""
    record = TOY.read()
    lines = ["| notebook | toy profile |", "|---|---|"]
    lines += [f"| `{stage.name}` | {stage.seconds:.0f} s |" for stage in record.stages]
    return "\n".join(lines) + f"\n\nMeasured on {record.hardware['cores']} CPU cores, no GPU.\n"


def speed() -> str:
    """What ``ladlib bench`` measured, ours next to each way of the stock libraries, over all runs in ``SPEED``."""
    works: dict[tuple[str, str], list[dict]] = {}
    for measured in read_jsonl(SPEED):
        for other in list(_seconds(measured))[1:]:
            works.setdefault((_work(measured), other), []).append(measured)
    return markdown(pd.DataFrame(_speed(work, other, runs) for (work, other), runs in works.items()))


def _work(measured: dict) -> str:
    if measured["what"] == "eval":
        return f"{measured['pairs']} pairs judged"
    if measured["what"] == "sft":
        return f"{measured['steps']} SFT steps"
    return f"GRPO step, groups of {measured['group']}"


def _seconds(measured: dict) -> dict[str, list[float]]:
    return measured.get("seconds") or measured["seconds_a_step"]


def _speed(work: str, other: str, runs: list[dict]) -> dict[str, str | int]:
    """Medians within each of ``runs``, the middle of them over all runs, and the lowest and highest ratio."""
    ours = next(iter(_seconds(runs[0])))
    least, most = ([median(_seconds(run)[name]) for run in runs] for name in (ours, other))
    ratios = sorted(much / little for little, much in zip(least, most, strict=True))
    spread = f" ({ratios[0]:.1f} to {ratios[-1]:.1f})" if len(runs) > 1 else ""
    peaks = runs[-1].get("peak_mib", {})
    return {
        "work": work, "beside": other, "runs": len(runs), "seconds": f"{median(least):.2f} and {median(most):.2f}",
        "faster": f"{median(ratios):.1f} ×{spread}",
        "memory at most, MiB": " and ".join(f"{peaks[one]:.0f}" for one in (ours, other) if peaks) or "–",
    }  # fmt: skip


if __name__ == "__main__":
    try:
        release(RunFolder(sys.argv[1]), RunFolder(RELEASED / sys.argv[2]))
    except UserError as error:
        sys.exit(str(error))
    for readme in READMES:
        write_text(readme, with_blocks(readme.read_text(encoding="utf-8")))

"""Put a finished run, or the study, under ``results/released`` and its numbers into the READMEs.

    python -m ladlib.release results/runs/toy toy
    python -m ladlib.release results/runs/study study

What is released has the layout of a run without its checkpoints and datasets. The tables of the READMEs, at the top,
in ``notebooks/`` and in ``results/``, stand between markers and are written from the released files only; a test
compares the two.
"""

import re
import shutil
import sys
from pathlib import Path
from statistics import median

import pandas as pd
from matplotlib.figure import Figure

from ladlib import checksums
from ladlib.config import load_profile
from ladlib.data import read_dataset
from ladlib.data.pairing import pair
from ladlib.doctor import load_cost
from ladlib.errors import UserError
from ladlib.records import Pair
from ladlib.report import cards
from ladlib.report.claims import claims_frame, claims_text
from ladlib.report.page import write_report
from ladlib.report.stored import read_run
from ladlib.report.study import arms_and_seeds, write_study
from ladlib.report.study_arms import arms_frame, arms_text
from ladlib.report.study_spoken import read_summaries
from ladlib.report.style import save
from ladlib.report.tables import blocks, comparison, departures, markdown, readable
from ladlib.runs import RELEASED, STUDY, RunFolder, read_jsonl, write_text
from ladlib.verify import verify

ROOT = Path(__file__).parents[1]
SPEED = ROOT / "results" / "speed.jsonl"  # the last lines of `ladlib bench`, run after run
READMES = ROOT / "README.md", ROOT / "notebooks" / "README.md", ROOT / "results" / "README.md"
KEPT = (
    "run.json", "metrics.json", "generations", "sensitivity", "baselines", "rationales", "samples", "logs",
    "manifests", "tables", "figures",
)  # fmt: skip
COLUMNS = ["method", "accuracy", "f1", "balanced_accuracy", "recall", "specificity", "auroc", "format", "label"]


def release(run: RunFolder, released: RunFolder) -> None:
    """Copy ``run`` to ``released`` in place of what was there, rollouts of the study left out for their size."""
    is_study = released.root == STUDY.root
    write_report(run, check=verify)
    if is_study:
        write_study(run)
    shutil.rmtree(released.root, ignore_errors=True)
    for source in (run.root / name for name in KEPT):
        target = released.root / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            left_out = ("*-rollouts.jsonl", "*.inputs.json", "*.txt") if is_study else ("*.inputs.json",)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out))
        elif source.is_file():
            shutil.copy2(source, target)
    if not is_study:
        save(products(run.data), released, "products")
    checksums.write(released)


def products(data: Path) -> Figure:
    """One logical anomaly of each category of toy MVTec LOCO AD: reference, test image, mask."""
    first: dict[str, Pair] = {}
    for one in cards.one_per_defect(pair(read_dataset(data, "mvtec_loco"), seed=0), ["logical"]):
        first.setdefault(one.test.category, one)
    return cards.pairs(list(first.values()), data, note=load_profile("toy").label)


def with_blocks(text: str) -> str:
    """``text`` with its generated blocks filled from what is released. Raises KeyError for an unknown block."""
    toy = RunFolder(RELEASED / "toy")
    made = {
        "results": (results, toy),
        "seconds": (seconds, toy),
        "lessons": (lessons, toy),
        "study": (study, STUDY),
        "claims": (claims, STUDY),
    }

    of_no_run = {"departures": appendix, "speed": speed}

    def fill(match: re.Match) -> str:
        if match[2] in of_no_run:
            return f"{match[1]}\n{of_no_run[match[2]]()}{match[3]}"
        make, released = made[match[2]]
        return f"{match[1]}\n{make(released) if released.run_json.exists() else ''}{match[3]}"

    return re.sub(r"(<!-- (\w+) -->)\n.*?(<!-- end -->)", fill, text, flags=re.DOTALL)


def results(released: RunFolder) -> str:
    """The comparison as Markdown, its three parts under one heading."""
    stored = read_run(released)
    (_, first), *others = blocks(comparison(stored)[["block", *COLUMNS]])
    lines = markdown(first)
    return lines + "".join("".join(markdown(part).splitlines(keepends=True)[2:]) for _, part in others)


def seconds(released: RunFolder) -> str:
    """How long each notebook of the run's profile takes, and on what: profiles/cost.yaml."""
    cost = load_cost(released.read().profile)
    lines = ["| notebook | toy profile |", "|---|---|"]
    lines += [f"| `{name}` | {took:.0f} s |" for name, took in cost.seconds.items()]
    return "\n".join(lines) + f"\n\nMeasured on {cost.measured_on}.\n"


def lessons(released: RunFolder) -> str:
    """What a class has to wait for: seconds of each notebook from run.json, the memory of all from cost.yaml."""
    record = released.read()
    cost = load_cost(record.profile)
    lines = ["| notebook | runs in |", "|---|---|"]
    lines += [f"| `{one.name}` | {one.seconds:.0f} s |" for one in record.stages]
    return "\n".join(lines) + (
        f"\n\nMeasured with {record.hardware['cores']} CPU cores and no GPU. None of them held more than "
        f"{cost.peak_memory_gib:g} GiB of memory;\na machine with {cost.memory_gib:g} GiB, and "
        f"{cost.disk_gib:g} GiB free on disk, is enough.\n"
    )


def speed() -> str:
    """What ``ladlib bench`` measured, ours beside each way of the stock libraries, over all runs in ``SPEED``."""
    works: dict[tuple[str, str], list[dict]] = {}
    for told in read_jsonl(SPEED):
        for other in list(_seconds(told))[1:]:
            works.setdefault((_work(told), other), []).append(told)
    return markdown(pd.DataFrame(_speed(work, other, runs) for (work, other), runs in works.items()))


def _work(told: dict) -> str:
    if told["what"] == "eval":
        return f"{told['pairs']} pairs judged"
    return f"{told['steps']} SFT steps" if told["what"] == "sft" else f"GRPO step, groups of {told['group']}"


def _seconds(told: dict) -> dict[str, list[float]]:
    return told.get("seconds") or told["seconds_a_step"]


def _speed(work: str, other: str, runs: list[dict]) -> dict[str, str | int]:
    """Medians within each of ``runs``, the middle of them over all runs, and the lowest and highest ratio."""
    took = [_seconds(told) for told in runs]
    ours = next(iter(took[0]))
    least, most = ([median(one[name]) for one in took] for name in (ours, other))
    ratios = sorted(much / little for little, much in zip(least, most, strict=True))
    spread = f" ({ratios[0]:.1f} to {ratios[-1]:.1f})" if len(runs) > 1 else ""
    peaks = runs[-1].get("peak_mib", {})
    return {
        "work": work, "beside": other, "runs": len(runs), "seconds": f"{median(least):.2f} and {median(most):.2f}",
        "faster": f"{median(ratios):.1f} ×{spread}",
        "memory at most, MiB": " and ".join(f"{peaks[one]:.0f}" for one in (ours, other) if peaks) or "–",
    }  # fmt: skip


def study(released: RunFolder) -> str:
    """The study's arms over their seeds as Markdown."""
    return markdown(arms_text(arms_frame(read_run(released))))


def claims(released: RunFolder) -> str:
    """The paper's claims and ours as the study leaves them, as Markdown."""
    return markdown(claims_text(_measured(released)))


def _measured(released: RunFolder) -> pd.DataFrame:
    stored = read_run(released)
    return claims_frame(stored, read_summaries(released, arms_and_seeds(stored)))


def appendix() -> str:
    """What the paper leaves open and the paper profile does, as Markdown."""
    return markdown(readable(departures(load_profile("paper")).drop(columns="tag")))


if __name__ == "__main__":
    try:
        release(RunFolder(sys.argv[1]), RunFolder(RELEASED / sys.argv[2]))
    except UserError as error:
        sys.exit(str(error))
    for readme in READMES:
        write_text(readme, with_blocks(readme.read_text(encoding="utf-8")))

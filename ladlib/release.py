"""Put a finished run under ``results/released`` and its numbers into the README.

    python -m ladlib.release results/runs/toy

What is released has the layout of a run without its checkpoints and datasets. The README's tables stand
between markers and are written from the released files only; a test compares the two.
"""

import re
import shutil
import sys
from pathlib import Path

from matplotlib.figure import Figure

from ladlib.data import find_dataset, read_dataset
from ladlib.data.pairing import pair
from ladlib.report import write_report
from ladlib.report.figures import save
from ladlib.report.samples import one_a_defect, pair_gallery
from ladlib.report.stored import read_run
from ladlib.report.tables import blocks, comparison, markdown
from ladlib.runs import RunFolder, write_text
from ladlib.schema import Pair

ROOT = Path(__file__).parents[1]
KEPT = ("run.json", "metrics.json", "generations", "logs", "tables", "figures")
COLUMNS = ["method", "accuracy", "f1", "balanced_accuracy", "recall", "specificity", "auroc", "format", "label"]


def release(run: RunFolder, released: RunFolder, readme: Path) -> None:
    """Copy ``run`` to ``released`` in place of what was there, and write the README's blocks anew."""
    write_report(run)
    shutil.rmtree(released.root, ignore_errors=True)
    for name in KEPT:
        source, target = run.root / name, released.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    save(products(run.data), released, "products")
    write_text(readme, with_blocks(readme.read_text(encoding="utf-8"), released))


def products(data: Path) -> Figure:
    """One logical anomaly of each category of toy MVTec LOCO AD: reference, test image, mask."""
    first: dict[str, Pair] = {}
    for one in one_a_defect(pair(read_dataset(data, "mvtec_loco"), seed=0), ["logical"]):
        first.setdefault(one.test.category, one)
    return pair_gallery(list(first.values()), find_dataset(data, "mvtec_loco"))


def with_blocks(text: str, released: RunFolder) -> str:
    """``text`` with its generated blocks filled from ``released``. Raises KeyError for an unknown block."""
    makers = {"results": results, "seconds": seconds}

    def fill(match: re.Match) -> str:
        return f"{match[1]}\n{makers[match[2]](released)}{match[3]}"

    return re.sub(r"(<!-- (\w+) -->)\n.*?(<!-- end -->)", fill, text, flags=re.DOTALL)


def results(released: RunFolder) -> str:
    """The comparison as Markdown, its three parts under one heading."""
    stored = read_run(released)
    (_, first), *others = blocks(comparison(stored)[["block", *COLUMNS]])
    lines = markdown(first)
    return lines + "".join("".join(markdown(part).splitlines(keepends=True)[2:]) for _, part in others)


def seconds(released: RunFolder) -> str:
    """How long each notebook took, and on what."""
    record = released.read()
    lines = ["| notebook | toy profile |", "|---|---|"]
    lines += [f"| `{stage.name}` | {stage.seconds:.0f} s |" for stage in record.stages]
    machine = f"{record.hardware['cores']} cores, {record.hardware['memory_gib']} GiB, no GPU"
    return "\n".join(lines) + f"\n\nMeasured on {machine}.\n"


if __name__ == "__main__":
    release(RunFolder(sys.argv[1]), RunFolder(ROOT / "results/released/toy"), ROOT / "README.md")

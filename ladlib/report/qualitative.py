"""The qualitative figure: reference image, test image and what four models say of them.

Pairs are not picked by eye. Of each pattern of outcomes that occurs one test pair is shown, as :data:`CAPTION` says.
Of synthetic images each statement of a rationale is marked true or false.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ladlib.data import find_dataset
from ladlib.data.images import open_image, sha256
from ladlib.errors import UserError
from ladlib.parsing import parse, parse_answer
from ladlib.records import Generation
from ladlib.report.cards import LONGEST, small
from ladlib.report.style import GREEN, GREY, INK, RED, canvas, show_image, styled
from ladlib.results import NAMES
from ladlib.sanitize import strip_control
from ladlib.toy.statements import judged, sentences
from ladlib.toy.truth import read_scenes

MARKS = {True: "✓ ", False: "✗ ", None: ""}
MODELS = ("base", "sft", "sft_grpo", "large")
PATTERNS = ("every model right", "training helped", "training hurt", "every model wrong")
CAPTION = (
    "What the models say, one test pair for each pattern of right and wrong answers: the first by id, logical"
    " anomalies before other images, of a category not shown above it where there is one"
)


def draw(answers: pd.DataFrame, root: Path | str, note: str = "") -> Figure | None:
    """The figure of :data:`CAPTION`; None where no pair has both its images and two answers."""
    rows = answers[answers["arm"].isin(MODELS)]
    rows = rows[rows["seed"] == rows.groupby("arm")["seed"].transform("min")]
    rows = rows.assign(right=rows["text"].map(parse_answer) == rows["label"], later=rows["anomaly"] != "logical")
    whole = [
        pair.set_index("arm", drop=False)
        for _, pair in rows.groupby(["later", "dataset", "id", "reference"])
        if len(pair) == rows["arm"].nunique() > 1
    ]
    chosen = examples([pair for pair in whole if image_files(pair.iloc[0], root)])
    return _draw(chosen, root, note=note) if chosen else None


def image_files(row: Generation, root: Path | str) -> tuple[Path, Path] | None:
    """Reference and test image of an answer; None where either is not the file that was evaluated."""
    try:
        folder = find_dataset(root, row.dataset)
    except UserError:
        return None
    files = folder / row.reference, folder / row.test
    same = all(file.is_file() and sha256(file) == known for file, known in zip(files, row.images_sha256, strict=True))
    return files if same else None


def examples(pairs: Sequence[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Pattern to the first of ``pairs`` (answers of one pair, by arm) that shows it, preferably of a new category."""
    chosen: dict[str, pd.DataFrame] = {}
    for name in PATTERNS:
        fitting = [pair for pair in pairs if pattern(pair["right"]) == name]
        seen = {pair["category"].iloc[0] for pair in chosen.values()}
        if fitting:
            chosen[name] = next((pair for pair in fitting if pair["category"].iloc[0] not in seen), fitting[0])
    return chosen


def pattern(right: Mapping[str, bool]) -> str:
    """Which of :data:`PATTERNS` whether each arm is right shows; "" for another."""
    if len(set(right)) == 1:
        return PATTERNS[0] if all(right) else PATTERNS[3]
    before, after = right.get("base"), right.get("sft_grpo")
    return "" if None in (before, after) or before == after else PATTERNS[1] if after else PATTERNS[2]


@styled
def _draw(chosen: Mapping[str, pd.DataFrame], root: Path | str) -> Figure:
    """A row per pair: reference image, test image, and the answer and rationale of each model."""
    arms = [arm for arm in MODELS if arm in next(iter(chosen.values())).index]
    figure = canvas(3.4 + 2.4 * len(arms), 3.3 * len(chosen))
    grid = figure.subplots(len(chosen), 2 + len(arms), width_ratios=[1, 1, *[1.4] * len(arms)], squeeze=False)
    for panels, (title, pair) in zip(grid, chosen.items(), strict=True):
        first = pair.iloc[0]
        truth, what = scenes(root, first.dataset), f"{first.id}: {first.anomaly} {first.defect}".replace("_", " ")
        for axes, file, label in zip(panels, image_files(first, root), ("reference image", what), strict=False):
            show_image(axes, small(open_image(file)))
            axes.set_anchor("N")
            axes.set_xlabel(textwrap.fill(strip_control(label), 22), fontsize=8)
        panels[0].set_title(title)
        for axes, arm in zip(panels[2:], arms, strict=True):
            _write(axes, pair.loc[arm], [truth.get(path) for path in (first.reference, first.test)])
    return figure


def scenes(root: Path | str, dataset: str) -> dict:
    """The scene of each drawn image by its path; {} for photographs."""
    try:
        return {path: truth.scene for path, truth in read_scenes(find_dataset(root, dataset)).items()}
    except UserError:
        return {}


def sentence_marks(text: str, scenes: Sequence[object]) -> list[tuple[bool | None, str]]:
    """(whether it is true, sentence) of a rationale; one whole where the scenes of its images are not known."""
    if not all(scenes):
        return [(None, text)]
    return list(zip(judged(text, *scenes), sentences(text), strict=True))


def _write(axes: object, row: pd.Series, scenes: Sequence[object], lines: int = 15) -> None:
    """An arm's answer, and below it its rationale, a line per statement where its truth is known."""
    axes.axis("off")
    reading = parse(row.text[:LONGEST])
    look = {"va": "top", "in_layout": False, "transform": axes.transAxes, "fontsize": 8}
    head = f"{NAMES.get(row.arm, row.arm)}: {reading.answer or 'unparsed'}, {'right' if row.right else 'wrong'}"
    axes.text(0, 1, textwrap.fill(head, 34), color=GREEN if row.right else RED, weight="bold", **look)
    marked = [
        (line, RED if mark is False else INK)
        for mark, sentence in sentence_marks(reading.think or row.text[:LONGEST], scenes)
        for line in textwrap.wrap(MARKS[mark] + strip_control(sentence), 36)
    ]
    if len(marked) > lines:
        marked[lines - 1 :] = [(f"… {len(marked) - lines + 1} more lines", GREY)]
    for number, (line, colour) in enumerate(marked):
        axes.text(0, 0.86 - 0.058 * number, line, color=colour, **look)

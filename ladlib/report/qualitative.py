"""The qualitative figure: reference image, test image and what four models say of them, side by side.

Pairs are not picked by eye. Of each pattern of outcomes that occurs one test pair is shown: every model right,
training helped (the first model wrong, the trained one right), training hurt (the reverse), every model wrong. It
is the first in the order of ids, logical anomalies before other images, of a category that no earlier pattern has
shown, where there is one. Beside drawn images each statement of a rationale is marked true or false.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ladlib.data.images import open_image
from ladlib.metrics import is_right
from ladlib.parsing import parse
from ladlib.records import Generation
from ladlib.report.explorer import Dataset, judged_files, known_dataset
from ladlib.report.pictures import small
from ladlib.report.stored import Stored
from ladlib.report.style import GREY, INK, RIGHT, WRONG, bare, canvas, frame, strip_control, styled
from ladlib.report.tables import NAMES
from ladlib.toy.statements import judged, sentences

MODELS = ("base", "sft", "sft_grpo", "large")
FIRST, TRAINED = "base", "sft_grpo"
CAPTION = (
    "What the models say, one test pair for each pattern of right and wrong answers: the first by id, logical"
    " anomalies before other images, of a category not shown above it where there is one"
)
LINES, WIDTH, LONGEST = 15, 33, 2000  # of a rationale: lines, characters a line, characters read of it
MARKS = {True: ("✓ ", INK), False: ("✗ ", WRONG), None: ("", INK)}
Answers = Mapping[str, Generation]  # of one pair, by arm


def qualitative(stored: Stored, data: Path) -> Figure | None:
    """The figure; ``None`` where no image of the judged files lies below ``data``, or no pair has several answers."""
    known = {name: known_dataset(data, name) for name in sorted({one.dataset for one in stored.generations})}
    pairs = [one for one in answered(stored) if all(judged_files(_any(one), known[_any(one).dataset])[:2])]
    chosen = by_pattern(pairs)
    return _drawn(chosen, known) if chosen else None


def answered(stored: Stored) -> list[Answers]:
    """The answers of those of ``MODELS`` that the run has, each at its first seed, to the pairs all of them judged."""
    seeds = {arm: min(one.seed for one in stored.of(arm)) for arm in MODELS if stored.of(arm)}
    pairs: dict[tuple, dict[str, Generation]] = {}
    for one in stored.generations:
        if seeds.get(one.arm) == one.seed:
            pairs.setdefault((one.dataset, one.id, one.reference), {})[one.arm] = one
    whole = [pairs[key] for key in sorted(pairs) if len(pairs[key]) == len(seeds) > 1]
    return sorted(whole, key=lambda answers: _any(answers).anomaly != "logical")


def by_pattern(pairs: Sequence[Answers]) -> dict[str, Answers]:
    """Pattern of outcomes to the pair that shows it, of ``pairs`` in their order; patterns without one are left out."""
    found: dict[str, Answers] = {}
    for name in ("every model right", "training helped", "training hurt", "every model wrong"):
        fitting = [one for one in pairs if pattern(one) == name]
        seen = {_any(one).category for one in found.values()}
        if fitting:
            found[name] = next((one for one in fitting if _any(one).category not in seen), fitting[0])
    return found


def pattern(answers: Answers) -> str:
    """Which of the four patterns the answers to one pair show; "" for another."""
    right = {arm: is_right(one) for arm, one in answers.items()}
    if len(set(right.values())) == 1:
        return "every model right" if right.popitem()[1] else "every model wrong"
    if right.get(FIRST) == right.get(TRAINED) or not {FIRST, TRAINED} <= set(right):
        return ""
    return "training helped" if right[TRAINED] else "training hurt"


def _any(answers: Answers) -> Generation:
    return next(iter(answers.values()))


@styled
def _drawn(chosen: Mapping[str, Answers], known: Mapping[str, Dataset]) -> Figure:
    """A row a pair: reference image, test image, and what each arm said, with its verdict."""
    arms = [arm for arm in MODELS if arm in next(iter(chosen.values()))]
    figure = canvas(2.4 + 1.55 * len(arms), 2.05 * len(chosen))
    rows = figure.subplots(len(chosen), 2 + len(arms), width_ratios=[1.1, 1.1, *[1.55] * len(arms)], squeeze=False)
    for panels, (title, answers) in zip(rows, chosen.items(), strict=True):
        one = _any(answers)
        dataset = known[one.dataset]
        _images(panels[:2], one, dataset.folder)
        panels[0].set_title(title, fontsize=8.5)
        for axes, arm in zip(panels[2:], arms, strict=True):
            _said(axes, answers[arm], dataset)
    return figure


def _images(panels: Sequence[Axes], one: Generation, folder: Path) -> None:
    what = " ".join(filter(None, (one.anomaly, one.defect.replace("_", " "))))
    titles = ("reference image", f"{one.id}: {what}")
    for axes, path, title in zip(panels, (one.reference, one.test), titles, strict=True):
        bare(axes)
        axes.imshow(small(open_image(folder / path)))
        axes.set_anchor("N")
        axes.set_xlabel(textwrap.fill(strip_control(title), 22), fontsize=6)
        frame(axes, GREY, 1)


def _said(axes: Axes, one: Generation, dataset: Dataset) -> None:
    """An arm's answer, and its rationale below it, a statement a line where its truth is known."""
    axes.axis("off")
    reading, right = parse(one.text[:LONGEST]), is_right(one)
    head = f"{NAMES.get(one.arm, one.arm)}: {reading.answer or 'unparsed'}, {'right' if right else 'wrong'}"
    _write(axes, 1.0, head, RIGHT if right else WRONG, fontsize=7, weight="bold")
    lines = _lines(one, reading.think or one.text[:LONGEST], dataset)
    shown = lines if len(lines) <= LINES else [*lines[: LINES - 1], (f"… {len(lines) - LINES + 1} more lines", GREY)]
    for number, (text, colour) in enumerate(shown):
        _write(axes, 0.9 - number * 0.061, text, colour, fontsize=6)


def _lines(one: Generation, think: str, dataset: Dataset) -> list[tuple[str, str]]:
    """Lines with their colours; marked where the scenes are known."""
    scenes = [dataset.scenes.get(path) for path in (one.reference, one.test)]
    if not all(scenes):
        return [(line, INK) for line in textwrap.wrap(strip_control(think), WIDTH)]
    marks = judged(think, *(truth.scene for truth in scenes))
    return [
        (line, MARKS[mark][1])
        for mark, sentence in zip(marks, sentences(think), strict=True)
        for line in textwrap.wrap(MARKS[mark][0] + strip_control(sentence), WIDTH)
    ]


def _write(axes: Axes, height: float, text: str, colour: str, **look: object) -> None:
    axes.text(0, height, text, va="top", color=colour, parse_math=False, in_layout=False, **look)

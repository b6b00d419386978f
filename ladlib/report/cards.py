"""Images with words: pairs with their masks, conversations, answers, rollouts, and the qualitative figure.

``root`` is the folder that holds the datasets; a missing image raises :class:`ladlib.errors.UserError`.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from ladlib.checksums import sha256
from ladlib.data import find_dataset
from ladlib.data.images import open_image
from ladlib.errors import UserError
from ladlib.parsing import parse, parse_answer
from ladlib.records import Anomaly, Answer, Conversation, Generation, Pair
from ladlib.report.formats import MISSING
from ladlib.report.style import GREEN, GREY, INK, RED, TEMPLATES, data_url, panels, show_image, styled
from ladlib.results import NAMES
from ladlib.rewards import accuracy_reward, format_reward
from ladlib.sanitize import strip_control
from ladlib.toy.statements import judged, sentences
from ladlib.toy.truth import read_scenes

LONGEST = 2_000  # characters of a text; the run keeps all of them
MODELS = ("base", "sft", "sft_grpo", "large")
PATTERNS = ("every model right", "training helped", "training hurt", "every model wrong")
QUALITATIVE = (
    "What the models say, one test pair for each pattern of right and wrong answers: the first by id, logical"
    " anomalies before other images, of a category not shown above it where there is one"
)


def _shown(text: str) -> str:
    more = len(text) - LONGEST
    return strip_control(text[:LONGEST].strip(" ")) + (f" … ({more:,} more characters)" if more > 0 else "")


TEMPLATES.filters["shown"] = _shown
TEMPLATE = TEMPLATES.get_template("cards.html.j2")  # its macros escape what they show


@styled
def pairs(pairs: Sequence[Pair], root: Path | str, per_row: int = 5, masks: bool = True) -> Figure:
    """Pairs in columns: normal reference image, test image and, with ``masks``, the defect in red on the test image."""
    high, across = 2 + masks, min(per_row, len(pairs))
    lines = -(-len(pairs) // across)
    figure, grid = panels(high * lines * across, 2.1, 2, across)
    figure.set_dpi(72)  # photographs compress badly
    columns = np.array(grid).reshape(lines, high, across).swapaxes(1, 2).reshape(-1, high)
    for axes in grid:
        axes.axis("off")
    for number, (column, pair) in enumerate(zip(columns, pairs, strict=False)):
        folder = find_dataset(root, pair.test.dataset)
        images = [small(open_image(folder / path)) for path in (pair.reference, pair.test.image)]
        if masks and pair.test.masks:
            images.append(defect_overlay(images[1], [folder / path for path in pair.test.masks]))
        elif masks:
            text = "no defect" if pair.test.anomaly == "good" else "no mask"
            column[2].text(0.5, 0.5, text, ha="center", transform=column[2].transAxes, color=GREY)
        for axes, image, name in zip(column, images, ("reference image", "test image", "defect"), strict=False):
            axes.axis("on")
            show_image(axes, image)
            axes.set_ylabel(name if number % across == 0 else "")
        title = f"{pair.test.category}: {pair.test.defect or 'good'}".replace("_", " ")
        column[0].set_title(textwrap.fill(title, 24), loc="center", fontsize=9)
    return figure


def defect_overlay(image: np.ndarray, masks: Sequence[Path]) -> np.ndarray:
    """``image`` in grey with what any of ``masks`` marks in red; a defect of one pixel stays visible."""
    marked = np.maximum.reduce([np.asarray(Image.open(path).convert("L")) for path in masks]) > 0
    mask = Image.fromarray(marked.astype(np.uint8) * 255).resize(image.shape[1::-1], Image.Resampling.BOX)
    grey = image.mean(axis=2, keepdims=True) * 0.5 + 110
    red = 0.65 * np.array([213, 94, 0]) + 0.35 * image
    return np.where(np.asarray(mask)[..., None] > 0, red, grey).clip(0, 255).astype(np.uint8)


def one_per_defect(pairs: Iterable[Pair], kinds: Sequence[Anomaly] = ("logical", "structural")) -> list[Pair]:
    """The first pair of every defect of each category; all images of unknown defects."""
    firsts: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        if pair.test.anomaly in kinds:
            name = pair.test.id if pair.test.defect == "unknown" else pair.test.defect
            firsts.setdefault((pair.test.category, name), pair)
    return list(firsts.values())


def small(image: Image.Image, side: int = 320) -> np.ndarray:
    """The image in RGB, (height, width, 3), its longest side at most ``side`` pixels."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    return np.asarray(image)


def webp(path: Path, *masks: Path, side: int = 224) -> bytes:
    """The image as a small WebP file, with what ``masks`` mark in red."""
    file, image = BytesIO(), small(open_image(path), side)
    Image.fromarray(defect_overlay(image, masks) if masks else image).save(file, "WEBP", quality=70)
    return file.getvalue()


def conversations(
    conversations: Sequence[Conversation], root: Path | str, answers: Mapping[str, Sequence[str]] | None = None
) -> HTML:
    """A card per conversation: both images, the question, the right answer, and what was answered.

    ``answers`` maps a name ("before SFT") to one answer per conversation; green where it is the right one.
    """
    cards = []
    for number, one in enumerate(conversations):
        lines = [(f"{one.kind} · {one.pair.id}", GREY), (one.question, INK), (f"right: {one.answer}", INK)]
        for name, texts in (answers or {}).items():
            is_right = texts[number].strip() == one.answer.strip()
            lines.append((f"{name}, {'right' if is_right else 'wrong'}: {texts[number]}", GREEN if is_right else RED))
        files = {"reference image": one.pair.reference, "test image": one.pair.test.image}
        cards.append((_images(one.pair.test.dataset, files, root), lines))
    return HTML(TEMPLATE.module.cards(cards))


def answers(answers: pd.DataFrame, root: Path | str, n: int = 6) -> HTML:
    """Up to ``n`` cards of both images, verdict and completion: right answers, then wrong ones, half of each."""
    is_right = answers["text"].map(parse_answer) == answers["label"]
    right, wrong = answers[is_right], answers[~is_right]
    wrongs = min(len(wrong), max(n // 2, n - len(right)))
    parts = [(right, min(n - wrongs, len(right))), (wrong, wrongs)]
    chosen = pd.concat([part.iloc[[at * len(part) // count for at in range(count)]] for part, count in parts])
    return HTML(TEMPLATE.module.cards([_answer(row, root) for row in chosen.itertuples()]))


def conditions(variations: pd.DataFrame, root: Path | str) -> HTML:
    """The pair whose answers differ most, a card per condition: the two images as the model saw them, its answer."""
    chosen = variations[variations["factor"].isin(["none", "blind", "swapped", "reference"])]
    chosen = chosen.drop_duplicates(["id", "factor"]).assign(parsed=lambda rows: rows["text"].map(parse_answer))
    pair, cards = chosen.groupby("id", sort=False)["parsed"].nunique(dropna=False).idxmax(), []
    for row in chosen[chosen["id"] == pair].itertuples():
        cards.append(_answer(row, root, f"{row.factor} {row.level}".replace("none", "as evaluated"), row.shown))
    return HTML(TEMPLATE.module.cards(cards))


def _answer(
    row: Generation, root: Path | str, condition: str = "", shown: Sequence[str] = ("reference", "test")
) -> tuple[list, list]:
    """(images, lines of text) of an answer's card; ``shown`` is what stood first and second."""
    files = {f"{number}. {name} image": getattr(row, name) for number, name in enumerate(shown, 1)}
    colour = GREEN if parse_answer(row.text) == row.label else RED
    lines = [(f"{row.id} {condition}", GREY), (verdict(row), colour), (row.text, INK)]
    return _images(row.dataset, files, root), lines


def _images(dataset: str, files: Mapping[str, str], root: Path | str) -> list[tuple[str, str, str]]:
    """(name, alt text, data URL) of each image."""
    folder = find_dataset(root, dataset)
    return [(name, f"{name}: {path}", data_url(webp(folder / path), "webp")) for name, path in files.items()]


def verdict(row: Generation) -> str:
    """One line: whether the answer is right, what it is, and what the image is."""
    answer, kind = parse_answer(row.text), f"{row.anomaly} {row.defect.replace('_', ' ')}".strip()
    p_yes = MISSING if pd.isna(row.p_yes) else f"{row.p_yes:.2f}"
    mark = "right" if answer == row.label else "wrong"
    return f"{mark}: answers {answer or 'unparsed'} (P(anomalous) {p_yes}), image is {kind}"


def tokens(pieces: Iterable[tuple[str, bool]]) -> HTML:
    """A token sequence, (text, carries loss) each; those with loss on blue and underlined, repeated ones counted."""
    return HTML(TEMPLATE.module.tokens([(*piece, len(list(run))) for piece, run in groupby(pieces)]))


def rewards(completions: Sequence[str], label: Answer) -> HTML:
    """What the parser reads in each completion, and its two rewards."""
    rows = [
        (text, "yes" if parse(text).think else "no", parse_answer(text) or "unparsed",
         f"{accuracy_reward(text, label):.0f}", f"{format_reward(text):.0f}")
        for text in completions
    ]  # fmt: skip
    heads = ("completion", "thinking found", "answer", "accuracy", "format")
    return HTML(TEMPLATE.module.table(f"The image's label is {label}", heads, rows))


def rollout(group: dict) -> HTML:
    """A group of rollouts: completions, rewards, and each advantage with a bar (blue up, orange down)."""
    heads = ("text", "accuracy", "format", "reward", "advantage")
    rows = [[str(one[name]) if name != "advantage" else one[name] for name in heads] for one in group["completions"]]
    title = f"step {group['step']}, {group['id']}: the label is {group['label']}"
    return HTML(TEMPLATE.module.table(title, ("completion", *heads[1:]), rows))


def has_spread(group: dict) -> bool:
    """Whether two completions of the group have different rewards."""
    return len({one["reward"] for one in group["completions"]}) > 1


def first_with_spread(groups: Sequence[dict]) -> dict | None:
    """The first group whose rewards differ, else the first; None of no group."""
    return next(filter(has_spread, groups), next(iter(groups), None))


def qualitative(answers: pd.DataFrame, root: Path | str, note: str = "") -> Figure | None:
    """The figure of :data:`QUALITATIVE`; None where no pair has both its images and two answers."""
    rows = answers[answers["arm"].isin(MODELS)]
    rows = rows[rows["seed"] == rows.groupby("arm")["seed"].transform("min")]
    rows = rows.assign(right=rows["text"].map(parse_answer) == rows["label"], later=rows["anomaly"] != "logical")
    groups = [pair.set_index("arm", drop=False) for _, pair in rows.groupby(["later", "dataset", "id", "reference"])]
    whole = [pair for pair in groups if len(pair) == rows["arm"].nunique() > 1]
    chosen = examples([pair for pair in whole if image_files(pair.iloc[0], root)])
    return _qualitative(chosen, root, note=note) if chosen else None


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
def _qualitative(chosen: Mapping[str, pd.DataFrame], root: Path | str) -> Figure:
    """A row per pair: reference image, test image, and the answer and rationale of each model."""
    arms = [arm for arm in MODELS if arm in next(iter(chosen.values())).index]
    ratios = [1, 1, *[1.4] * len(arms)]
    figure, grid = panels(len(chosen) * len(ratios), 2.2, 3.3, len(ratios), width_ratios=ratios)
    for axes, (title, pair) in zip(np.array(grid).reshape(len(chosen), -1), chosen.items(), strict=True):
        first = pair.iloc[0]
        files = image_files(first, root)
        names = ("reference image", f"{first.id}: {first.anomaly} {first.defect}".replace("_", " "))
        for panel, file, name in zip(axes, files, names, strict=False):
            show_image(panel, small(open_image(file)))
            panel.set_anchor("N")
            panel.set_xlabel(textwrap.fill(strip_control(name), 22), fontsize=8)
        axes[0].set_title(title)
        for panel, arm in zip(axes[2:], arms, strict=True):
            row, colour = pair.loc[arm], GREEN if pair.loc[arm].right else RED
            look = {"va": "top", "in_layout": False, "fontsize": 8, "transform": panel.transAxes}
            head = f"{NAMES[arm]}: {parse_answer(row.text) or 'unparsed'}, {'right' if row.right else 'wrong'}"
            panel.axis("off")
            panel.text(0, 1, head, color=colour, weight="bold", **look)
            panel.text(0, 0.93, _rationale(row, scenes(root, first.dataset)), linespacing=1.35, **look)
    return figure


def _rationale(row: Generation, known: Mapping[str, object], lines: int = 15) -> str:
    """A rationale in at most so many lines, a statement a line with ✓ or ✗ where its truth is known."""
    text = row.text[:LONGEST]
    marked = sentence_marks(parse(text).think or text, [known.get(row.reference), known.get(row.test)])
    parts = [f"{'' if mark is None else '✓ ' if mark else '✗ '}{strip_control(part)}" for mark, part in marked]
    wrapped = [line for part in parts for line in textwrap.wrap(part, 36)]
    return "\n".join(wrapped if len(wrapped) <= lines else [*wrapped[: lines - 1], "…"])


@lru_cache(maxsize=4)
def scenes(root: Path | str, dataset: str) -> dict:
    """The scene of each drawn image by its path; {} for photographs."""
    try:
        return {path: truth.scene for path, truth in read_scenes(find_dataset(root, dataset)).items()}
    except UserError:
        return {}


def sentence_marks(text: str, both: Sequence[object]) -> list[tuple[bool | None, str]]:
    """(whether it is true, sentence) of a rationale; one whole where the scenes of its images are not known."""
    return list(zip(judged(text, *both), sentences(text), strict=True)) if all(both) else [(None, text)]

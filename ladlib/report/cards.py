"""Images with words, as HTML: pairs with their masks, conversations, answers and rollouts.

``root`` is the folder that holds the datasets; a missing image raises :class:`ladlib.errors.UserError`.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ladlib.data import find_dataset
from ladlib.data.images import open_image
from ladlib.metrics import is_right
from ladlib.parsing import parse_answer
from ladlib.records import Anomaly, Conversation, Generation, Pair
from ladlib.report.formats import MISSING
from ladlib.results import NAMES
from ladlib.sanitize import escape_html, strip_control

LONGEST = 2_000  # characters of a text; the run keeps all of them
INK, GREY, RIGHT, WRONG = "#26323D", "#5A6570", "#00694E", "#A34500"  # 4.5 to 1 on white, as WCAG 2.2 asks
TEMPLATES = Environment(
    loader=PackageLoader("ladlib.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


def _shown(text: str) -> str:
    more = len(text) - LONGEST
    return strip_control(text[:LONGEST].strip(" ")) + (f" … ({more:,} more characters)" if more > 0 else "")


TEMPLATES.filters["shown"] = _shown
TEMPLATE = TEMPLATES.get_template("cards.html.j2")  # its macros escape what they show


def image_tag(image: bytes, alt: str, style: str = "", mime: str = "png") -> str:
    """HTML of an image no wider than its place; ``alt`` may hold any text."""
    return f"<img style='{style}max-width:100%' alt='{escape_html(alt)}' src='{data_url(image, mime)}'>"


def data_url(image: bytes, mime: str = "png") -> str:
    """The image inside a URL."""
    return f"data:image/{mime};base64," + base64.b64encode(image).decode("ascii")


def webp(path: Path, *masks: Path, side: int = 224) -> bytes:
    """The image as a small WebP file, its longest side at most ``side`` pixels, with what ``masks`` mark in red."""
    file, image = BytesIO(), open_image(path)
    image.thumbnail((side, side))
    image = Image.fromarray(defect_overlay(np.asarray(image), masks)) if masks else image
    image.save(file, "WEBP", quality=70)
    return file.getvalue()


def defect_overlay(image: np.ndarray, masks: Sequence[Path]) -> np.ndarray:
    """``image`` in grey with what any of ``masks`` marks in red; a defect of one pixel stays visible."""
    marked = np.maximum.reduce([np.asarray(Image.open(path).convert("L")) for path in masks]) > 0
    mask = Image.fromarray(marked.astype(np.uint8) * 255).resize(image.shape[1::-1], Image.Resampling.BOX)
    grey = image.mean(axis=2, keepdims=True) * 0.5 + 110
    red = 0.65 * np.array([213, 94, 0]) + 0.35 * image
    return np.where(np.asarray(mask)[..., None] > 0, red, grey).clip(0, 255).astype(np.uint8)


def _images(dataset: str, files: Mapping[str, str], root: Path | str) -> list[tuple[str, str, str]]:
    """(name, alt text, data URL) of each image."""
    folder = find_dataset(root, dataset)
    return [(name, f"{name}: {path}", data_url(webp(folder / path), "webp")) for name, path in files.items()]


def pairs(pairs: Sequence[Pair], root: Path | str, masks: bool = True) -> HTML:
    """A column per pair: reference image, test image and, with ``masks``, the defect in red on the test image."""
    columns = []
    for pair in pairs:
        test = pair.test
        title = f"{test.category}: {test.defect or 'good'}".replace("_", " ")
        images = _images(test.dataset, {"reference image": pair.reference, "test image": test.image}, root)
        if masks and test.masks:
            folder = find_dataset(root, test.dataset)
            marked = webp(folder / test.image, *(folder / path for path in test.masks))
            images.append(("defect", f"defect in red: {title}", data_url(marked, "webp")))
        columns.append((title, images))
    return HTML(TEMPLATE.module.columns(columns))


def one_per_defect(pairs: Iterable[Pair], kinds: Sequence[Anomaly] = ("logical", "structural")) -> list[Pair]:
    """The first pair of every defect of each category; all images of unknown defects."""
    firsts: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        if pair.test.anomaly in kinds:
            name = pair.test.id if pair.test.defect == "unknown" else pair.test.defect
            firsts.setdefault((pair.test.category, name), pair)
    return list(firsts.values())


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
            verdict, colour = ("right", RIGHT) if texts[number].strip() == one.answer.strip() else ("wrong", WRONG)
            lines.append((f"{name}, {verdict}: {texts[number]}", colour))
        files = {"reference image": one.pair.reference, "test image": one.pair.test.image}
        cards.append((_images(one.pair.test.dataset, files, root), lines))
    return HTML(TEMPLATE.module.cards(cards))


def answers(answers: pd.DataFrame, root: Path | str, n: int = 6) -> HTML:
    """Up to ``n`` cards of both images, verdict and completion, half of them wrong ones, in the order of the frame."""
    right = is_right(answers)
    wrongs = min(sum(~right), max(n // 2, n - sum(right)))
    parts = [(answers[right], min(n - wrongs, sum(right))), (answers[~right], wrongs)]
    chosen = [part.iloc[[index * len(part) // count for index in range(count)]] for part, count in parts]
    return HTML(TEMPLATE.module.cards([_answer(row, root) for row in pd.concat(chosen).sort_index().itertuples()]))


def _answer(row: Generation, root: Path | str) -> tuple[list, list]:
    """(images, lines of text) of an answer's card."""
    answer = parse_answer(row.text)
    verdict, colour = ("right", RIGHT) if answer == row.label else ("wrong", WRONG)
    p_yes = MISSING if pd.isna(row.p_yes) else f"{row.p_yes:.2f}"
    image = f"{row.anomaly} {row.defect.replace('_', ' ')}".strip()
    verdict += f": answers {answer or 'unparsed'} (P(anomalous) {p_yes}), image is {image}"
    lines = [(f"{NAMES.get(row.arm, row.arm)} · {row.id}", GREY), (verdict, colour), (row.text, INK)]
    return _images(row.dataset, {"reference image": row.reference, "test image": row.test}, root), lines


def tokens(pieces: Iterable[tuple[str, bool]]) -> HTML:
    """A token sequence, (text, carries loss) each; those with loss on blue and underlined, repeated ones counted."""
    return HTML(TEMPLATE.module.tokens([(*piece, len(list(run))) for piece, run in groupby(pieces)]))


def rollout(group: dict) -> HTML:
    """A group of rollouts: completions, rewards, and each advantage with a bar (blue up, orange down)."""
    names = ("text", "accuracy", "format", "reward")
    rows = [[*(str(one[name]) for name in names), one["advantage"]] for one in group["completions"]]
    title = f"step {group['step']}, {group['id']}: the label is {group['label']}"
    return HTML(TEMPLATE.module.table(title, ("completion", *names[1:], "advantage"), rows))

"""Images with words: pairs with their masks, conversations, answers and rollouts. What is HTML has alt text.

``root`` is the folder that holds the datasets; a missing image raises :class:`ladlib.errors.UserError`.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from ladlib.data import find_dataset
from ladlib.data.images import open_image
from ladlib.parsing import parse, parse_answer
from ladlib.records import Anomaly, Answer, Conversation, Generation, Pair, Sample
from ladlib.report.formats import MISSING
from ladlib.report.style import GREEN, GREY, INK, RED, canvas, image_tag, show_image, styled
from ladlib.rewards import accuracy_reward, format_reward
from ladlib.sanitize import escape_html

SIDE = 320  # longest side in pixels of an image on a card
LONGEST = 2_000  # characters of a text; the run keeps all of them
BOX = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0.2em 0"


# Pairs


@styled
def pairs(pairs: Sequence[Pair], root: Path | str, per_row: int = 5, masks: bool = True) -> Figure:
    """Pairs in columns: normal reference image, test image and, with ``masks``, the defect in red on the test image."""
    high, lines = 2 + masks, -(-len(pairs) // per_row)
    across = min(per_row, max(1, len(pairs)))
    figure = canvas(2.1 * max(2, across), (0.4 + 1.8 * high) * lines)
    figure.set_dpi(72)  # photographs compress badly
    grid = figure.subplots(high * lines, across, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for number, pair in enumerate(pairs):
        column = grid[number // across * high :, number % across][:high]
        folder = find_dataset(root, pair.test.dataset)
        images = [small(open_image(folder / path)) for path in (pair.reference, pair.test.image)]
        for axes, image in zip(column, images, strict=False):
            axes.axis("on")
            show_image(axes, image)
        if masks:
            _show_defect(column[2], images[1], pair, folder)
        column[0].set_title(textwrap.fill(title(pair.test), 24), loc="center", fontsize=9)
        if number % across == 0:
            for axes, name in zip(column, ("reference image", "test image", "defect"), strict=False):
                axes.set_ylabel(name)
    return figure


def _show_defect(axes: object, image: np.ndarray, pair: Pair, folder: Path) -> None:
    if not pair.test.masks:
        text = "no defect" if pair.test.anomaly == "good" else "no mask"
        axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)
        return
    axes.axis("on")
    show_image(axes, defect_overlay(image, [folder / path for path in pair.test.masks]))


def defect_overlay(image: np.ndarray, masks: Sequence[Path]) -> np.ndarray:
    """``image`` in grey with what any of ``masks`` marks in red; a defect of one pixel stays visible."""
    mask = Image.fromarray(merged_mask(masks)).resize(image.shape[1::-1], Image.Resampling.BOX)
    grey = image.mean(axis=2, keepdims=True) * 0.5 + 110
    red = 0.65 * 255 * np.array(to_rgb(RED)) + 0.35 * image
    return np.where(np.asarray(mask)[..., None] > 0, red, grey).clip(0, 255).astype(np.uint8)


def merged_mask(masks: Sequence[Path]) -> np.ndarray:
    """All masks of an image in one, (height, width): 255 where any of them marks a defect, else 0."""
    marked = np.maximum.reduce([np.asarray(Image.open(path).convert("L")) for path in masks]) > 0
    return marked.astype(np.uint8) * 255


def title(sample: Sample) -> str:
    """The category and, of an anomalous image, its defect and kind."""
    defect = f"{sample.defect} ({sample.anomaly})" if sample.defect else "good"
    return f"{sample.category}: {defect}".replace("_", " ")


def one_per_defect(pairs: Iterable[Pair], kinds: Sequence[Anomaly] = ("logical", "structural")) -> list[Pair]:
    """The first pair of every defect of each category; all images of unknown defects."""
    firsts: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        if pair.test.anomaly in kinds:
            name = pair.test.id if pair.test.defect == "unknown" else pair.test.defect
            firsts.setdefault((pair.test.category, name), pair)
    return list(firsts.values())


def small(image: Image.Image, side: int = SIDE) -> np.ndarray:
    """The image in RGB, (height, width, 3), its longest side at most ``side`` pixels."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    return np.asarray(image)


def webp(path: Path, *masks: Path, side: int = SIDE) -> bytes:
    """The image as a small WebP file, with what ``masks`` mark in red."""
    file, image = BytesIO(), small(open_image(path), side)
    image = defect_overlay(image, masks) if masks else image
    Image.fromarray(image).save(file, "WEBP", quality=70)
    return file.getvalue()


# Texts


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
        cards.append(_card(one.pair.test.dataset, one.pair.reference, one.pair.test.image, root, lines))
    return HTML("".join(cards))


def answers(answers: pd.DataFrame, root: Path | str, n: int = 6) -> HTML:
    """Up to ``n`` cards of both images, verdict and completion: right answers, then wrong ones, half of each."""
    is_right = answers["text"].map(parse_answer) == answers["label"]
    right, wrong = answers[is_right], answers[~is_right]
    wrongs = min(len(wrong), max(n // 2, n - len(right)))
    chosen = pd.concat([_evenly(right, n - wrongs), _evenly(wrong, wrongs)])
    return HTML("".join(_answer(row, root) for row in chosen.itertuples()))


def _evenly(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    n = min(n, len(rows))
    return rows.iloc[[number * len(rows) // n for number in range(n)]]


def _answer(row: Generation, root: Path | str) -> str:
    colour = GREEN if parse_answer(row.text) == row.label else RED
    lines = [(row.id, GREY), (verdict(row), colour), (row.text, INK)]
    return _card(row.dataset, row.reference, row.test, root, lines)


def verdict(row: Generation) -> str:
    """One line: whether the answer is right, what it is, and what the image is."""
    answer, kind = parse_answer(row.text), f"{row.anomaly} {row.defect.replace('_', ' ')}".strip()
    p_yes = MISSING if pd.isna(row.p_yes) else f"{row.p_yes:.2f}"
    mark = "right" if answer == row.label else "wrong"
    return f"{mark}: answers {answer or 'unparsed'} (P(anomalous) {p_yes}), image is {kind}"


def _card(dataset: str, reference: str, test: str, root: Path | str, lines: Iterable[tuple[str, str]]) -> str:
    folder = find_dataset(root, dataset)
    images = "".join(
        f"<figure style='margin:0;flex:0 0 9em'>{image_tag(webp(folder / path), f'{name}: {path}', mime='webp')}"
        f"<figcaption><small>{name}</small></figcaption></figure>"
        for name, path in (("reference image", reference), ("test image", test))
    )
    texts = "".join(f"<p style='{BOX};color:{colour}'>{_cut(text)}</p>" for text, colour in lines)
    look = "display:flex;gap:0.8em;flex-wrap:wrap;margin:0.6em 0;padding:0.5em;border:1px solid #cfd7de"
    return f"<article style='{look}'>{images}<div style='flex:1 1 20em;min-width:0'>{texts}</div></article>"


def _cut(text: str) -> str:
    more = len(text) - LONGEST
    return escape_html(text[:LONGEST].strip()) + (f" … ({more:,} more characters)" if more > 0 else "")


def tokens(pieces: Iterable[tuple[str, bool]]) -> HTML:
    """A token sequence, (text, carries loss) each; those with loss on blue and underlined, repeated ones counted."""
    spans = []
    for (text, has_loss), run in groupby(pieces):
        count, look = (
            len(list(run)),
            "background:#9CCBE8;border-bottom:2px solid #0072B2" if has_loss else "color:#6B7683",
        )
        shown = escape_html(text).replace("\n", "↵\n") + (f" × {count}" if count > 1 else "")
        spans.append(f"<span style='{look}'>{shown}</span>")
    return HTML(f"<div style='font-family:monospace;font-size:12px;line-height:1.7;{BOX}'>{''.join(spans)}</div>")


def rewards(completions: Sequence[str], label: Answer) -> HTML:
    """What the parser reads in each completion, and its two rewards."""
    rows = [
        {"completion": text, "thinking": "yes" if parse(text).think else "no",
         "answer": parse_answer(text) or "unparsed",
         "accuracy": f"{accuracy_reward(text, label):.0f}", "format": f"{format_reward(text):.0f}"}
        for text in completions
    ]  # fmt: skip
    return _table(f"The image's label is {label}", rows)


def rollout(group: dict) -> HTML:
    """A group of rollouts: completions, rewards, and each advantage with a bar (blue up, orange down)."""
    rows = [
        {"completion": one["text"], "accuracy": f"{one['accuracy']:.0f}", "format": f"{one['format']:.0f}",
         "reward": f"{one['reward']:.2f}", "advantage": one["advantage"]}
        for one in group["completions"]
    ]  # fmt: skip
    return _table(f"step {group['step']}, {group['id']}: the label is {group['label']}", rows)


def _table(caption: str, rows: Sequence[Mapping[str, str | float]]) -> HTML:
    look = "style='text-align:left;vertical-align:top;padding:0.2em 0.6em'"
    head = "".join(f"<th scope='col' {look}>{name}</th>" for name in rows[0])
    lines = "".join(f"<tr>{''.join(f'<td {look}>{_cell(value)}</td>' for value in row.values())}</tr>" for row in rows)
    title = f"<caption style='text-align:left'>{_cut(caption)}</caption>"
    return HTML(f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>")


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f"<div style='{BOX};max-width:46em'>{_cut(value)}</div>"
    colour, width = ("#9CCBE8" if value > 0 else "#F2B48A"), min(2.5, abs(value)) * 2
    return f"{value:+.2f}<div style='background:{colour};height:0.5em;width:{width:.2f}em'></div>"


def has_spread(group: dict) -> bool:
    """Whether two completions of the group have different rewards."""
    return len({one["reward"] for one in group["completions"]}) > 1


def first_with_spread(groups: Sequence[dict]) -> dict | None:
    """The first group whose rewards differ, else the first; None of no group."""
    return next(filter(has_spread, groups), next(iter(groups), None))


def conditions(variations: pd.DataFrame, root: Path | str) -> HTML:
    """The pair whose answers differ most, a card per condition: the two images as the model saw them, its answer."""
    chosen = variations[variations["factor"].isin(["none", "blind", "swapped", "reference"])]
    chosen = chosen.drop_duplicates(["id", "factor"]).assign(parsed=lambda rows: rows["text"].map(parse_answer))
    pair = chosen.groupby("id", sort=False)["parsed"].nunique(dropna=False).idxmax()
    cards = []
    for row in chosen[chosen["id"] == pair].itertuples():
        paths = {"reference": row.reference, "test": row.test}
        colour = GREEN if row.parsed == row.label else RED
        title = f"{row.id}, {row.factor} {row.level}".replace("none", "as evaluated")
        lines = [(title, INK), (verdict(row), colour), (row.text, INK)]
        cards.append(_card(row.dataset, paths[row.shown[0]], paths[row.shown[1]], root, lines))
    return HTML("".join(cards))

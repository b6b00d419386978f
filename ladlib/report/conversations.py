"""What stage 1 shows and asks: conversations with their images, and the tokens that carry the loss.

>>> HTML(highlighted([("Question? ", False), ("Yes.", True)]))  # doctest: +SKIP
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ladlib.data import find_dataset
from ladlib.data.images import open_image
from ladlib.records import Conversation
from ladlib.report.pictures import small, wrap
from ladlib.report.style import GREY, INK, RIGHT, WRONG, bare, canvas, frame, strip_control, styled

BOX = "font-family:monospace;font-size:12px;line-height:1.7;white-space:pre-wrap;word-break:break-word"
LEARNED = "background:#9CCBE8;border-radius:3px;padding:1px 2px;margin:0 1px"
READ = "color:#6B7683"
CARD = 2.6  # inches: the least height of a card
LINE, GAP = 13.2, 9.0  # points: a line of a card, and the space below a part


def highlighted(pieces: Iterable[tuple[str, bool]]) -> str:
    """HTML of a token sequence: (text, carries loss) each. Runs of the same token are written once with a count."""
    spans = [
        f"<span style='{LEARNED if learned else READ}'>{_shown(text)}{f' × {count}' if count > 1 else ''}</span>"
        for text, learned, count in _runs(pieces)
    ]
    return f"<div style='{BOX}'>{''.join(spans)}</div>"


def _runs(pieces: Iterable[tuple[str, bool]]) -> list[tuple[str, bool, int]]:
    runs: list[tuple[str, bool, int]] = []
    for text, learned in pieces:
        if runs and runs[-1][:2] == (text, learned):
            runs[-1] = (text, learned, runs[-1][2] + 1)
        else:
            runs.append((text, learned, 1))
    return runs


def _shown(text: str) -> str:
    return escape(strip_control(text)).replace("\n", "↵\n")


def kinds_frame(conversations: Iterable[Conversation]) -> pd.DataFrame:
    """A row a type of question: how many, about how many images, and one answer of each."""
    frame = pd.DataFrame([{"type": one.kind, "image": one.pair.id, "an answer": one.answer} for one in conversations])
    told = frame.groupby("type").agg(
        **{"conversations": ("image", "size"), "images": ("image", "nunique"), "an answer": ("an answer", "first")}
    )
    return told.sort_values("conversations", ascending=False).reset_index()


@styled
def conversation_cards(
    conversations: Sequence[Conversation], root: Path | str, answers: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """A card a conversation: the two images, the question, the right answer, and what was answered.

    ``answers`` maps a name ("before SFT") to one answer a conversation; green where it is the right one.
    ``root`` holds the datasets.
    """
    words = [
        _words(one, {name: texts[number] for name, texts in (answers or {}).items()})
        for number, one in enumerate(conversations)
    ]
    heights = [max(CARD, _points(lines) / 72) for lines in words] or [CARD]
    figure = canvas(10, sum(heights))
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, one, lines in zip(parts, conversations, words, strict=False):
        panels = part.subplots(1, 3, width_ratios=[1, 1, 3])
        folder = find_dataset(root, one.pair.test.dataset)
        for axes, path, name in zip(
            panels, (one.pair.reference, one.pair.test.image), ("reference", "test"), strict=False
        ):
            bare(axes)
            axes.imshow(small(open_image(folder / path)))
            axes.set_xlabel(f"{name} image", fontsize=8)
            frame(axes, GREY, 1)
        _write(panels[2], lines)
    return figure


def _words(one: Conversation, answers: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(text, its colour, its weight) of each part of a card, from the top down."""
    lines = [
        (f"{one.kind} · {one.pair.id}", GREY, "normal"),
        (one.question, INK, "normal"),
        ("right: " + one.answer, INK, "bold"),
    ]
    for name, text in answers.items():
        lines.append((f"{name}: {text.strip()}", RIGHT if is_answered(one, text) else WRONG, "bold"))
    return [(wrap(text, 74, lines=9), colour, weight) for text, colour, weight in lines]


def _points(lines: Sequence[tuple[str, str, str]]) -> float:
    """How high the parts are, one below the other."""
    return sum(LINE * (text.count("\n") + 1) + GAP for text, *_ in lines)


def _write(axes: Axes, lines: Sequence[tuple[str, str, str]]) -> None:
    axes.axis("off")
    for number, (text, colour, weight) in enumerate(lines):
        axes.annotate(
            text, (0, 1), xycoords="axes fraction", xytext=(0, -_points(lines[:number])), textcoords="offset points",
            va="top", parse_math=False, in_layout=False, linespacing=1.25, fontsize=9, color=colour, weight=weight,
        )  # fmt: skip


def is_answered(conversation: Conversation, text: str) -> bool:
    """Whether ``text`` is the right answer, word for word."""
    return text.strip() == conversation.answer.strip()


def right_frame(conversations: Sequence[Conversation], answers: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Share of answers that are the right one word for word, a row a type of question, a column an asked model."""
    rows = pd.DataFrame({"type": [one.kind for one in conversations]})
    for name, texts in answers.items():
        rows[name] = [is_answered(one, text) for one, text in zip(conversations, texts, strict=True)]
    grouped = rows.groupby("type")
    shares = grouped[list(answers)].mean().map("{:.0%}".format)
    return shares.assign(questions=grouped.size()).reset_index()

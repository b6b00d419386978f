"""Figures of images: a gallery with masks, and generations beside the two images they are about."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from ladlib.data.images import open_image
from ladlib.metrics import is_right
from ladlib.parsing import parse_answer
from ladlib.records import Generation
from ladlib.report.style import GREY, RED, RIGHT, WRONG, bare, canvas, frame, strip_control, styled
from ladlib.report.tables import MISSING

Picture = Image.Image | np.ndarray
SHOWN = 640  # longest side in pixels of a picture inside a figure


@styled
def gallery(rows: Sequence[tuple[str, Picture, Picture, Picture | str | None]], per_line: int = 5) -> Figure:
    """Titled columns of three: the normal reference image, the test image, and its mask laid over it.

    A mask is an image or array of the test image's size, anything above 0 being the defect; None for good
    images, and a text where there is none to show.
    """
    lines = [rows[start : start + per_line] for start in range(0, len(rows), per_line)]
    figure = canvas(2.1 * per_line, 5.7 * len(lines))
    figure.set_dpi(72)  # photographs compress badly, and an executed notebook shows many
    grid = figure.subplots(3 * len(lines), per_line, squeeze=False)
    for axes in grid.flat:
        bare(axes)
        axes.axis("off")
    for number, line in enumerate(lines):
        for axes, row in zip(grid[3 * number : 3 * number + 3].T, line, strict=False):
            _column(axes, *row)
        for axes, name in zip(
            grid[3 * number : 3 * number + 3, 0], ("reference image", "test image", "defect"), strict=True
        ):
            axes.set_ylabel(name)
    return figure


def _column(axes: Sequence[Axes], title: str, reference: Picture, test: Picture, mask: Picture | str | None) -> None:
    axes[0].set_title(textwrap.fill(title, 24), loc="center", fontsize=9, parse_math=False)
    third = mask if isinstance(mask, str) else _overlaid(test, mask)
    shown = (small(reference), small(test), "no defect" if third is None else third)
    for panel, picture, colour in zip(axes, shown, (RIGHT, GREY, GREY), strict=True):
        if isinstance(picture, str):
            panel.text(0.5, 0.5, picture, ha="center", va="center", transform=panel.transAxes, color=GREY)
        else:
            panel.axis("on")
            panel.imshow(picture)
            frame(panel, colour, 1.2)


def small(picture: Picture) -> np.ndarray:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
    image = image.convert("RGB")
    image.thumbnail((SHOWN, SHOWN))
    return np.asarray(image)


def _overlaid(test: Picture, mask: Picture | None) -> np.ndarray | None:
    """The test image greyed, the defect in red on it."""
    if mask is None:
        return None
    picture = small(test).astype(float)
    where = Image.fromarray((np.asarray(mask) > 0).astype(np.uint8) * 255)
    # The largest value of a block, not its mean: a defect of a few pixels must stay visible.
    marked = np.asarray(where.resize(picture.shape[1::-1], Image.Resampling.BOX)) > 0
    grey = picture.mean(axis=2, keepdims=True) * 0.5 + 110
    red = 0.65 * 255 * np.array(to_rgb(RED)) + 0.35 * picture
    return np.where(marked[..., None], red, grey).clip(0, 255).astype(np.uint8)


@styled
def generation_cards(generations: Sequence[Generation], root: Path | str, n: int = 6) -> Figure:
    """Cards, each of a reference image, test image, completion and verdict; right ones first.

    There are up to ``n``. Half of them show right answers and half wrong ones as far as there are that many, each taken
    evenly from the order given. ``root`` is the dataset folder that the image paths are relative to.
    """
    chosen = choose(generations, n)
    figure = canvas(9, 2.15 * max(1, len(chosen)))
    parts = np.atleast_1d(figure.subfigures(max(1, len(chosen)), 1))
    for part, generation in zip(parts, chosen, strict=False):
        _card(part, generation, Path(root))
    return figure


def choose(generations: Sequence[Generation], n: int) -> list[Generation]:
    """Right answers, then wrong ones: half each as far as there are that many, evenly spaced."""
    right = [one for one in generations if is_right(one)]
    wrong = [one for one in generations if not is_right(one)]
    wrongs = min(len(wrong), max(n // 2, n - len(right)))
    return _spread(right, n - wrongs) + _spread(wrong, wrongs)


def _spread(rows: list[Generation], count: int) -> list[Generation]:
    count = min(count, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


def _card(part: SubFigure, generation: Generation, root: Path) -> None:
    right = is_right(generation)
    colour = RIGHT if right else WRONG
    panels = part.subplots(1, 3, width_ratios=[1, 1, 2.6])
    for axes, path, title in zip(panels, (generation.reference, generation.test), ("reference", "test"), strict=False):
        bare(axes)
        axes.imshow(small(open_image(root / path)))
        axes.set_xlabel(f"{title} image", fontsize=8)
        frame(axes, colour, 3)
    panels[2].axis("off")
    texts = (
        (1.0, generation.id, {"fontsize": 8, "color": GREY}),
        (0.9, wrap(verdict(generation), 66, lines=2), {"fontsize": 9, "weight": "bold", "color": colour}),
        (0.68, wrap(generation.text, 68, lines=9), {"fontsize": 8, "family": "DejaVu Sans Mono"}),
    )
    for height, text, look in texts:
        # Out of the layout: a long text would push the images of its card out of line with the others.
        panels[2].text(0, height, text, va="top", parse_math=False, in_layout=False, linespacing=1.3, **look)


def verdict(generation: Generation) -> str:
    """One line: what the image is, what was answered, and whether that is right."""
    kind = " ".join(filter(None, (generation.anomaly, generation.defect.replace("_", " "))))
    answer = parse_answer(generation.text) or "unparsed"
    mark = "right" if is_right(generation) else "wrong"
    p_yes = MISSING if generation.p_yes is None else f"{generation.p_yes:.2f}"
    return f"{mark}: answers {answer} (P(anomalous) {p_yes}), image is {kind}"


def wrap(text: str, width: int, lines: int) -> str:
    wrapped = [part for line in strip_control(text).split("\n") for part in textwrap.wrap(line, width) or [""]]
    return "\n".join(wrapped[: lines - 1] + ["…"] if len(wrapped) > lines else wrapped)

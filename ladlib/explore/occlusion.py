"""Occlusion: P(anomalous) again, with one square of the test image after the other painted grey.

    maps = occlude(judge, reference, test)

Where the number falls, that square held something the verdict hung on (Zeiler and Fergus, 2014, section 4.1). This is
what it is and no more: an answer to another picture, with a rationale of its own. It is not attention, and a grey
square is itself a part out of place, so a rise may be the square and not what it hides.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ladlib.conversations import view
from ladlib.data.images import FACTOR
from ladlib.explore.judge import Judge, told
from ladlib.explore.view import Explorer, choice, explorer, note, picture, side_by_side
from ladlib.records import Pair
from ladlib.report.samples import title
from ladlib.report.style import bare, canvas, styled

GREY_FILL = (128, 128, 128)
MOST = 64  # squares: each is one more answer


def occlusion(judge: Judge, pairs: Sequence[Pair], folder: Path) -> Explorer:
    """A menu of pairs, and for each the map of what P(anomalous) becomes under each grey square."""
    named = [(f"{number}. {title(one.test)}", number - 1) for number, one in enumerate(pairs, 1)]
    data = judge.profile.data
    seen = [
        [view(folder / path, data.min_pixels, data.max_pixels) for path in (one.reference, one.test.image)]
        for one in pairs
    ]
    return explorer("Occlusion", lambda number: _view(judge, *seen[number]), number=choice("Pair", named))


def squares(size: tuple[int, int], most: int = MOST) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each square of an image of ``size``, row by row; at most ``most`` of them.

    A square is one visual token (28 pixels a side), or a block of so many as keeps to ``most``.
    """
    side = FACTOR
    while -(-size[0] // side) * -(-size[1] // side) > most:
        side += FACTOR
    return [
        (left, top, min(left + side, size[0]), min(top + side, size[1]))
        for top in range(0, size[1], side)
        for left in range(0, size[0], side)
    ]


def greyed(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """``image`` with one square painted grey."""
    hidden = image.copy()
    hidden.paste(GREY_FILL, box)
    return hidden


def occlude(judge: Judge, reference: Image.Image, test: Image.Image) -> list[tuple[tuple[int, int, int, int], float]]:
    """Each square of the test image, as the model sees it, with P(anomalous) when it is grey."""
    boxes = squares(test.size)
    found = judge([(reference, greyed(test, box)) for box in boxes])
    return [(box, one.p_yes) for box, one in zip(boxes, found, strict=True)]


def _view(judge: Judge, reference: Image.Image, test: Image.Image) -> str:
    (whole,) = judge([(reference, test)])
    hidden = occlude(judge, reference, test)
    box, lowest = min(hidden, key=lambda one: one[1])
    alt = (
        f"The test image under a map of P(anomalous) with each square greyed: {whole.p_yes:.2f} as it is, at the "
        f"lowest {lowest:.2f} with the square at {box[0]}, {box[1]} greyed"
    )
    shown = picture(_map(test, hidden, whole.p_yes), alt)
    pair = picture(reference, "The reference image", 2 * reference.width) + note("reference image")
    said = "Occlusion, not attention: each number is P(anomalous) when that square of the test image is greyed."
    return side_by_side(pair, shown, told(whole)) + note(said)


@styled
def _map(test: Image.Image, hidden: Sequence[tuple[tuple[int, int, int, int], float]], whole: float) -> Figure:
    """The test image; a square is orange where greying it lowers P(anomalous), blue where it raises it."""
    figure = canvas(0.5 + test.width / 48, 0.7 + test.height / 48)
    axes = figure.subplots()
    bare(axes)
    change = np.zeros((test.height, test.width))
    for (left, top, right, bottom), p_yes in hidden:
        change[top:bottom, left:right] = p_yes - whole
    axes.imshow(Image.blend(test, Image.new("RGB", test.size, "white"), 0.5), interpolation="nearest")
    axes.imshow(-change, cmap="PuOr_r", vmin=-1, vmax=1, alpha=np.clip(np.abs(change), 0.05, 0.8))
    for (left, top, right, bottom), p_yes in hidden:
        axes.text((left + right) / 2, (top + bottom) / 2, f"{p_yes:.2f}", ha="center", va="center", fontsize=7)
    axes.set_title(f"P(anomalous) as it is: {whole:.2f}", fontsize=9)
    return figure

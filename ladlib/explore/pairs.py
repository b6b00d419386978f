"""The pair browser: any pair of a dataset, with its mask, and with what the model's processor makes of it.

pair_browser(pairs, find_dataset(root, "mvtec_loco"), settings, processor)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw

from ladlib.config import Data
from ladlib.conversations import view
from ladlib.data.images import FACTOR, open_image, tokens
from ladlib.explore.view import Explorer, choice, explorer, note, picture, side_by_side
from ladlib.records import Pair
from ladlib.report.samples import mask, title
from ladlib.report.style import ORANGE, SKY

if TYPE_CHECKING:  # torch is loaded only where a processor is
    from ladlib.models import PairProcessor

WIDTH = 260  # pixels of the page that a picture takes
AS_STORED, AS_SEEN = "as stored", "as the processor sees it, in patches"
ALL = "all"


def pair_browser(pairs: Sequence[Pair], folder: Path, data: Data, processor: "PairProcessor") -> Explorer:
    """Menus of category and defect, a slider over their pairs, stored or seen pixels, the mask and the label on or off.

    ``folder`` is the dataset's own. Raises :class:`UserError` where there is no pair.
    """
    category = choice("Category", sorted({one.test.category for one in pairs}))
    defect = choice("Defect", defects_of(pairs, category.value))
    own = matching(pairs, category.value, ALL)
    first = next((at for at, one in enumerate(own, 1) if one.test.label == "yes"), 1)
    number = ipywidgets.IntSlider(first, min=1, max=len(own), description="Pair", tooltip="Of those chosen above")
    pixels = choice("Pixels", [AS_SEEN, AS_STORED])
    masked = ipywidgets.Checkbox(False, description="Show the mask", tooltip="Orange: where the defect is")
    hidden = ipywidgets.Checkbox(False, description="Let me guess", tooltip="Hides the label and the files' names")

    def draw(category: str, defect: str, number: int, pixels: str, masked: bool, hidden: bool) -> str:
        found = matching(pairs, category, defect) or matching(pairs, category, ALL)  # a menu may lag behind the other
        one = found[min(number, len(found)) - 1]
        return _shown(one, folder, data, processor, pixels, masked and not hidden, hidden)

    def follow(_: dict) -> None:
        defect.options = defects_of(pairs, category.value)

    def count(_: dict) -> None:
        number.max = max(1, len(matching(pairs, category.value, defect.value)))

    category.observe(follow, names="value")
    for one in (category, defect):
        one.observe(count, names="value")
    menus, boxes = {"category": category, "defect": defect}, {"masked": masked, "hidden": hidden}
    return explorer("Pair browser", draw, **menus, number=number, pixels=pixels, **boxes)


def defects_of(pairs: Sequence[Pair], category: str) -> list[str]:
    """What the menu of defects offers: all, good, and each defect of the category."""
    return [ALL, *sorted({_name(one) for one in pairs if one.test.category == category})]


def matching(pairs: Sequence[Pair], category: str, defect: str) -> list[Pair]:
    """The pairs of one category and, unless it is "all", one defect ("good" for none)."""
    return [one for one in pairs if one.test.category == category and defect in (ALL, _name(one))]


def _name(one: Pair) -> str:
    return one.test.defect or "good"


def seen_pixels(image: Image.Image, processor: "PairProcessor") -> Image.Image:
    """The picture put together again from the patches that the processor hands to the model.

    Its rows are patches of 14 x 14 in the order of the merged 2 x 2 squares, normalised; this undoes both.
    """
    made = processor.image_processor(images=[image], return_tensors="np")
    side, merge = processor.image_processor.patch_size, processor.image_processor.merge_size
    _, high, wide = (int(one) for one in np.asarray(made["image_grid_thw"])[0])
    patches = np.asarray(made["pixel_values"]).reshape(high // merge, wide // merge, merge, merge, 3, -1, side, side)
    one_frame = patches[:, :, :, :, :, 0]  # a still picture is doubled to two equal frames
    pixels = one_frame.transpose(0, 2, 5, 1, 3, 6, 4).reshape(high * side, wide * side, 3)
    pixels = pixels * np.array(processor.image_processor.image_std) + np.array(processor.image_processor.image_mean)
    return Image.fromarray(np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8))


def with_grid(image: Image.Image, times: int = 3) -> Image.Image:
    """``image`` enlarged, cut by thin lines into patches (14 pixels) and by bold ones into visual tokens (28)."""
    large = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large)
    for step, wide in ((FACTOR // 2, 1), (FACTOR, 3)):
        for at in range(step * times, large.width, step * times):
            draw.line((at, 0, at, large.height), fill=SKY, width=wide)
        for at in range(step * times, large.height, step * times):
            draw.line((0, at, large.width, at), fill=SKY, width=wide)
    return large


def with_mask(image: Image.Image, marked: np.ndarray) -> Image.Image:
    """``image`` with the defect's mask, (height, width), laid over it in orange."""
    where = Image.fromarray(np.where(marked > 0, 150, 0).astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", image.size, ORANGE), image, where)


def _shown(
    one: Pair, folder: Path, data: Data, processor: "PairProcessor", pixels: str, masked: bool, hidden: bool
) -> str:
    found, parts = mask(one, folder) if masked else None, []
    told = ["Normal or anomalous, and why?"] if hidden else [title(one.test), f"label {one.test.label}"]
    for name, path in (("reference image", one.reference), ("test image", one.test.image)):
        image = (
            open_image(folder / path) if pixels == AS_STORED else view(folder / path, data.min_pixels, data.max_pixels)
        )
        size = f"{image.width} × {image.height} pixels"
        if pixels == AS_SEEN:
            size += f", {tokens(image.size)} visual tokens"
            image = seen_pixels(image, processor)
        if name == "test image" and isinstance(found, np.ndarray):
            image = with_mask(image, found)
        image = with_grid(image) if pixels == AS_SEEN else image
        image.thumbnail((640, 640))
        told_of = f"{name}\n{size}" if hidden else f"{name}: {path}\n{size}"
        parts.append(picture(image, f"{name} of {one.test.category}", WIDTH) + note(told_of))
    told += ["no mask of this image"] if masked and not isinstance(found, np.ndarray) else []
    return note(", ".join(told)) + side_by_side(*parts)

"""Controls above a view that follows them, and a snapshot of the view as plain HTML.

    Explorer("Letters", lambda letter: note(letter), letter=menu("Letter", ["a", "b"]))

A widget lives as long as its kernel. An executed copy, a page and an export keep only what a cell displayed, so each
explorer also displays its first view as HTML, which is hidden where the widget is. Views are HTML text: whatever in
them comes from a model, a file or a person is escaped where it is put in.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import ipywidgets
import numpy as np
from IPython.display import HTML, display
from PIL import Image, ImageColor

from ladlib.data.images import FACTOR
from ladlib.errors import UserError
from ladlib.parsing import parse_answer
from ladlib.records import Completion
from ladlib.report.style import ORANGE, SKY, image_tag
from ladlib.sanitize import escape_html

WIDTH = 240  # pixels of the page that an image takes
GREY_TEXT = "#5A6570"  # 4.5 to 1 on white, as WCAG 2.2 asks for small letters
CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:break-word;padding:2px 10px 2px 0"
HIDDEN_BESIDE_WIDGET = "<style>.jp-OutputArea:has(.widget-vbox) .ladlib-still{display:none}</style>"
FULL = 2.0  # the advantage, or the change in nats, from which on a colour is at its strongest
VERDICTS = {"yes": "anomalous", "no": "good", None: "unparsed answer"}


class Explorer(ipywidgets.VBox):
    """Controls by name above the HTML that ``draw`` makes of their values, or the text of a :class:`UserError`."""

    def __init__(self, title: str, draw: Callable[..., str], **controls: ipywidgets.Widget) -> None:
        self.title, self.controls, self._draw = title, controls, draw
        self.view = ipywidgets.HTML(self._html())
        super().__init__([*controls.values(), self.view])
        for control in controls.values():
            control.layout = ipywidgets.Layout(width="32em", max_width="100%")
            control.style = {"description_width": "9em"}
            control.tooltip = control.tooltip or control.description
            control.observe(self._follow, names="value")

    @property
    def still(self) -> str:
        """The present view as HTML that needs neither a kernel nor a script."""
        label = f"{escape_html(self.title)}, snapshot. Run this cell to interact."
        caption = f"<figcaption><small style='color:{GREY_TEXT}'>{label}</small></figcaption>"
        figure = f"<figure class='ladlib-still' style='margin:0.5em 0'>{self.view.value}{caption}</figure>"
        return HIDDEN_BESIDE_WIDGET + figure

    def _repr_mimebundle_(self, **options: object) -> dict | tuple[dict, dict]:
        display(HTML(self.still))
        return super()._repr_mimebundle_(**options)

    def _follow(self, change: dict) -> None:
        self.view.value = self._html()

    def _html(self) -> str:
        try:
            inside = self._draw(**{name: control.value for name, control in self.controls.items()})
        except UserError as error:
            inside = note(str(error))
        label = escape_html(self.title)
        return f"<div role='region' aria-live='polite' aria-label='{label}' style='line-height:1.4'>{inside}</div>"


def menu(description: str, options: Sequence, tooltip: str = "") -> ipywidgets.Dropdown:
    """A menu with its first option chosen. Raises :class:`UserError` where there is none."""
    if not options:
        raise UserError(f"There is no {description.lower()} to choose from.", "Run the cells and notebooks before.")
    return ipywidgets.Dropdown(options=options, description=description, tooltip=tooltip)


def note(text: str) -> str:
    """A sentence in grey."""
    return f"<p style='color:{GREY_TEXT};margin:0.4em 0;white-space:pre-line'>{escape_html(text)}</p>"


def table(headings: list[str], rows: list[list[str]], caption: str = "") -> str:
    """A table of cells that are HTML already; headings and caption are plain text."""
    heads = "".join(f"<th scope='col' style='{CELL};white-space:nowrap'>{escape_html(text)}</th>" for text in headings)
    lines = "".join(f"<tr>{''.join(f'<td style={CELL!r}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    title = f"<caption>{escape_html(caption)}</caption>" if caption else ""
    body = f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody>"
    return f"<table style='border-collapse:collapse'>{title}{body}</table>"


def picture(image: Image.Image, alt: str) -> str:
    """An image inside the page; ``alt`` is what a screen reader says of it."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return image_tag(file.getvalue(), alt, f"width:{WIDTH}px;image-rendering:pixelated;")


def side_by_side(*parts: str) -> str:
    """Parts in a row that wraps where the page is narrow."""
    boxes = "".join(f"<div>{part}</div>" for part in parts)
    return f"<div style='display:flex;flex-wrap:wrap;gap:1.2em;align-items:flex-start'>{boxes}</div>"


def answered(completion: Completion) -> str:
    """A verdict with its P(anomalous) and its raw rationale, as HTML."""
    verdict = f"<p><b>{VERDICTS[parse_answer(completion.text)]}</b>, P(anomalous) = {completion.p_yes:.2f}</p>"
    look = "font-family:monospace;white-space:pre-wrap;max-width:40em"
    cut = note("Truncated at the token limit.") if completion.finish == "length" else ""
    return f"{verdict}<p style='{look}'>{escape_html(completion.text)}</p>{cut}"


def processed(image: Image.Image, processor: object) -> Image.Image:
    """The image put together again from the patches that the processor hands to the model.

    Its rows are patches of 14 x 14 in the order of the merged 2 x 2 squares, normalised; this undoes both.
    """
    settings = processor.image_processor
    output, side, merge = settings(images=[image], return_tensors="np"), settings.patch_size, settings.merge_size
    _, high, wide = (int(size) for size in np.asarray(output["image_grid_thw"])[0])
    patches = np.asarray(output["pixel_values"]).reshape(high // merge, wide // merge, merge, merge, 3, -1, side, side)
    still = patches[:, :, :, :, :, 0]  # a still image is doubled to two equal frames
    pixels = still.transpose(0, 2, 5, 1, 3, 6, 4).reshape(high * side, wide * side, 3)
    pixels = pixels * np.array(settings.image_std) + np.array(settings.image_mean)
    return Image.fromarray(np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8))


def with_grid(image: Image.Image, times: int = 3) -> Image.Image:
    """``image`` enlarged, cut by thin lines into patches (14 pixels) and by bold ones into visual tokens (28)."""
    pixels = np.asarray(image).repeat(times, 0).repeat(times, 1)
    for step, width in ((FACTOR // 2, 1), (FACTOR, 3)):
        for offset in range(width):
            pixels[offset :: step * times] = pixels[:, offset :: step * times] = ImageColor.getrgb(SKY)
    return Image.fromarray(pixels)


def with_mask(image: Image.Image, files: Sequence[Path]) -> Image.Image:
    """``image`` with the masks of its defect laid over it in orange."""
    for file in files:
        mask = Image.open(file).convert("L").point(lambda value: 150 if value else 0)
        cover = Image.new("RGB", image.size, ORANGE)
        image = Image.composite(cover, image, mask.resize(image.size, Image.Resampling.NEAREST))
    return image


def coloured(text: str, value: float) -> str:
    """A token as HTML: blue and underlined above zero, orange and dotted below, stronger the farther off."""
    strength = min(1.0, abs(value) / FULL)
    if strength < 0.02:
        return escape_html(text)
    rgb, line = ("86,180,233", "solid") if value > 0 else ("230,159,0", "dotted")
    style = f"background:rgba({rgb},{0.15 + 0.65 * strength:.2f});text-decoration:underline {line} 1px"
    return f"<span style='{style}' title='{value:+.2f}'>{escape_html(text)}</span>"

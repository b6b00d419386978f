"""One look for every figure: a colour-blind-safe palette, alt text, files whose bytes repeat."""

import base64
import inspect
from collections.abc import Callable
from functools import wraps
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import display
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import ladlib
from ladlib.runs import RunFolder, write_bytes
from ladlib.sanitize import escape_html

# Okabe and Ito's palette (2008), with greys.
SKY, BLUE, GREEN, ORANGE, RED, PURPLE = "#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
INK, GREY, PALE, YELLOW = "#26323D", "#8A96A3", "#E3E8ED", "#F0E442"
ARM_COLOURS = {
    "base": GREY, "sft": SKY, "grpo_only": ORANGE, "sft_grpo": BLUE, "sft_long": GREEN, "accuracy_only": PURPLE,
    "format_only": YELLOW, "large": INK,
}  # fmt: skip
TEMPLATES = Environment(
    loader=PackageLoader("ladlib.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
ANOMALY_COLOURS = {"good": SKY, "logical": RED, "structural": ORANGE}
STYLE = Path(ladlib.__file__).parent / "assets" / "figures.mplstyle"


class Drawing(Figure):
    """A figure that a notebook shows with ``alt``, as HTML: JupyterLab drops the alt text of image outputs."""

    alt = ""

    def _ipython_display_(self) -> None:  # a mime bundle would be joined by matplotlib's own image/png
        display({"text/html": image_tag(png_bytes(self), self.alt), "text/plain": self.alt}, raw=True)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """``draw`` in this style; its docstring's first paragraph is the alt text, ``note`` a line below the figure."""

    @wraps(draw)
    def inside(*args: object, note: str = "", **kwargs: object) -> Figure:
        with plt.style.context(STYLE):
            figure = draw(*args, **kwargs)
            if note:
                figure.supxlabel(note, x=0.99, ha="right", fontsize=8, color=GREY)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, not again for every file
        plt.close(figure)  # a notebook shows it once
        titles = [" ".join((axes.get_title("left") or axes.get_title("center")).split()) for axes in figure.axes]
        what = " ".join(inspect.getdoc(draw).split("\n\n")[0].split())
        figure.alt = f"{what} Panels: {'; '.join(filter(None, titles))}"
        return figure

    return inside


def panels(count: int, width: float, height: float, across: int = 4, **grid: object) -> tuple[Figure, list[Axes]]:
    """A figure and its ``count`` panels of that size in inches, at most ``across`` in a line."""
    across, down = min(across, count), -(-count // across)
    figure = plt.figure(figsize=(width * across, height * down), layout="constrained", FigureClass=Drawing)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.03)
    axes = list(figure.subplots(down, across, squeeze=False, **grid).ravel())
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def finish(axes: Axes, percent: bool = False, legend: str = "", **labels: object) -> None:
    """Set titles and limits; a legend, headed ``legend``, at the right where something is labelled."""
    axes.set(**labels)
    if percent:
        axes.yaxis.set_major_formatter("{x:.0%}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=legend or None, alignment="left")


def show_image(axes: Axes, image: object, colour: str = GREY) -> None:
    """Draw an image without ticks, in a frame of one colour."""
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set(visible=True, color=colour, linewidth=1.2)


def image_tag(image: bytes, alt: str, style: str = "", mime: str = "png") -> str:
    """HTML of an image no wider than its place; ``alt`` may hold any text."""
    return f"<img style='{style}max-width:100%' alt='{escape_html(alt)}' src='{data_url(image, mime)}'>"


def data_url(image: bytes, mime: str = "png") -> str:
    """The image inside a URL."""
    return f"data:image/{mime};base64," + base64.b64encode(image).decode("ascii")


def png_bytes(figure: Figure) -> bytes:
    """A PNG of 256 colours for the screen: a third of the bytes, which an executed notebook keeps."""
    file, small = BytesIO(), BytesIO()
    figure.savefig(file, dpi=figure.dpi, format="png", bbox_inches="tight")
    image = Image.open(file).convert("RGB")
    palette = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)  # the one method that keeps white white
    image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(small, "PNG", optimize=True)
    return small.getvalue()


def save(figure: Figure, run: RunFolder, name: str) -> None:
    """Write ``figures/<name>.png`` (120 dots per inch) and ``.pdf``; the same figure gives the same bytes."""
    undated = {"Creator": None, "Producer": None, "CreationDate": None}
    for form, metadata in (("png", {"Software": None}), ("pdf", undated)):
        file = BytesIO()
        with plt.style.context(STYLE):
            figure.savefig(file, dpi=120, format=form, metadata=metadata)
        write_bytes(run.figures / f"{name}.{form}", file.getvalue())

"""One look for every figure: a colour-blind-safe palette, alt text, files whose bytes repeat.

A figure is drawn by a function under :func:`styled`; in a notebook it shows itself as ``<img alt=...>``.
"""

import base64
import inspect
from collections.abc import Callable
from functools import wraps
from io import BytesIO

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ladlib.runs import RunFolder, write_bytes
from ladlib.sanitize import escape_html

# Okabe and Ito's palette (2008), with greys.
SKY, BLUE, GREEN, ORANGE, RED, PURPLE = "#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
INK, GREY, PALE, YELLOW = "#26323D", "#8A96A3", "#E3E8ED", "#F0E442"
ARM_COLOURS = {
    "base": GREY, "sft": SKY, "grpo_only": ORANGE, "sft_grpo": BLUE, "sft_long": GREEN,
    "accuracy_only": PURPLE, "format_only": YELLOW, "large": INK,
}  # fmt: skip
ANOMALY_COLOURS = {"good": SKY, "logical": RED, "structural": ORANGE}
RC = {
    "figure.facecolor": "white", "axes.facecolor": "white", "figure.dpi": 100, "font.family": "DejaVu Sans",
    "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlepad": 7, "axes.edgecolor": GREY, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "grid.color": PALE,
    "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 9, "ytick.labelsize": 9, "xtick.major.size": 3,
    "ytick.major.size": 0, "lines.linewidth": 1.8, "legend.frameon": False, "legend.fontsize": 9,
    "pdf.fonttype": 42, "text.parse_math": False,
}  # fmt: skip


class Drawing(Figure):
    """A figure that a notebook shows with ``alt``, as HTML: JupyterLab drops the alt text of image outputs."""

    alt = ""

    def _ipython_display_(self) -> None:  # a mime bundle would be joined by matplotlib's own image/png
        display({"text/html": image_tag(png_bytes(self), self.alt), "text/plain": self.alt}, raw=True)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """``draw`` in this style, its figure closed so that a notebook shows it once.

    The first paragraph of its docstring is the alt text. ``note`` is a line below the figure: whose numbers they are.
    """

    @wraps(draw)
    def inside(*args: object, note: str = "", **kwargs: object) -> Figure:
        with plt.rc_context(RC):
            figure = draw(*args, **kwargs)
            if note:
                figure.supxlabel(note, x=0.99, ha="right", fontsize=8, color=GREY)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, not again for every file
        plt.close(figure)
        titles = [" ".join((axes.get_title("left") or axes.get_title("center")).split()) for axes in figure.axes]
        what, panels = " ".join(inspect.getdoc(draw).split("\n\n")[0].split()), "; ".join(filter(None, titles))
        figure.alt = f"{what} Panels: {panels}" if panels else what
        return figure

    return inside


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches, that lays out its parts by itself."""
    figure = plt.figure(figsize=(width, height), layout="constrained", FigureClass=Drawing)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.03)
    return figure


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = canvas(width, height)
    return figure, figure.subplots()


def panels(count: int, width: float, height: float, across: int = 4, **shared: bool) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels of that size each, at most ``across`` in a line."""
    across = min(across, count)
    figure = canvas(width * across, height * -(-count // across))
    grid = figure.subplots(-(-count // across), across, squeeze=False, **shared).ravel()
    for axes in grid[count:]:
        axes.remove()
    return figure, list(grid[:count])


def finish(axes: Axes, percent: bool = False, legend: str = "", **labels: object) -> None:
    """Set titles and limits; a legend, headed ``legend``, at the right where something is labelled."""
    axes.set(**labels)
    if percent:
        axes.yaxis.set_major_formatter("{x:.0%}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=legend or None, alignment="left")


def show_image(axes: Axes, image: object, colour: str = GREY, width: float = 1.2) -> None:
    """Draw an image without ticks, in a frame of one colour."""
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=width)


def image_tag(image: bytes, alt: str, style: str = "", mime: str = "png") -> str:
    """HTML of an image no wider than its place; ``alt`` may hold any text."""
    data = base64.b64encode(image).decode("ascii")
    return f"<img style='{style}max-width:100%' alt='{escape_html(alt)}' src='data:image/{mime};base64,{data}'>"


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
        with plt.rc_context(RC):
            figure.savefig(file, dpi=120, format=form, metadata=metadata)
        write_bytes(run.figures / f"{name}.{form}", file.getvalue())

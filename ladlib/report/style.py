"""One look for every figure: colours that colour-blind readers tell apart, files whose bytes repeat, words beside."""

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
from ladlib.sanitize import strip_control as strip_control  # what figures and tables show of a completion

# Okabe and Ito's palette (2008), with greys.
SKY, BLUE, GREEN, ORANGE, RED, PURPLE = "#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#26323D", "#8A96A3", "#E3E8ED"
RIGHT, WRONG = GREEN, RED
ARM_COLOURS = {
    "base": GREY, "sft": SKY, "grpo_only": ORANGE, "sft_grpo": BLUE, "sft_long": GREEN,
    "accuracy_only": PURPLE, "format_only": "#F0E442", "large": INK,
}  # fmt: skip
# The same arms in grey: hatches of bars, dashes of lines.
ARM_HATCHES = {
    "sft": "////",
    "grpo_only": "....",
    "sft_grpo": "",
    "sft_long": "\\\\\\\\",
    "accuracy_only": "xxx",
    "format_only": "---",
}
ARM_DASHES = {
    "base": (0, (1, 1)), "sft": (0, (5, 2)), "grpo_only": (0, (5, 1, 1, 1)), "sft_long": (0, (8, 2)),
    "accuracy_only": (0, (3, 1, 1, 1, 1, 1)), "format_only": (0, (2, 3)), "large": (0, (7, 1, 1, 1)),
}  # fmt: skip  # sft_grpo, and what is not named, is solid
ANOMALY_COLOURS = {"good": SKY, "logical": RED, "structural": ORANGE}

RC = {
    "figure.facecolor": "white", "axes.facecolor": "white", "figure.dpi": 100, "savefig.dpi": 120,
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 7,
    "axes.edgecolor": GREY, "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "grid.color": PALE,
    "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "xtick.major.size": 3, "ytick.major.size": 0, "lines.linewidth": 1.8, "legend.frameon": False,
    "legend.fontsize": 8.5, "hatch.linewidth": 0.7, "hatch.color": "white",
    "pdf.fonttype": 42, "svg.fonttype": "none", "text.parse_math": False,
}  # fmt: skip


class Drawing(Figure):
    """A figure that a notebook shows with ``alt``, what a screen reader says of it.

    As HTML: of an output of type image/png, JupyterLab and nbconvert's page leave out what tells of it.
    """

    alt = ""

    def _ipython_display_(self) -> None:
        told = self.alt or repr(self)
        display({"text/html": image_tag(shown_png(self), told), "text/plain": told}, raw=True)


def image_tag(png: bytes, alt: str, style: str = "") -> str:
    """A PNG inside a page, no wider than that; ``alt`` is text from outside, shown and not obeyed."""
    data = base64.b64encode(png).decode("ascii")
    return f"<img style='{style}max-width:100%' alt='{escape_html(alt)}' src='data:image/png;base64,{data}'>"


def shown_png(figure: Figure) -> bytes:
    """A PNG for the screen, of 256 colours: a third of the bytes, which an executed notebook keeps."""
    file, small = BytesIO(), BytesIO()
    figure.savefig(file, dpi=figure.dpi, format="png", bbox_inches="tight")
    whole = Image.open(file).convert("RGB")
    palette = whole.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)  # the one method that leaves white white
    whole.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(small, "PNG", optimize=True)
    return small.getvalue()


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run ``draw`` in this style and hand its figure back closed, so that a notebook shows it once.

    The first paragraph of its docstring says what it shows, to those who cannot see it too.
    """

    @wraps(draw)
    def inside(*args: object, **kwargs: object) -> Figure:
        with plt.rc_context(RC):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # makes the ticks, which belong to this style too
            figure.set_layout_engine("none")  # laid out once, not again for every file
        plt.close(figure)
        figure.alt = _told(draw, figure)
        return figure

    return inside


def _told(draw: Callable, figure: Figure) -> str:
    what = " ".join(inspect.getdoc(draw).split("\n\n")[0].split())
    titles = [" ".join((axes.get_title("left") or axes.get_title("center")).split()) for axes in figure.axes]
    panels = "; ".join(filter(None, titles))
    return f"{what} Panels: {panels}" if panels else what


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches, that lays out its parts by itself."""
    figure = plt.figure(figsize=(width, height), layout="constrained", FigureClass=Drawing)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.03)
    return figure


def bare(axes: Axes) -> None:
    """No ticks and no grid: for pictures and text."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def frame(axes: Axes, colour: str, width: float) -> None:
    """A border of one colour around a picture."""
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=width)


def save(figure: Figure, run: RunFolder, name: str) -> None:
    """Write ``figures/<name>.png`` (120 dots an inch) and ``.pdf``; the same figure gives the same bytes."""
    png, pdf = BytesIO(), BytesIO()
    with plt.rc_context(RC):
        figure.savefig(png, dpi=120, format="png", metadata={"Software": None})
        undated = {"Creator": None, "Producer": None, "CreationDate": None}
        figure.savefig(pdf, format="pdf", metadata=undated)
    write_bytes(run.figures / f"{name}.png", png.getvalue())
    write_bytes(run.figures / f"{name}.pdf", pdf.getvalue())

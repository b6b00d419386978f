"""Controls above a view that follows them, with the first view as a still beside it.

    explorer("Threshold", lambda at: table_at(at), at=FloatSlider(...))

A widget lives as long as its kernel. A batch run, an export to HTML and a page on the web keep only what a cell
showed, so each explorer also shows its opening view as plain HTML, which gives way where the widget is drawn.
Views are HTML text: whatever in them comes from a model, a file or a person has to be escaped where it is put in
(:func:`escape_html`).
"""

from collections.abc import Callable
from io import BytesIO

import ipywidgets
from IPython.display import HTML, display
from matplotlib.figure import Figure
from PIL import Image

from ladlib.errors import UserError
from ladlib.report.style import image_tag, shown_png
from ladlib.sanitize import escape_html as quoted  # what views show of a text from outside

WIDE = ipywidgets.Layout(width="32em", max_width="100%")
NAMED = {"description_width": "9em"}  # long descriptions are read whole, not cut off


class Explorer(ipywidgets.VBox):
    """What :func:`explorer` returns: ``controls`` by name, and the ``view`` that follows them."""

    def __init__(self, title: str, draw: Callable[..., str], controls: dict[str, ipywidgets.Widget]) -> None:
        self.title, self.controls, self._draw = title, controls, draw
        self.view = ipywidgets.HTML(self._drawn())
        super().__init__([*controls.values(), self.view])
        for control in controls.values():
            control.layout = WIDE
            if hasattr(control.style, "description_width"):  # a button's description is the button
                control.style = NAMED
            control.observe(self._follow, names="value")

    @property
    def still(self) -> str:
        """The present view as HTML that needs neither a kernel nor a script."""
        inside = f"{self.view.value}<figcaption>{_told(self.title)}</figcaption>"
        return f"{GIVES_WAY}<figure class='ladlib-still' style='margin:0.5em 0'>{inside}</figure>"

    def _repr_mimebundle_(self, **given: object) -> dict | tuple[dict, dict]:
        display(HTML(self.still))
        return super()._repr_mimebundle_(**given)

    def _follow(self, change: dict) -> None:
        self.view.value = self._drawn()

    def _drawn(self) -> str:
        values = {name: control.value for name, control in self.controls.items()}
        try:
            inside = self._draw(**values)
        except UserError as error:
            inside = note(str(error))
        label = quoted(self.title)
        return f"<div role='region' aria-live='polite' aria-label='{label}' style='line-height:1.4'>{inside}</div>"


def explorer(title: str, draw: Callable[..., str], **controls: ipywidgets.Widget) -> Explorer:
    """Controls above what ``draw`` makes of their values: HTML, drawn again whenever one of them moves.

    ``draw`` is called with the values by the controls' names. A :class:`UserError` that it raises is shown in the
    view in place of the picture.
    """
    return Explorer(title, draw, controls)


def choice(description: str, options: object, tooltip: str = "") -> ipywidgets.Dropdown:
    """A menu; its first option is taken. Raises :class:`UserError` where there is none.

    By keyboard: space, arrows, enter. While a menu is closed, JupyterLab takes the arrows for its own cells.
    """
    if not options:
        raise UserError(f"There is no {description.lower()} to choose from.", "Run the cells and notebooks before.")
    return ipywidgets.Dropdown(options=options, description=description, tooltip=tooltip or description)


def note(text: str) -> str:
    """A sentence in small grey letters."""
    return f"<p style='color:{GREY_TEXT};margin:0.4em 0;white-space:pre-line'>{quoted(text)}</p>"


def table(headings: list[str], rows: list[list[str]], caption: str = "") -> str:
    """A table of cells that are HTML already; headings and caption are plain text."""
    heads = "".join(f"<th scope='col' style='{CELL};white-space:nowrap'>{quoted(one)}</th>" for one in headings)
    lines = "".join(f"<tr>{''.join(f'<td style={CELL!r}>{one}</td>' for one in row)}</tr>" for row in rows)
    told = f"<caption>{quoted(caption)}</caption>" if caption else ""
    return (
        f"<table style='border-collapse:collapse'>{told}<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    )


def picture(shown: Image.Image | Figure, alt: str, width: int = 0) -> str:
    """A picture inside the page; ``width`` in pixels (0 = its own), ``alt`` what a screen reader says of it."""
    size = f"width:{width}px;image-rendering:pixelated;" if width else ""
    return image_tag(shown_png(shown) if isinstance(shown, Figure) else _png(shown), alt, size)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def side_by_side(*parts: str) -> str:
    """Parts in a row that wraps where the page is narrow."""
    boxes = "".join(f"<div>{one}</div>" for one in parts)
    return f"<div style='display:flex;flex-wrap:wrap;gap:1.2em;align-items:flex-start'>{boxes}</div>"


def _told(title: str) -> str:
    return (
        f"<small style='color:{GREY_TEXT}'>{quoted(title)}, as it opens. Where a kernel runs, it can be moved.</small>"
    )


# Where the widget itself is drawn its still would say the same again, to a screen reader too.
GIVES_WAY = "<style>.jp-OutputArea:has(.widget-vbox) .ladlib-still{display:none}</style>"
GREY_TEXT = "#5A6570"  # the palette's grey is too pale for small letters (WCAG 2.2, 4.5 to 1)
CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:break-word;padding:2px 10px 2px 0"

"""Your own pair: two images of any size and format, by path or dropped in, judged as every pair is."""

import tempfile
from pathlib import Path

import ipywidgets
from PIL import Image

from ladlib.data.images import open_image
from ladlib.errors import UserError
from ladlib.explore.judge import Judge, told
from ladlib.explore.view import Explorer, explorer, note, picture, side_by_side
from ladlib.notebook import from_root, shown_path

WIDTH = 200  # pixels of the page that a picture takes
FORMATS = ".png,.jpg,.jpeg,.bmp,.tif,.tiff,.webp,.gif,.ppm"


def own_pair(judge: Judge, reference: Path | str, test: Path | str) -> Explorer:
    """Boxes for two paths, and buttons to upload two files, which go before the paths.

    A relative path is read from the root. A file that is no image is told of in the view.
    """
    boxes = {
        name: ipywidgets.Text(
            shown_path(Path(path)), description=description, continuous_update=False, tooltip="Path of an image"
        )
        for name, path, description in (("reference", reference, "Reference image"), ("test", test, "Test image"))
    }
    buttons = {
        name: ipywidgets.FileUpload(
            accept=FORMATS, multiple=False, description=description, tooltip="In place of a path"
        )
        for name, description in (("first", "Upload the reference"), ("second", "Upload the test image"))
    }

    def draw(reference: str, test: str, first: tuple, second: tuple) -> str:
        images = opened(reference, first), opened(test, second)
        (found,) = judge([images])
        seen = [judge.seen(image) for image in images]
        names = ("reference image", "test image")
        shown = [picture(one, f"Your {name}", WIDTH) + note(name) for one, name in zip(seen, names, strict=True)]
        return side_by_side(*shown, told(found))

    return explorer("Your own pair", draw, **boxes, **buttons)


def opened(path: str, uploaded: tuple) -> Image.Image:
    """The uploaded file where there is one, else the file at ``path``. Raises :class:`UserError` for no image."""
    if not uploaded:
        return open_image(from_root(path))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "uploaded")  # never the name that came with it
        file.write_bytes(uploaded[0]["content"])
        try:
            return open_image(file)
        except UserError as error:
            raise UserError("The uploaded file does not decode as an image.", "Export it again as PNG.") from error

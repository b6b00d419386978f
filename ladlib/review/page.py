"""One HTML file to review conversations in: their images inside, nothing fetched, decisions kept in the browser."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ladlib.data import find_dataset
from ladlib.data.images import open_image
from ladlib.errors import UserError
from ladlib.records import Written
from ladlib.runs import write_text
from ladlib.sft_file import read_written, refuse_absent

SIDE = 320  # longest side of an embedded image in pixels
QUALITY = 70  # of WebP; an image of a product takes 5 to 15 KB


def write_page(file: Path, root: Path | str, out: Path) -> Path:
    """Write the review page of ``file``, whose images lie below ``root``, to ``out``; its path.

    Raises :class:`UserError` for a file that cannot be read, that a review was applied to, or whose images are not
    there.
    """
    rows = read_written(file)
    if any(one.reviewed for one in rows):
        raise UserError(
            f"A review was already applied to {file}; what it rejected is not in there any more.",
            "Build it again without --review: the page finds earlier decisions in the browser.",
        )
    refuse_absent(rows, root, file)
    write_text(out, _render(file.name, rows, root))
    return out


def _render(name: str, rows: Sequence[Written], root: Path | str) -> str:
    places: dict[Path, int] = {}  # an image that several conversations are about is embedded once
    shown = [_shown(one, [places.setdefault(path, len(places)) for path in _paths(one, root)]) for one in rows]
    environment = Environment(loader=PackageLoader("ladlib.review", "."), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("review.html.j2")
    return page.render(name=name, rows=shown, images=[_embedded(path) for path in places])


def _shown(one: Written, images: list[int]) -> dict:
    words = one.model_dump(include={"id", "kind", "question", "answer", "writer"})
    told = {"pair": one.pair.id, "dataset": one.pair.test.dataset, "defect": one.pair.test.defect}
    prior = "" if one.writer == "template" else f"{one.prior.question}\n{one.prior.answer}"
    return words | told | {"prior": prior, "images": images}


def _paths(one: Written, root: Path | str) -> tuple[Path, Path]:
    folder = find_dataset(root, one.pair.test.dataset)
    return folder / one.pair.reference, folder / one.pair.test.image


def _embedded(path: Path) -> str:
    image, file = open_image(path), BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")

"""The datasets without their images that do not decode: a folder of links to all other files, for ``--skip-bad``.

    skipped = link_readable(Path("/data/anomaly"), Path("results/runs/paper/readable"))

What is left out is decided once, before the first stage, and by file: a mask that does not decode takes its image
with it, since an image with half of its masks has another defect.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ladlib.data.images import open_image
from ladlib.data.layout import FOLDERS, find_dataset, is_image
from ladlib.errors import UserError
from ladlib.progress import Progress
from ladlib.records import Record


class Skipped(Record):
    """An image that was left out."""

    dataset: str
    image: str  # relative to the dataset's folder
    reason: str


def link_readable(root: Path, out: Path) -> list[Skipped]:
    """Make ``out`` anew: the datasets below ``root`` as links, without the images that are returned."""
    fresh = out.with_name(f".{out.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    skipped = [one for name, folder in datasets(root) for one in _link(name, folder, fresh / FOLDERS[name])]
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    return skipped


def datasets(root: Path) -> Iterator[tuple[str, Path]]:
    """The datasets that are there, each with its folder."""
    for name in FOLDERS:
        try:
            yield name, find_dataset(root, name)
        except UserError:
            continue


def files(folder: Path) -> list[Path]:
    """All files below ``folder``, in order."""
    found = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.is_file())


def _link(dataset: str, folder: Path, out: Path) -> list[Skipped]:
    every = [path.relative_to(folder) for path in files(folder)]
    reasons = (
        {} if dataset == "mmad" else _unreadable(dataset, folder, [path for path in every if is_image(folder / path)])
    )
    for path in every:
        if path not in reasons:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).symlink_to((folder / path).resolve())
    return [
        Skipped(dataset=dataset, image=path.as_posix(), reason=reason)
        for path, reason in sorted(reasons.items())
        if not is_mask(path)
    ]


def _unreadable(dataset: str, folder: Path, images: Sequence[Path]) -> dict[Path, str]:
    """Those of ``images`` (below ``folder``) that do not decode and those whose masks do not, each with the reason."""
    progress, reasons = Progress(f"decoding {dataset}", "image", len(images)), {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        told = pool.map(lambda path: _reason(folder / path), images)
        for number, (path, reason) in enumerate(zip(images, told, strict=True), 1):
            progress.tell(number)
            if reason:
                reasons[path] = reason
    for mask in [path for path in reasons if is_mask(path)]:
        places = _places(mask)
        reasons |= {path: reasons[mask] for path in images if not is_mask(path) and path.with_suffix("") in places}
    return reasons


def _reason(path: Path) -> str:
    try:
        open_image(path)
    except UserError as error:
        return error.what
    return ""


def is_mask(path: Path) -> bool:
    """Whether the file, its path below the dataset's folder, lies where the datasets keep masks."""
    return "ground_truth" in path.parts or "Masks" in path.parts


def _places(mask: Path) -> set[Path]:
    """Where the image of a mask may lie in the three layouts, without its ending."""
    own = Path(*({"Masks": "Images", "ground_truth": "test"}.get(part, part) for part in mask.with_suffix("").parts))
    return {own, own.parent, own.with_name(own.name.removesuffix("_mask"))}

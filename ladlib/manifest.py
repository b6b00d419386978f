"""What a training stage is shown, file by file, and a check that no image of the test set is among it. No torch.

    rows = shown_files(pairs, Path("data"))              # raises where a file is one of MVTec LOCO AD's
    write_manifest(run.manifest("sft_grpo", 0), rows)

The check does not lean on names: a test image that was copied or renamed has the same bytes, and one that was saved
anew looks the same (:mod:`ladlib.data.near`). It needs the test set beside the training data.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ladlib.data import find_dataset
from ladlib.data.images import sha256
from ladlib.data.layout import is_image
from ladlib.data.near import NEAR, hashes, nearest
from ladlib.errors import UserError
from ladlib.progress import Progress
from ladlib.records import Pair, Record
from ladlib.runs import write_text
from ladlib.sanitize import escape_csv
from ladlib.sft_file import image_hashes


class Shown(Record):
    """One pair of a manifest; paths are relative to the dataset's folder."""

    dataset: str
    category: str
    defect: str  # "" for a good image
    label: str
    reference: str
    test: str
    reference_sha256: str  # of the file's bytes
    test_sha256: str


def shown_files(pairs: Iterable[Pair], root: Path | str) -> list[Shown]:
    """A row for each of ``pairs``, once, in their order.

    Raises :class:`UserError` for a missing image and where one has the bytes or the looks of an image of MVTec LOCO AD
    below ``root``. Where that dataset is not there, names alone tell (:func:`ladlib.conversations.refuse_loco`).
    """
    unique = list({(one.test.dataset, one.id): one for one in pairs}.values())
    progress = Progress("files", "pair", len(unique))
    rows = []
    for number, one in enumerate(unique, 1):
        reference, test = image_hashes(one, root)
        rows.append(
            Shown(
                dataset=one.test.dataset, category=one.test.category, defect=one.test.defect, label=one.test.label,
                reference=one.reference, test=one.test.image, reference_sha256=reference, test_sha256=test,
            )
        )  # fmt: skip
        progress.tell(number)
    _refuse_test_files(rows, root)
    _refuse_lookalikes(rows, root)
    return rows


def write_manifest(path: Path, rows: Sequence[Shown]) -> None:
    """``rows`` as a CSV file."""
    safe = [{name: escape_csv(value) for name, value in row.model_dump().items()} for row in rows]
    write_text(path, pd.DataFrame(safe).to_csv(index=False, lineterminator="\n"))


def _refuse_test_files(rows: Sequence[Shown], root: Path | str) -> None:
    names = {digest: name for row in rows for name, digest in _files(row).items()}
    sizes = {(find_dataset(root, row.dataset) / name).stat().st_size for row in rows for name in _files(row)}
    for image in _loco_images(root):
        # Files of another length cannot have the same bytes: few are ever read.
        if image.stat().st_size in sizes and (digest := sha256(image)) in names:
            raise UserError(
                f"{names[digest]} has the bytes of {'/'.join(image.parts[-4:])}, an image of the test set.",
                "Take it out of the training data.",
            )


def _refuse_lookalikes(rows: Sequence[Shown], root: Path | str) -> None:
    tested = _hashed(_loco_images(root), "test set")
    if not tested:
        return
    shown = {find_dataset(root, row.dataset) / name: name for row in rows for name in _files(row)}
    known, others = list(tested), np.stack(list(tested.values()))
    for path, found in _hashed(list(shown), "training set").items():
        place, bits = nearest(found, others)
        if bits <= NEAR:
            raise UserError(
                f"{shown[path]} looks like {'/'.join(known[place].parts[-4:])}, an image of the test set "
                f"({bits} of 255 bits differ).",
                "Take it out of the training data.",
            )


def _hashed(paths: Sequence[Path], title: str) -> dict[Path, np.ndarray]:
    """The perceptual hashes of those images that have one."""
    progress, found = Progress(f"looks of the {title}", "image", len(paths)), {}
    for number, (path, one) in enumerate(zip(paths, hashes(paths), strict=True), 1):
        progress.tell(number)
        if one is not None:
            found[path] = one
    return found


def _files(row: Shown) -> dict[str, str]:
    return {row.reference: row.reference_sha256, row.test: row.test_sha256}


def _loco_images(root: Path | str) -> list[Path]:
    try:
        folder = find_dataset(root, "mvtec_loco")
    except UserError:
        return []
    return sorted(path for path in folder.glob("*/*/**/*") if is_image(path) and "ground_truth" not in path.parts)

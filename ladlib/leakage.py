"""The files of a training stage, and a check that no image of the test set is among them. No torch.

    rows = training_files(pairs, Path("data"))              # raises where a file is one of MVTec LOCO AD's
    write_manifest(run.manifest("sft_grpo", 0), rows)

The check does not rely on names: a test image that was copied or renamed has the same bytes, and one that was saved
again has nearly the same perceptual hash (pHash: C. Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010) of 16 by 16 coefficients. An image saved as JPEG of quality 50, resized, grey, brighter or noisy
differs in at most 18 of its 256 bits; the nearest of a training and a test image in the synthetic datasets in 88.
Turned, mirrored and strongly cropped copies are not found, nor are those of bare surfaces, which all hash alike.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ladlib.checksums import sha256
from ladlib.data.images import open_image
from ladlib.data.layout import SPLITS, find_dataset, list_images, subfolders
from ladlib.errors import UserError
from ladlib.progress import Progress
from ladlib.records import Pair, Record
from ladlib.runs import write_text
from ladlib.sanitize import escape_csv

NEAR = 48  # bits in which two images may differ and still count as one
FLAT = 2.0  # grey levels of standard deviation: below, there is nothing to tell images apart by


class TrainingFile(Record):
    """One pair of a manifest; paths are relative to the dataset's folder. Part of a training's fingerprint."""

    dataset: str
    category: str
    defect: str  # "" for a good image
    label: str
    reference: str
    test: str
    reference_sha256: str  # of the file's bytes
    test_sha256: str


def training_files(pairs: Iterable[Pair], root: Path | str) -> list[TrainingFile]:
    """A row for each of ``pairs``, once, in their order.

    Raises :class:`UserError` where an image has the bytes or the looks of an image of MVTec LOCO AD
    below ``root``. Without that dataset, :func:`ladlib.sft_data.refuse_loco` checks the names alone.
    """
    rows, hashes = [], {}
    for pair in {(pair.test.dataset, pair.id): pair for pair in pairs}.values():
        folder = find_dataset(root, pair.test.dataset)
        reference, test = folder / pair.reference, folder / pair.test.image
        for path in (reference, test):
            hashes[path] = hashes.get(path) or sha256(path)
        row = {name: getattr(pair.test, name) for name in ("dataset", "category", "defect", "label")}
        row |= {"reference": pair.reference, "test": pair.test.image}
        rows.append(TrainingFile(**row, reference_sha256=hashes[reference], test_sha256=hashes[test]))
    _refuse_test_images(hashes, root)
    return rows


def write_manifest(path: Path, rows: Sequence[TrainingFile]) -> None:
    """Write ``rows`` as a CSV file."""
    frame = pd.DataFrame([row.model_dump() for row in rows]).map(escape_csv)
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def _refuse_test_images(hashes: dict[Path, str], root: Path | str) -> None:
    try:
        folder = find_dataset(root, "mvtec_loco")
    except UserError:
        return
    kinds = [kind for category in subfolders(folder) for split in SPLITS for kind in subfolders(category / split)]
    tested = [image for kind in kinds for image in list_images(kind)]
    paths, sizes = {digest: path for path, digest in hashes.items()}, {path.stat().st_size for path in hashes}
    for image in tested:
        # Files of another length cannot have the same bytes: few are ever read.
        if image.stat().st_size in sizes and (path := paths.get(sha256(image))):
            _refuse(path, "has the bytes of", image)
    known = _perceptual_hashes(tested, "test set")
    looks = np.array(list(known.values()))
    for path, bits in _perceptual_hashes(list(hashes), "training set").items() if known else ():
        differing = np.bitwise_count(looks ^ bits).sum(axis=1)
        if differing.min() <= NEAR:
            image = list(known)[differing.argmin()]
            _refuse(path, f"with {differing.min()} of 256 bits differing looks like", image)


def _refuse(path: Path, how: str, image: Path) -> None:
    training, test = ("/".join(file.parts[-4:]) for file in (path, image))
    raise UserError(f"{training} {how} {test}, an image of the test set.", "Take it out of the training data.")


def _perceptual_hashes(paths: Sequence[Path], title: str) -> dict[Path, np.ndarray]:
    """Of the images that have one. UserError for an image that does not decode."""
    progress, hashes = Progress(f"near-duplicate check, {title}", "image", len(paths)), {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for path, bits in zip(paths, pool.map(lambda path: perceptual_hash(open_image(path)), paths), strict=True):
            hashes[path] = bits
            progress.tell(len(hashes))
    return {path: bits for path, bits in hashes.items() if bits is not None}


def perceptual_hash(image: Image.Image) -> np.ndarray | None:
    """The 256 bits of an RGB ``image`` in 32 bytes; None where it is all of one grey."""
    import imagehash

    if np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=float).std() < FLAT:
        return None
    return np.packbits(imagehash.phash(image, hash_size=16).hash)

"""A plain detector beside the language models: how far is an image from the nearest good training image?

    detect(load_profile("toy"), Path("data"), run)    # baselines/neighbours.jsonl

One nearest neighbour in a space of simple features, the idea behind SPADE (arXiv 2005.02357) without its network.
It is fitted on the good training images of each category of MVTec LOCO AD, which is what detectors of that
benchmark are given and what the language models here never see but for one reference image. The threshold comes
from these images alone: the distance that one in twenty of them exceeds when left out (conformal anomaly detection,
Laxhammar and Falkman, 2010). No test image, anomalous or not, and no label has a part in either. Features and
quantile were set beforehand and are not tuned.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from ladlib.config import Profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import sha256, view
from ladlib.data.pairing import pair, training_normals
from ladlib.errors import UserError
from ladlib.generations import subsample
from ladlib.records import Detection, Sample
from ladlib.runs import RunFolder, write_text

SIDE = 16  # pixels of the small picture
BINS = 4  # of each colour channel
QUANTILE = 0.95


def detect(profile: Profile, data_root: Path | str, run: RunFolder) -> Path:
    """Judge the test images that the models are asked about; the file of the answers, whole or not at all.

    Raises :class:`UserError` for data that are not there, or a category with a single training image.
    """
    samples = read_dataset(data_root, "mvtec_loco")
    tests = [one.test for one in subsample(pair(samples, profile.data.reference_seed), profile.evaluate.limit)]
    folder, found = find_dataset(data_root, "mvtec_loco"), []
    for (_, category), normals in training_normals(samples).items():
        of_category = [one for one in tests if one.category == category]
        found += _category(profile, folder, normals, of_category) if of_category else []
    rows = (json.dumps(one.model_dump(mode="json"), ensure_ascii=False) + "\n" for one in found)
    write_text(run.neighbours, "".join(rows))
    return run.neighbours


def features(image: Image.Image) -> np.ndarray:
    """What an image is compared by, ``[SIDE * SIDE * 3 + BINS ** 3]``: a small picture and a colour histogram.

    Distances of the first part are root mean squares over the pixels, of the second Hellinger's times the root of
    two, so both are of the order of one at most.
    """
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=float) / 255
    bins = np.asarray(image, dtype=int).reshape(-1, 3) * BINS // 256
    counts = np.bincount(bins @ (BINS**2, BINS, 1), minlength=BINS**3)
    return np.concatenate([small.ravel() / SIDE, np.sqrt(counts / counts.sum())])


def fit(normals: np.ndarray) -> tuple[NearestNeighbors, float]:
    """The neighbours among ``normals``, ``[images, features]``, and the threshold that follows from these alone."""
    neighbours = NearestNeighbors(n_neighbors=1).fit(normals)
    left_out, _ = neighbours.kneighbors()  # without a query, no image is its own neighbour
    return neighbours, float(np.quantile(left_out[:, 0], QUANTILE))


def _category(profile: Profile, folder: Path, normals: Sequence[str], tests: Sequence[Sample]) -> list[Detection]:
    if len(normals) < 2:
        raise UserError(f"{tests[0].category} has a single training image.", "The detector's threshold needs two.")
    neighbours, threshold = fit(_features(profile, folder, normals))
    distances, places = neighbours.kneighbors(_features(profile, folder, [one.image for one in tests]))
    return [
        Detection(
            **one.model_dump(include={"id", "dataset", "category", "anomaly", "defect"}), label=one.label,
            test=one.image, image_sha256=sha256(folder / one.image), nearest=normals[place], distance=distance,
            threshold=threshold, trained_on=len(normals), answer="yes" if distance > threshold else "no",
        )
        for one, distance, place in zip(tests, distances[:, 0].tolist(), places[:, 0].tolist(), strict=True)
    ]  # fmt: skip


def _features(profile: Profile, folder: Path, images: Sequence[str]) -> np.ndarray:
    """Of the images as the models see them."""
    band = profile.data.min_pixels, profile.data.max_pixels
    return np.stack([features(view(folder / path, *band)) for path in images])

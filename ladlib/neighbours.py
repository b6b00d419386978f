"""A detector beside the language models: how far is an image from the nearest good training image?

One nearest neighbour in a space of simple features, the idea behind SPADE (arXiv 2005.02357) without its network,
fitted on the good training images of each category of MVTec LOCO AD. The threshold comes from these alone: the distance
that one in twenty exceeds when left out (conformal anomaly detection, Laxhammar and Falkman, 2010). Test images and
labels have no part in either; features and quantile were set beforehand and are not tuned.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ladlib.checksums import sha256
from ladlib.config import Profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair, training_normals
from ladlib.errors import UserError
from ladlib.generations import subsample
from ladlib.records import Detection
from ladlib.runs import RunFolder, write_text

SIDE, BINS, QUANTILE = 16, 4, 0.95  # pixels of the small picture; of each colour channel; of the distances


def detect(profile: Profile, data_root: Path | str, run: RunFolder) -> Path:
    """The file of the detector's answers about the evaluation's test images, whole or not at all.

    Raises :class:`UserError` for data that are not there, or a category with a single training image.
    """
    samples, folder, lines = read_dataset(data_root, "mvtec_loco"), find_dataset(data_root, "mvtec_loco"), []
    pairs = subsample(pair(samples, profile.data.reference_seed), profile.evaluate.limit)

    def vectors(images) -> np.ndarray:
        sizes = profile.data.min_pixels, profile.data.max_pixels  # as the models see them
        return np.stack([features(view(folder / path, *sizes)) for path in images])

    for (_, category), normals in training_normals(samples).items():
        if not (tests := [one.test for one in pairs if one.test.category == category]):
            continue
        if len(normals) < 2:
            raise UserError(f"{category} has a single training image.", "The detector's threshold needs two.")
        neighbours, threshold = fit(vectors(normals))
        distances, nearest = neighbours.kneighbors(vectors(test.image for test in tests))
        for test, distance, index in zip(tests, distances[:, 0].tolist(), nearest[:, 0], strict=True):
            detection = Detection(
                **test.model_dump(include={"id", "dataset", "category", "anomaly", "defect"}), label=test.label,
                test=test.image, image_sha256=sha256(folder / test.image), nearest=normals[index], distance=distance,
                threshold=threshold, trained_on=len(normals), answer="yes" if distance > threshold else "no",
            )  # fmt: skip
            lines.append(json.dumps(detection.model_dump(mode="json"), ensure_ascii=False) + "\n")
    write_text(run.neighbours, "".join(lines))
    return run.neighbours


def features(image: Image.Image) -> np.ndarray:
    """A small picture and a colour histogram, ``[SIDE * SIDE * 3 + BINS ** 3]``.

    Distances of the first are root mean squares over the pixels, of the second Hellinger's times the root of two.
    """
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=float) / 255
    bins = np.asarray(image, dtype=int).reshape(-1, 3) * BINS // 256
    counts = np.bincount(bins @ (BINS**2, BINS, 1), minlength=BINS**3)
    return np.concatenate([small.ravel() / SIDE, np.sqrt(counts / counts.sum())])


def fit(normals: np.ndarray):
    """The sklearn NearestNeighbors among ``normals``, ``[images, features]``, and the threshold that they give."""
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=1).fit(normals)
    left_out, _ = neighbours.kneighbors()  # without a query, no image is its own neighbour
    return neighbours, float(np.quantile(left_out[:, 0], QUANTILE))

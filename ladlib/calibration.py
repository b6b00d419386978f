"""Whether P(anomalous) means what it says: of the images given 0.8, are four in five anomalous?

Bins are of equal width on 0..1; the value on an inner edge belongs to the lower bin, as in scikit-learn's
``calibration_curve``.

>>> [(one.images, one.said, one.true) for one in reliability([False, True, True, True], [0.2, 0.8, 0.8, 0.8], bins=2)]
[(1.0, 0.2, 0.0), (3.0, 0.8, 1.0)]
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 10


class Bin(NamedTuple):
    """One point of the reliability diagram."""

    images: float  # their number, or the sum of their weights
    said: float  # mean P(anomalous)
    true: float  # share that is anomalous


def reliability(
    anomalous: Sequence[bool], p: Sequence[float], weight: Sequence[float] | None = None, bins: int = BINS
) -> list[Bin]:
    """The points of the reliability diagram (DeGroot and Fienberg, 1983), bins without an image left out."""
    truth, said = np.asarray(anomalous, dtype=float), np.asarray(p, dtype=float)
    weights = np.ones_like(said) if weight is None else np.asarray(weight, dtype=float)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], said)
    sums = [np.bincount(place, values, minlength=bins) for values in (weights, weights * said, weights * truth)]
    return [Bin(n, score / n, hits / n) for n, score, hits in zip(*(one.tolist() for one in sums), strict=True) if n]


def expected_calibration_error(
    anomalous: Sequence[bool], p: Sequence[float], weight: Sequence[float] | None = None, bins: int = BINS
) -> float | None:
    """ECE = sum over bins of (images in the bin / images) |share anomalous - mean P(anomalous)|; None of no image.

    Naeini, Cooper and Hauskrecht, AAAI 2015, for the probability of the positive class. It grows with the number
    of bins and, on few images, by chance alone: compare values of the same images only.
    """
    points = reliability(anomalous, p, weight, bins)
    total = sum(one.images for one in points)
    return sum(one.images * abs(one.true - one.said) for one in points) / total if total else None

"""Standard errors of a measure on a sample of images, and of its difference between two arms on the same images.

Each measure is written as what every image adds to it; the variances of those parts over their numbers give its
variance, stratified by label. For AUROC the parts are the placements of DeLong, DeLong and Clarke-Pearson (1988):
the share of images of the other label that an image is ranked right against, ties counting half.
"""

import math
from collections.abc import Sequence

import numpy as np

from ladlib.metrics import Judged

Parts = tuple[np.ndarray, np.ndarray]  # of the anomalous images, of the good ones


def standard_error(measure: str, images: Sequence[Judged]) -> float:
    """Of ``balanced_accuracy``, ``auroc`` or ``format_rate`` (as shares) on images of both labels."""
    return _error(_parts(measure, images))


def paired_error(measure: str, first: Sequence[Judged], second: Sequence[Judged]) -> float:
    """Of the difference between two arms that judged the same images, given in the same order."""
    pairs = zip(_parts(measure, first), _parts(measure, second), strict=True)
    return _error(tuple(one - other for one, other in pairs))


def _error(parts: Parts) -> float:
    return math.sqrt(sum(float(side.var()) / side.size for side in parts))


def _parts(measure: str, images: Sequence[Judged]) -> Parts:
    sides = [[one for one in images if one.anomalous == anomalous] for anomalous in (True, False)]
    if measure == "auroc":
        return _placements(*([one.score for one in side] for side in sides))
    if measure == "balanced_accuracy":
        return tuple(np.array([one.called == one.anomalous for one in side]) / 2 for side in sides)
    return tuple(np.array([one.well_formed for one in side]) * len(side) / len(images) for side in sides)


def _placements(positive: list[float], negative: list[float]) -> Parts:
    ahead = np.subtract.outer(positive, negative)
    won = (ahead > 0) + (ahead == 0) / 2
    return won.mean(axis=1), won.mean(axis=0)

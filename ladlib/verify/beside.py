"""What is stored beside the generations agrees with itself: answers under other conditions, and the detector's."""

from collections import Counter
from collections.abc import Iterator

from ladlib.parsing import parse_answer
from ladlib.records import Detection, Variation, label_of
from ladlib.report.stored import Stored
from ladlib.verify.claim import Claim


def claims(stored: Stored) -> list[Claim]:
    """One claim for each of the two that is there; none of what a run does not have."""
    found = []
    if stored.variations:
        whole = f"{len(stored.variations)} stored answers are what their texts say, each pair once a condition"
        found.append(_claim("sensitivity", [*_variations(stored.variations), *_gaps(stored.variations)], whole))
    if stored.detections:
        whole = f"{len(stored.detections)} stored answers follow from distance and threshold, on the images of all arms"
        found.append(_claim("nearest neighbour", [*_detections(stored.detections), *_images(stored)], whole))
    return found


def _claim(subject: str, faults: list[str], whole: str) -> Claim:
    if not faults:
        return Claim(verdict="held", subject=subject, found=whole)
    return Claim(verdict="failed", subject=subject, found=f"{faults[0]}; faults in all: {len(faults)}")


def _variations(rows: list[Variation]) -> Iterator[str]:
    for one in rows:
        said = parse_answer(one.text)
        if one.answer != said:
            yield f"{_where(one)} stores {one.answer or 'no answer'}, its text says {said or 'no answer'}"
        if one.label != label_of(one.anomaly):
            yield f"{_where(one)} is {one.anomaly}, labelled {one.label}"


def _gaps(rows: list[Variation]) -> Iterator[str]:
    """Every pair is judged once under every condition of its arm and seed."""
    counts = Counter((one.arm, one.seed, one.factor, one.level, one.id) for one in rows)
    conditions = dict.fromkeys(key[:4] for key in counts)
    pairs = dict.fromkeys((one.arm, one.seed, one.id) for one in rows)
    for arm, seed, factor, level in conditions:
        for pair in (pair for *owner, pair in pairs if owner == [arm, seed]):
            count = counts[arm, seed, factor, level, pair]
            if count != 1:
                condition = f"{factor} {level}".strip()
                yield f"{arm}-seed{seed} {condition} {f'judged {count} times' if count else 'lacks'} {pair}"


def _detections(rows: list[Detection]) -> Iterator[str]:
    thresholds: dict[str, float] = {}
    for one in rows:
        said = "yes" if one.distance > one.threshold else "no"
        if one.answer != said:
            yield f"{one.id} stores {one.answer}, its distance {one.distance:.4f} says {said} at {one.threshold:.4f}"
        if thresholds.setdefault(one.category, one.threshold) != one.threshold:
            yield f"{one.id} has another threshold than its category"
        if one.label != label_of(one.anomaly):
            yield f"{one.id} is {one.anomaly}, labelled {one.label}"


def _images(stored: Stored) -> Iterator[str]:
    """The detector judged each image that the arms did, once, and the same bytes."""
    seen = {one.id: one.images_sha256[1] for one in stored.generations}
    counts = Counter(one.id for one in stored.detections)
    yield from (f"{name} judged {counts[name]} times" for name in sorted(seen.keys() | counts) if counts[name] != 1)
    yield from (
        f"{one.id} is another image than the arms saw"
        for one in stored.detections
        if seen.get(one.id) != one.image_sha256
    )


def _where(one: Variation) -> str:
    return f"{one.arm}-seed{one.seed} {f'{one.factor} {one.level}'.strip()} {one.id}"

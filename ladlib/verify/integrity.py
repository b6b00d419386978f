"""A stored run is whole and agrees with itself."""

import math
from collections import Counter
from collections.abc import Callable

from ladlib.errors import UserError, read_json
from ladlib.parsing import parse_answer
from ladlib.records import Generation, label_of
from ladlib.report.stored import Key, Stored
from ladlib.runs import RunFolder
from ladlib.verify.claim import Claim, arms_of, skipped, verdict

TOLERANCE = 1e-9  # of a stored share: the same sums in another order
NOT_RELEASED = ("checkpoints", "data", "notebooks")  # what ladlib.release leaves behind, beside the report …
ROLLOUTS = "-rollouts.jsonl"  # … and of a study these, for their size
REPORT = "report.html"  # made from the stored files at any time, and tells these claims itself
ROW = ("arm", "seed", "subset", "category")


def claims(run: RunFolder, stored: Stored) -> list[Claim]:
    """What can be said without any expectation from outside. Raises :class:`UserError` for a damaged metrics.json."""
    arms = arms_of(stored.generations)
    return [
        _record(stored), _outputs(run, stored), _images(arms), _inputs(arms), _answers(stored.generations),
        _metrics(run, stored.metrics),
    ]  # fmt: skip


def _record(stored: Stored) -> Claim:
    record = stored.record
    wanted = {"versions": record.versions, "hardware": record.hardware, "stages": record.stages}
    whole = f"profile {record.profile}, seed {record.seed}, commit {record.commit[:12] or 'unknown'}"
    return verdict("run.json", [f"{name} are missing" for name, value in wanted.items() if not value], whole)


def _outputs(run: RunFolder, stored: Stored) -> Claim:
    """Every file and folder that a stage wrote is there; a released copy holds none of ``NOT_RELEASED``."""
    subject, outputs = "outputs of the stages", [path for stage in stored.record.stages for path in stage.outputs]
    if not outputs:
        return skipped(subject, "run.json names none")
    missing = [path for path in outputs if not (run.root / path).exists()]
    missing = [path for path in missing if path != REPORT]
    if not any((run.root / name).exists() for name in NOT_RELEASED):
        missing = [path for path in missing if path.split("/")[0] not in NOT_RELEASED and not path.endswith(ROLLOUTS)]
        if not missing:
            return skipped(subject, "a released copy, without checkpoints, datasets and notebooks; the rest is there")
    return verdict(subject, [f"{path} is missing" for path in missing], f"all {len(outputs)} are there")


def _images(arms: dict[Key, list[Generation]]) -> Claim:
    counts = {key: Counter(one.id for one in rows) for key, rows in arms.items()}
    every = sorted(set().union(*counts.values()))
    faults = [
        f"{_name(key)} {'lacks' if not count[image] else f'judged {count[image]} times'} {image}"
        for key, count in counts.items()
        for image in every
        if count[image] != 1
    ]
    return verdict("images", faults, f"{len(every)} images, each judged once by each of {len(arms)} arms and seeds")


def _inputs(arms: dict[Key, list[Generation]]) -> Claim:
    """All arms saw the same prompt, and of each image the same bytes, reference image, and label.

    What an endpoint answered stores the hash of the question alone, since the server adds the chat template.
    """
    rows = [one for of_arm in arms.values() for one in of_arm]
    common = _strays(rows, lambda one: bool(one.served), lambda one: one.prompt_sha256, "another prompt")
    seen = _strays(rows, lambda one: one.id, lambda one: (one.images_sha256, one.reference), "other images")
    truth = _strays(rows, lambda one: one.id, lambda one: (one.category, one.anomaly, one.defect), "another truth")
    wrong = [one for one in rows if one.label != label_of(one.anomaly)]
    labels = [f"{_where(one)} is {one.anomaly}, labelled {one.label}" for one in wrong]
    return verdict("inputs", [*common, *seen, *truth, *labels], "one prompt; the same images and labels in all arms")


def _strays(
    rows: list[Generation], group: Callable[[Generation], object], value: Callable[[Generation], object], what: str
) -> list[str]:
    """A line for each record whose value is not that of the first record of its group."""
    first: dict[object, object] = {}
    return [f"{_where(one)} has {what}" for one in rows if first.setdefault(group(one), value(one)) != value(one)]


def _answers(generations: list[Generation]) -> Claim:
    faults = [
        f"{_where(one)} stores {one.answer or 'no answer'}, its text says {parse_answer(one.text) or 'no answer'}"
        for one in generations
        if one.answer != parse_answer(one.text)
    ]
    return verdict("answers", faults, f"{len(generations)} stored answers are what their texts say")


def _metrics(run: RunFolder, computed: list[dict]) -> Claim:
    subject = "metrics.json"
    if not run.metrics_json.is_file():
        return skipped(subject, "not written yet")
    rows = read_metrics(run)
    kept = {_key(row): row for row in rows}
    faults = [fault for row in computed for fault in _differences(row, kept.get(_key(row)))]
    known = {_key(row) for row in computed}
    faults += [f"{' '.join(key)} is of nothing that is stored" for key in kept if key not in known]
    faults += [f"{len(rows) - len(kept)} rows are there twice"] if len(rows) > len(kept) else []
    return verdict(subject, faults, f"{len(rows)} rows as the generations give them", f"equal to {TOLERANCE:g}")


def read_metrics(run: RunFolder) -> list[dict]:
    """The rows of metrics.json. Raises :class:`UserError` where it is damaged."""
    hint = f"Write it anew: ladlib report --run {run.root}."
    rows = read_json(run.metrics_json, hint)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{run.metrics_json} is damaged.", hint)
    return rows


def _key(row: dict) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ROW)


def _differences(computed: dict, kept: dict | None) -> list[str]:
    place = " ".join(_key(computed))
    if kept is None:
        return [f"{place} is missing"]
    return [
        f"{place} {name} is {kept.get(name, 'absent')}, the generations give {value}"
        for name, value in computed.items()
        if name not in ROW and not _same(value, kept.get(name, "absent"))
    ]


def _same(value: float | None, other: object) -> bool:
    if value is None or not isinstance(other, int | float):
        return value is other
    return math.isclose(value, other, rel_tol=0, abs_tol=TOLERANCE)


def _name(key: Key) -> str:
    return f"{key[0]}-seed{key[1]}"


def _where(one: Generation) -> str:
    return f"{_name((one.arm, one.seed))} {one.id}"

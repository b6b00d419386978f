"""A finished run checked against its checksums, its own texts, the released study and the claims.

>>> for check in verify(RunFolder("results/runs/toy")):  # doctest: +SKIP
...     print(check.line)
passed  metrics.json: 63 rows as the generations give them, expected equal to 1e-09
...

Reads stored files and images only: no model, no torch. On a toy run, three measures must lie in the band of the
study's seeds (lowest to highest) on the images that both share (same id and bytes), widened by 1.96 standard errors of
the difference between two of the study's seeds, averaged over their pairs: three seeds span a range that a fourth
leaves half of the time, and a poor run does not widen its own band.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ladlib import checksums, claims
from ladlib.data import find_dataset
from ladlib.data.images import sha256
from ladlib.errors import UserError
from ladlib.metrics import SUBSETS, measure, outcomes
from ladlib.parsing import parse_answer
from ladlib.records import Record, label_of
from ladlib.results import RunResults, load_answers, load_run, profile_of, read_metrics
from ladlib.runs import STUDY, RunFolder, find, stored
from ladlib.statistics import paired_error

TOLERANCE = 1e-9  # of a stored share: the same sums in another order
NOT_RELEASED = ("checkpoints", "data", "notebooks", "figures", "report.html")  # what a released copy leaves out …
ROLLOUTS = "-rollouts.jsonl"  # … and of a study these, for their size
ROW = ["arm", "seed", "subset", "category"]
BANDS = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "format_rate": "well formed"}
ROUNDING = 0.02  # a share
LEVEL = 1.96  # standard errors: 95 % of a normal distribution


class Check(Record):
    """One line; ``failed`` makes the command fail, ``skipped`` could not be examined, ``note`` only informs."""

    verdict: Literal["passed", "failed", "skipped", "note"]
    subject: str
    found: str  # the measured value, or why the check was skipped
    expected: str = ""  # the band, with the tolerance in it

    @property
    def line(self) -> str:
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{self.verdict:<7} {self.subject}: {self.found}{expected}"


def verify(run: RunFolder, released: RunFolder | None = None) -> list[Check]:
    """All checks of ``run``; ``released`` is the study it is compared with, the committed one where None.

    Raises :class:`UserError` where the folder is no run, or a stored file cannot be read.
    """
    results = load_run(run)
    answers = results.answers
    unknown = answers[answers["p_yes"].isna() & (answers["served"] == "")]
    if len(unknown):
        arm, seed, image = unknown.iloc[0][["arm", "seed", "id"]]
        hint = "Move the file away and evaluate again."
        raise UserError(f"{run.generations(arm, seed)}: p_yes of {image} is missing.", hint)
    return [
        _record(results), _outputs(results), _images(answers), _inputs(answers),
        _faults("answers", _texts(answers), f"{len(answers)} stored answers are what their texts say"),
        _metrics(results), *_variations(results.variations), *_detections(results), *_checksums(run),
        _image_files(results), *(_study(results, released or STUDY) if results.is_toy else ()), *_order(results),
        *_claims(results),
    ]  # fmt: skip


def skipped(subject: str, reason: str) -> Check:
    return Check(verdict="skipped", subject=subject, found=reason)


def _faults(subject: str, faults: Iterable[str], whole: str, expected: str = "") -> Check:
    """Failed with the first of ``faults``, else passed with ``whole``."""
    faults = list(faults)
    if not faults:
        return Check(verdict="passed", subject=subject, found=whole, expected=expected)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Check(verdict="failed", subject=subject, found=faults[0] + more, expected=expected)


def within(subject: str, value: float, low: float, high: float, basis: str) -> Check:
    """The check that a share lies in [low, high]; all are shares in 0..1, printed x 100."""
    low, high = max(0.0, low), min(1.0, high)
    side = "" if low <= value <= high else " (below)" if value < low else " (above)"
    expected = f"{100 * low:.1f} to {100 * high:.1f} ({basis})"
    verdict = "failed" if side else "passed"
    return Check(verdict=verdict, subject=subject, found=f"{100 * value:.1f}{side}", expected=expected)


# The stored run is whole and agrees with itself


def _record(results: RunResults) -> Check:
    record = results.record
    wanted = {"versions": record.versions, "hardware": record.hardware, "stages": record.stages}
    whole = f"profile {record.profile}, seed {record.seed}, commit {record.commit[:12] or 'unknown'}"
    return _faults("run.json", [f"{name} are missing" for name, value in wanted.items() if not value], whole)


def _outputs(results: RunResults) -> Check:
    """Every file and folder that a stage wrote is there; a released copy holds none of ``NOT_RELEASED``."""
    subject, root = "outputs of the stages", results.run.root
    outputs = [path for stage in results.record.stages for path in stage.outputs]
    if not outputs:
        return skipped(subject, "run.json names none")
    missing = [path for path in outputs if not ((root / path).exists() or find(root / path) or path == "report.html")]
    if not any((root / name).exists() for name in NOT_RELEASED if name != "figures"):
        missing = [path for path in missing if path.split("/")[0] not in NOT_RELEASED and not path.endswith(ROLLOUTS)]
        if not missing:
            return skipped(subject, "a released copy, without checkpoints, datasets and notebooks; the rest is there")
    return _faults(subject, [f"{path} is missing" for path in missing], f"all {len(outputs)} are there")


def _where(row: object) -> str:
    changed = f" {row.factor} {row.level}".rstrip() if hasattr(row, "factor") else ""
    return f"{row.arm}-seed{row.seed}{changed} {row.id}"


def _images(answers: pd.DataFrame) -> Check:
    keys, images = answers.drop_duplicates(["arm", "seed"]), answers["id"].nunique()
    whole = f"{images} images, each judged once by each of {len(keys)} arms and seeds"
    return _faults("images", _not_once(answers, ["arm", "seed"]), whole)


def _not_once(rows: pd.DataFrame, keys: list[str]) -> list[str]:
    """A line for each group of ``keys`` and image that has not one row."""
    groups = [rows[key].astype(str) for key in keys]
    counts = pd.crosstab(rows["id"], groups[0].str.cat(groups[1], "-seed").str.cat(groups[2:], " ").str.rstrip())
    columns = ((group, column[column != 1]) for group, column in counts.items())
    return [f"{group} {_times(count)} {image}" for group, column in columns for image, count in column.items()]


def _times(count: int) -> str:
    return f"judged {count} times" if count else "lacks"


def _inputs(answers: pd.DataFrame) -> Check:
    """All arms saw the same prompt, and of each image the same bytes, reference image, and label.

    What an endpoint answered stores the hash of the question alone, since the server adds the chat template.
    """
    faults = [
        *_strays(answers, answers["served"] != "", ["prompt_sha256"], "another prompt"),
        *_strays(answers, answers["id"], ["images_sha256", "reference"], "other images"),
        *_strays(answers, answers["id"], ["category", "anomaly", "defect"], "another truth"), *_labels(answers),
    ]  # fmt: skip
    return _faults("inputs", faults, "one prompt; the same images and labels in all arms")


def _strays(answers: pd.DataFrame, group: pd.Series, columns: list[str], what: str) -> Iterator[str]:
    """A line for each row whose values are not those of the first row of its group."""
    same = (answers[columns] == answers.groupby(group)[columns].transform("first")).all(axis=1)
    return (f"{_where(row)} has {what}" for row in answers[~same].itertuples())


def _labels(answers: pd.DataFrame) -> Iterator[str]:
    wrong = answers[answers["label"] != answers["anomaly"].map(label_of)]
    return (f"{row.id} is {row.anomaly}, labelled {row.label}" for row in wrong.itertuples())


def _texts(answers: pd.DataFrame) -> Iterator[str]:
    for row in answers.itertuples():
        parsed, kept = parse_answer(row.text), row.answer if isinstance(row.answer, str) else None
        if kept != parsed:
            yield f"{_where(row)} stores {kept or 'no answer'}, its text says {parsed or 'no answer'}"


def _metrics(results: RunResults) -> Check:
    subject = "metrics.json"
    if not results.run.metrics_json.is_file():
        return skipped(subject, "not written yet")
    rows = read_metrics(results.run)
    kept, computed = ({tuple(str(row.get(name)) for name in ROW): row for row in of} for of in (rows, results.scores))
    faults = [fault for key, row in computed.items() for fault in _different(" ".join(key), row, kept.get(key))]
    faults += [f"{' '.join(key)} is of nothing that is stored" for key in kept if key not in computed]
    faults += [f"{len(rows) - len(kept)} rows are there twice"] if len(rows) > len(kept) else []
    return _faults(subject, faults, f"{len(rows)} rows as the generations give them", f"equal to {TOLERANCE:g}")


def _different(key: str, computed: dict, kept: dict | None) -> list[str]:
    if kept is None:
        return [f"{key} is missing"]
    return [
        f"{key} {name} is {kept.get(name, 'absent')}, the generations give {value}"
        for name, value in computed.items()
        if name not in ROW and not _same(value, kept.get(name, "absent"))
    ]


def _same(value: float | None, other: object) -> bool:
    if value is None or not isinstance(other, int | float):
        return value is other
    return math.isclose(value, other, rel_tol=0, abs_tol=TOLERANCE)


def _variations(rows: pd.DataFrame) -> Iterator[Check]:
    """Every pair is judged once per changed input of its arm and seed, and the texts say what is stored."""
    if len(rows):
        parts = [part for _, part in rows.groupby(["arm", "seed"])]
        gaps = [fault for part in parts for fault in _not_once(part, ["arm", "seed", "factor", "level"])]
        whole = f"{len(rows)} stored answers are what their texts say, each pair once a condition"
        yield _faults("sensitivity", [*_texts(rows), *_labels(rows), *gaps], whole)


def _detections(results: RunResults) -> Iterator[Check]:
    """The detector's answers follow from its distances; it judged each image of the arms once, and the same bytes."""
    rows, seen = results.detections, dict(zip(results.answers["id"], results.answers["images_sha256"], strict=True))
    if rows.empty:
        return
    first = rows.groupby("category")["threshold"].transform("first")
    faults = list(_labels(rows))
    for row, threshold in zip(rows.itertuples(), first, strict=True):
        answer = "yes" if row.distance > row.threshold else "no"
        if row.answer != answer:
            faults.append(f"{row.id} stores {row.answer}, its distance {row.distance:.4f} says {answer}")
        if row.threshold != threshold:
            faults.append(f"{row.id} has another threshold than its category")
        if row.id in seen and row.image_sha256 != seen[row.id][1]:
            faults.append(f"{row.id} is another image than the arms saw")
    counts = rows["id"].value_counts().reindex(sorted({*rows["id"], *seen}), fill_value=0)
    faults += [f"{image} judged {count} times" for image, count in counts[counts != 1].items()]
    faults += [f"{image} was seen by no arm" for image in rows["id"] if image not in seen]
    whole = f"{len(rows)} stored answers follow from distance and threshold, on the images of all arms"
    yield _faults("nearest neighbour", faults, whole)


def _checksums(run: RunFolder) -> list[Check]:
    count, missing = len(checksums.read(run)), checksums.missing(run)
    if not count:
        return [skipped("checksums", "this run has none")]
    whole = _faults("checksums", checksums.verify(run), f"{count} stored files are as they were made")
    return [whole, *([skipped("checksums", f"none for {', '.join(missing)}")] if missing else [])]


def _image_files(results: RunResults) -> Check:
    """Each judged image has the bytes that were judged."""
    subject, root = "image files", Path(str(results.record.parameters.get("data") or results.run.data))
    folders = {dataset: _folder(root, dataset) for dataset in results.answers["dataset"].unique()}
    digests = {
        folders[row.dataset] / path: digest
        for row in results.answers.itertuples() if folders[row.dataset]
        for path, digest in zip((row.reference, row.test), row.images_sha256, strict=True)
    }  # fmt: skip
    if not digests:
        return skipped(subject, "the datasets are not at hand")
    faults = (fault for path, digest in digests.items() if (fault := _changed_image(path, digest)))
    return _faults(subject, faults, f"{len(digests)} have the bytes that were judged")


def _folder(root: Path, dataset: str) -> Path | None:
    try:
        return find_dataset(root, dataset)
    except UserError:
        return None


def _changed_image(path: Path, digest: str) -> str:
    if not path.is_file():
        return f"{path} is missing"
    return "" if sha256(path) == digest else f"{path} is not the file that was judged"


# A toy run in the band of the released study


def _study(results: RunResults, released: RunFolder) -> list[Check]:
    """Three checks of each arm and seed, or one skipped line with the reason."""
    if reason := _incomparable(results, released):
        return [skipped("study", reason)]
    study = _by_arm(load_answers(released))
    return [
        check
        for (arm, seed), own in _by_arm(results.answers).items()
        for check in _in_band(f"{arm}-seed{seed}", own, [rows for (name, _), rows in study.items() if name == arm])
    ]


def _by_arm(answers: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """The good + logical answers of each arm and seed."""
    return dict(list(answers[answers["anomaly"].isin(SUBSETS["logical"])].groupby(["arm", "seed"], sort=False)))


def _incomparable(results: RunResults, released: RunFolder) -> str:
    """Why the run cannot be compared with the study; "" where it can."""
    if not (released.run_json.is_file() and stored(released.root / "generations")):
        return "no released study in this installation"
    if results.run.root.resolve() == released.root.resolve():
        return "this is the released study itself"
    record = released.read()
    if record.profile != results.record.profile:
        return f"it is of profile {record.profile}, this run of profile {results.record.profile}"
    theirs = profile_of(record)
    for section in ("sft", "grpo"):
        study = getattr(theirs, section).model_dump()
        for name, value in getattr(results.profile, section).model_dump().items():
            if value != study[name] and name != "micro_batch_size":  # that one changes memory only
                return f"{section}.{name} is {value} in this run, {study[name]} in the study"
    return ""


def _in_band(name: str, own: pd.DataFrame, seeds: list[pd.DataFrame]) -> list[Check]:
    if served := own["served"].iloc[0]:
        return [skipped(name, f"answered by {served}, no model of the study")]
    if not seeds:
        return [skipped(name, "the study has no such arm")]
    images, *others = (_outcomes_by_image(rows) for rows in (own, *seeds))
    shared = sorted(set(images.index).intersection(*(other.index for other in others)))
    if 2 * len(shared) < len(images) or images.loc[shared, "anomalous"].nunique() < 2:
        return [skipped(name, "the study has too few of its good and logical images")]
    images, *others = (frame.loc[shared] for frame in (images, *others))
    return [_band(name, key, images, others) for key in BANDS]


def _outcomes_by_image(rows: pd.DataFrame) -> pd.DataFrame:
    keys = list(zip(rows["dataset"], rows["id"], rows["images_sha256"], strict=True))
    frame = outcomes(rows).set_axis(pd.Index(keys, tupleize_cols=False))
    return frame[~frame.index.duplicated(keep="last")]


def _band(name: str, key: str, images: pd.DataFrame, seeds: list[pd.DataFrame]) -> Check:
    values = [measure(seed)[key] for seed in seeds]
    errors = [paired_error(key, *two) for two in combinations(seeds, 2)]
    tolerance, low, high = max(LEVEL * float(np.mean(errors or [0.0])), ROUNDING), min(values), max(values)
    span = f"{100 * low:.1f} to {100 * high:.1f} over {len(values)} seeds" if len(values) > 1 else f"{100 * low:.1f}"
    basis = f"study {span}, tolerance {100 * tolerance:.1f}, on {len(images)} shared images"
    return within(f"{name} {BANDS[key]}", measure(images)[key], low - tolerance, high + tolerance, basis)


def _order(results: RunResults) -> Iterator[Check]:
    """``sft_grpo`` above ``base`` in each seed; base may have run once for all seeds."""
    rows = results.metrics.query("subset == 'logical' and category == 'pooled'").set_index(["arm", "seed"])
    scores = rows["balanced_accuracy"]
    if results.record.profile == "smoke":
        yield skipped("order", "profile smoke learns nothing")
    elif not {"base", "sft_grpo"} <= {arm for arm, _ in scores.index}:
        yield skipped("order", "base and sft_grpo have not both been run")
    else:
        for seed, own in scores["sft_grpo"].items():
            subject, base = f"sft_grpo-seed{seed} above base", scores["base"].get(seed, scores["base"].iloc[0])
            if pd.isna(own) or pd.isna(base):
                yield skipped(subject, "no good or no logical images to score")
                continue
            found = f"balanced accuracy {100 * own:.1f} against {100 * base:.1f}"
            yield _faults(subject, [] if own > base else [found], found, "above")


def _claims(results: RunResults) -> Iterator[Check]:
    """Each claim of ``results/claims.yml``: what is expected of a run on real data can fail, the rest informs."""
    table = claims.table(results)
    for row, text in zip(table.to_dict("records"), claims.readable(table).to_dict("records"), strict=True):
        subject = f"claim {row['id']}"
        if row["status"] == claims.UNTESTED:
            yield skipped(subject, claims.UNTESTED)
        else:
            found = f"{row['status']}, {text['measured']} ({text['interval']})"
            decided = "passed" if row["status"] == "holds" else "failed"
            verdict = decided if row["basis"] == "real data" else "note"
            yield Check(verdict=verdict, subject=subject, found=found, expected=row["expected"])

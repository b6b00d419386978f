"""A finished run checked against its checksums, its own texts, the released study and the claims.

>>> for check in verify(RunFolder("results/runs/toy")):  # doctest: +SKIP
...     print(check.line)
passed  metrics.json: 63 rows as the generations give them, expected equal to 1e-09
...

Reads stored files and images only: no model, no torch.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from ladlib import bands, checksums, claims
from ladlib.checksums import sha256
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.parsing import parse_answer
from ladlib.records import Check, label_of
from ladlib.results import RunResults, load_run, read_metrics
from ladlib.runs import STUDY, RunFolder, find

TOLERANCE = 1e-9  # of a stored share: the same sums in another order
NOT_RELEASED = ("checkpoints", "data", "notebooks", "figures", "report.html")  # what a released copy leaves out …
ROLLOUTS = "-rollouts.jsonl"  # … and of a study these, for their size
ROW = ["arm", "seed", "subset", "category"]


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
        _image_files(results), *(bands.compare(results, released or STUDY) if results.is_toy else ()), *_order(results),
        *_claims(results),
    ]  # fmt: skip


def _faults(subject: str, faults: Iterable[str], whole: str, expected: str = "") -> Check:
    """Failed with the first of ``faults``, else passed with ``whole``."""
    first, *others = [*faults, ""]
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    verdict = "failed" if first else "passed"
    return Check(verdict=verdict, subject=subject, found=first + more or whole, expected=expected)


# The stored run is whole and agrees with itself


def _record(results: RunResults) -> Check:
    record = results.record
    missing = [f"{name} are missing" for name in ("versions", "hardware", "stages") if not getattr(record, name)]
    whole = f"profile {record.profile}, seed {record.seed}, commit {record.commit[:12] or 'unknown'}"
    return _faults("run.json", missing, whole)


def _outputs(results: RunResults) -> Check:
    """Every file and folder that a stage wrote is there; a released copy holds none of ``NOT_RELEASED``."""
    subject, root = "outputs of the stages", results.run.root
    outputs = [path for stage in results.record.stages for path in stage.outputs]
    if not outputs:
        return Check.skipped(subject, "run.json names none")
    missing = [path for path in outputs if not ((root / path).exists() or find(root / path) or path == "report.html")]
    if not any((root / name).exists() for name in NOT_RELEASED if name != "figures"):
        missing = [path for path in missing if path.split("/")[0] not in NOT_RELEASED and not path.endswith(ROLLOUTS)]
        if not missing:
            return Check.skipped(subject, "a released copy, without checkpoints and data; the rest is there")
    return _faults(subject, [f"{path} is missing" for path in missing], f"all {len(outputs)} are there")


def _images(answers: pd.DataFrame) -> Check:
    arms, images = len(answers.drop_duplicates(["arm", "seed"])), answers["id"].nunique()
    whole = f"{images} images, each judged once by each of {arms} arms and seeds"
    return _faults("images", _not_once(answers, _owner(answers)), whole)


def _owner(rows: pd.DataFrame) -> pd.Series:
    """``arm-seed0`` of each row, and of changed inputs what was changed."""
    owner = rows["arm"] + "-seed" + rows["seed"].astype(str)
    return (owner + " " + rows["factor"] + " " + rows["level"]).str.rstrip() if "factor" in rows else owner


def _not_once(rows: pd.DataFrame, owner: pd.Series) -> list[str]:
    """A line for each owner and image that has not one row."""
    counts = pd.crosstab(owner, rows["id"]).stack()
    return [f"{name} {_times(count)} {image}" for (name, image), count in counts[counts != 1].items()]


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
    strays = answers[(answers[columns] != answers.groupby(group)[columns].transform("first")).any(axis=1)]
    return (f"{owner} {image} has {what}" for owner, image in zip(_owner(strays), strays["id"], strict=True))


def _labels(answers: pd.DataFrame) -> Iterator[str]:
    wrong = answers[answers["label"] != answers["anomaly"].map(label_of)]
    return (f"{row.id} is {row.anomaly}, labelled {row.label}" for row in wrong.itertuples())


def _texts(answers: pd.DataFrame) -> Iterator[str]:
    rows = zip(_owner(answers), answers["id"], answers["answer"], answers["text"].map(parse_answer), strict=True)
    for owner, image, kept, parsed in rows:
        kept, parsed = (one if isinstance(one, str) else "no answer" for one in (kept, parsed))
        if kept != parsed:
            yield f"{owner} {image} stores {kept}, its text says {parsed}"


def _metrics(results: RunResults) -> Check:
    if not results.run.metrics_json.is_file():
        return Check.skipped("metrics.json", "not written yet")
    rows = read_metrics(results.run)
    kept, computed = (
        {" ".join(str(row.get(name)) for name in ROW): row for row in of} for of in (rows, results.scores)
    )
    faults = [f"{key} is missing" for key in computed if key not in kept]
    faults += [
        f"{key} {name} is {kept[key].get(name, 'absent')}, the generations give {value}"
        for key, row in computed.items() if key in kept
        for name, value in row.items() if name not in ROW and not _same(value, kept[key].get(name, "absent"))
    ]  # fmt: skip
    faults += [f"{key} is of nothing that is stored" for key in kept if key not in computed]
    faults += [f"{len(rows) - len(kept)} rows are there twice"] if len(rows) > len(kept) else []
    whole = f"{len(rows)} rows as the generations give them"
    return _faults("metrics.json", faults, whole, f"equal to {TOLERANCE:g}")


def _same(value: float | None, other: object) -> bool:
    if value is None or not isinstance(other, int | float):
        return value is other
    return math.isclose(value, other, rel_tol=0, abs_tol=TOLERANCE)


def _variations(rows: pd.DataFrame) -> Iterator[Check]:
    """Every pair is judged once per changed input of its arm and seed, and the texts say what is stored."""
    if len(rows):
        gaps = [fault for _, part in rows.groupby(["arm", "seed"]) for fault in _not_once(part, _owner(part))]
        whole = f"{len(rows)} stored answers are what their texts say, each pair once a condition"
        yield _faults("sensitivity", [*_texts(rows), *_labels(rows), *gaps], whole)


def _detections(results: RunResults) -> Iterator[Check]:
    """The detector's answers follow from its distances; it judged each image of the arms once, and the same bytes."""
    rows, seen = results.detections, dict(zip(results.answers["id"], results.answers["images_sha256"], strict=True))
    if rows.empty:
        return
    faults, thresholds = list(_labels(rows)), rows.groupby("category")["threshold"].transform("first")
    for row, threshold in zip(rows.itertuples(), thresholds, strict=True):
        answer = "yes" if row.distance > row.threshold else "no"
        if row.answer != answer:
            faults.append(f"{row.id} stores {row.answer}, its distance {row.distance:.4f} says {answer}")
        if row.threshold != threshold:
            faults.append(f"{row.id} has another threshold than its category")
        if row.image_sha256 != seen.get(row.id, ("", ""))[1]:
            faults.append(f"{row.id} is another image than the arms saw")
    counts = rows["id"].value_counts().reindex([*seen], fill_value=0)
    faults += [f"{image} judged {count} times" for image, count in counts[counts != 1].items()]
    whole = f"{len(rows)} stored answers follow from distance and threshold, on the images of all arms"
    yield _faults("nearest neighbour", faults, whole)


def _checksums(run: RunFolder) -> list[Check]:
    count, missing = len(checksums.read(run)), checksums.missing(run)
    if not count:
        return [Check.skipped("checksums", "this run has none")]
    whole = _faults("checksums", checksums.verify(run), f"{count} stored files are as they were made")
    return [whole, *([Check.skipped("checksums", f"none for {', '.join(missing)}")] if missing else [])]


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
        return Check.skipped(subject, "the datasets are not at hand")
    faults = [f"{path} is missing" for path in digests if not path.is_file()]
    same = (path for path, digest in digests.items() if path.is_file() and sha256(path) != digest)
    faults += [f"{path} is not the file that was judged" for path in same]
    return _faults(subject, faults, f"{len(digests)} have the bytes that were judged")


def _folder(root: Path, dataset: str) -> Path | None:
    try:
        return find_dataset(root, dataset)
    except UserError:
        return None


# Training that helped, and the claims


def _order(results: RunResults) -> Iterator[Check]:
    """``sft_grpo`` above ``base`` in each seed; base may have run once for all seeds."""
    rows = results.metrics.query("subset == 'logical' and category == 'pooled'").set_index(["arm", "seed"])
    scores = rows["balanced_accuracy"].astype(float)
    if results.record.profile == "smoke":
        yield Check.skipped("order", "profile smoke learns nothing")
    elif not {"base", "sft_grpo"} <= {arm for arm, _ in scores.index}:
        yield Check.skipped("order", "base and sft_grpo have not both been run")
    else:
        for seed, own in scores["sft_grpo"].items():
            subject, base = f"sft_grpo-seed{seed} above base", scores["base"].get(seed, scores["base"].iloc[0])
            found = f"balanced accuracy {100 * own:.1f} against {100 * base:.1f}"
            known = not (pd.isna(own) or pd.isna(base))
            yield (
                _faults(subject, [] if own > base else [found], found, "above")
                if known
                else Check.skipped(subject, "no good or no logical images to score")
            )


def _claims(results: RunResults) -> Iterator[Check]:
    """Each claim of ``results/claims.yml``: what is expected of a run on real data can fail, the rest informs."""
    table = claims.table(results)
    for row, text in zip(table.to_dict("records"), claims.readable(table).to_dict("records"), strict=True):
        subject, found = f"claim {row['id']}", f"{row['status']}, {text['measured']} ({text['interval']})"
        decided = "passed" if row["status"] == "holds" else "failed"
        verdict = decided if row["basis"] == "real data" else "note"
        known = row["status"] != claims.UNTESTED
        yield (
            Check(verdict=verdict, subject=subject, found=found, expected=row["expected"])
            if known
            else Check.skipped(subject, claims.UNTESTED)
        )

"""A finished run checked against its checksums, its own texts, the released study and the claims.

>>> for check in verify(RunFolder("results/runs/toy")):  # doctest: +SKIP
...     print(check.line)
passed  metrics.json: 63 rows as the generations give them
...

Reads stored files and images only: no model, no torch.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ladlib import checksums, claims
from ladlib.checksums import sha256
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.parsing import parse_answer
from ladlib.records import Check, label_of
from ladlib.results import RunResults, load_run, read_metrics
from ladlib.runs import STUDY, RunFolder, find, stored
from ladlib.statistics import RULES, bootstrap, seeds_of

TOLERANCE = 1e-9  # of a stored share: the same sums in another order
NOT_RELEASED = ("checkpoints", "data", "notebooks")  # what a released copy leaves out …
REMADE = ("figures", "report.html")  # … what `ladlib report` makes of it …
ROLLOUTS = "-rollouts.jsonl"  # … and what a study leaves out for its size
ROW = ["arm", "seed", "subset", "category"]
BANDS = {"strict": "balanced accuracy", "likelihood": "AUROC"}
ROUNDING = 0.02  # the least tolerance, a share: an untrained arm has one seed, but other processors round otherwise
LEVEL = 1.96  # standard errors: 95 % of a normal distribution


def verify(run: RunFolder, released: RunFolder | None = None) -> list[Check]:
    """All checks of ``run``; ``released`` is the study it is compared with, the committed one where None.

    Raises :class:`UserError` where the folder is no run, or a stored file cannot be read.
    """
    try:
        results = load_run(run)
    except UserError as error:  # of a changed file it may tell the consequence alone
        raise UserError(". ".join([*checksums.verify(run)[:1], error.what]), error.hint) from error
    unknown = results.answers[results.answers["p_yes"].isna() & (results.answers["served"] == "")]
    if len(unknown):
        arm, seed, image = unknown.iloc[0][["arm", "seed", "id"]]
        hint = "Move the file away and evaluate again."
        raise UserError(f"{run.generations(arm, seed)}: p_yes of {image} is missing.", hint)
    return [
        *_record(results), *_answers(results.answers), _metrics(results), *_variations(results.variations),
        *_detections(results), *_checksums(run), _image_files(results),
        *(_bands(results, released or STUDY) if results.is_toy else ()), *_claims(results),
    ]  # fmt: skip


def _check(subject: str, faults: Iterable[str], whole: str, expected: str = "") -> Check:
    """Failed with the first of ``faults``, else passed with ``whole``."""
    first, *others = [*faults, ""]
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    verdict = "failed" if first else "passed"
    return Check(verdict=verdict, subject=subject, found=first + more or whole, expected=expected)


# The stored run is whole and agrees with itself


def _record(results: RunResults) -> Iterator[Check]:
    """What a run was made with is known, and each output of its stages is there.

    A released copy has none of ``NOT_RELEASED``.
    """
    record, root, subject = results.record, results.run.root, "outputs of the stages"
    unknown = [f"{name} are missing" for name in ("versions", "hardware", "stages") if not getattr(record, name)]
    commit = record.commit[:12] or "unknown"
    yield _check("run.json", unknown, f"profile {record.profile}, seed {record.seed}, commit {commit}")
    outputs = [path for stage in record.stages for path in stage.outputs]
    missing = [path for path in outputs if not ((root / path).exists() or find(root / path) or path == "report.html")]
    is_copy = bool(missing) and not any((root / name).exists() for name in NOT_RELEASED)
    if is_copy:
        left_out = (*NOT_RELEASED, *REMADE)
        missing = [path for path in missing if path.split("/")[0] not in left_out and not path.endswith(ROLLOUTS)]
    whole = f"all {len(outputs)} are there" + (" but those that a released copy leaves out" if is_copy else "")
    yield _check(subject, [f"{path} is missing" for path in missing], whole)


def _answers(answers: pd.DataFrame) -> Iterator[Check]:
    """Each image is judged once by each arm and seed, all saw the same, and the stored answers are those of the texts.

    What an endpoint answered stores the hash of the question alone, since the server adds the chat template.
    """
    arms, images = len(answers.drop_duplicates(["arm", "seed"])), answers["id"].nunique()
    yield _check("images", _not_once(answers), f"{images} images, each judged once by each of {arms} arms and seeds")
    inputs = [
        *_strays(answers, answers["served"] != "", ["prompt_sha256"], "another prompt"),
        *_strays(answers, answers["id"], ["images_sha256", "reference"], "other images"),
        *_strays(answers, answers["id"], ["category", "anomaly", "defect"], "another truth"), *_labels(answers),
    ]  # fmt: skip
    yield _check("inputs", inputs, "one prompt; the same images and labels in all arms")
    yield _check("answers", _texts(answers), f"{len(answers)} stored answers are what their texts say")


def _owner(rows: pd.DataFrame) -> pd.Series:
    """``arm-seed0`` of each row, and of changed inputs what was changed."""
    owner = rows["arm"] + "-seed" + rows["seed"].astype(str)
    return (owner + " " + rows["factor"] + " " + rows["level"]).str.rstrip() if "factor" in rows else owner


def _not_once(rows: pd.DataFrame) -> list[str]:
    """A line for each owner and image that has not one row."""
    counts = pd.crosstab(_owner(rows), rows["id"]).stack()
    return [f"{owner} judged {image} {count} times" for (owner, image), count in counts[counts != 1].items()]


def _strays(answers: pd.DataFrame, group: pd.Series, columns: list[str], what: str) -> list[str]:
    """A line for each row whose values are not those of the first row of its group."""
    strays = answers[(answers[columns] != answers.groupby(group)[columns].transform("first")).any(axis=1)]
    return [f"{owner} {image} has {what}" for owner, image in zip(_owner(strays), strays["id"], strict=True)]


def _labels(answers: pd.DataFrame) -> list[str]:
    wrong = answers[answers["label"] != answers["anomaly"].map(label_of)]
    return [f"{row.id} is {row.anomaly}, labelled {row.label}" for row in wrong.itertuples()]


def _texts(answers: pd.DataFrame) -> Iterator[str]:
    for owner, row in zip(_owner(answers), answers.itertuples(), strict=True):
        parsed = parse_answer(row.text)
        if row.answer != parsed:
            yield f"{owner} {row.id} stores {row.answer or 'no answer'}, its text says {parsed or 'no answer'}"


def _metrics(results: RunResults) -> Check:
    if not results.run.metrics_json.is_file():
        return Check.skipped("metrics.json", "not written yet")
    rows, columns = read_metrics(results.run), results.metrics.columns
    kept, computed = (pd.DataFrame(of).reindex(columns=columns).set_index(ROW) for of in (rows, results.scores))
    names = {
        "is missing": computed.index.difference(kept.index, sort=False),
        "is of nothing that is stored": kept.index.difference(computed.index, sort=False),
        "is there twice": kept.index[kept.index.duplicated()],
    }
    faults = [f"{_name(row)} {what}" for what, index in names.items() for row in index]
    kept = kept[~kept.index.duplicated() & kept.index.isin(computed.index)].apply(pd.to_numeric, errors="coerce")
    computed = computed.loc[kept.index].astype(float)
    same = np.isclose(kept, computed, rtol=0, atol=TOLERANCE, equal_nan=True)
    for row, key in np.argwhere(~same):
        values = f"{kept.iat[row, key]}, the generations give {computed.iat[row, key]}"
        faults.append(f"{_name(kept.index[row])} {kept.columns[key]} is {values}")
    return _check("metrics.json", faults, f"{len(rows)} rows as the generations give them")


def _name(row: tuple) -> str:
    return " ".join(map(str, row))


def _variations(rows: pd.DataFrame) -> Iterator[Check]:
    """Every pair is judged once per changed input of its arm and seed, and the texts say what is stored."""
    if len(rows):
        gaps = [fault for _, part in rows.groupby(["arm", "seed"]) for fault in _not_once(part)]
        whole = f"{len(rows)} stored answers are what their texts say, each pair once a condition"
        yield _check("sensitivity", [*_texts(rows), *_labels(rows), *gaps], whole)


def _detections(results: RunResults) -> Iterator[Check]:
    """The detector's answers follow from its distances; it judged each image of the arms once, and the same bytes."""
    rows, seen = results.detections, results.answers.drop_duplicates("id").set_index("id")["images_sha256"]
    if rows.empty:
        return
    bytes_seen = rows["id"].map(seen.str[1])
    answers = np.where(rows["distance"] > rows["threshold"], "yes", "no")
    counts = rows["id"].value_counts().reindex(seen.index, fill_value=0)
    faults = [
        *_labels(rows),
        *(f"{image} has another answer than its distance gives" for image in rows["id"][rows["answer"] != answers]),
        *(f"{image} is another image than the arms saw" for image in rows["id"][rows["image_sha256"] != bytes_seen]),
        *(f"{image} judged {count} times" for image, count in counts[counts != 1].items()),
    ]
    whole = f"{len(rows)} stored answers follow from distance and threshold, on the images of all arms"
    yield _check("nearest neighbour", faults, whole)


def _checksums(run: RunFolder) -> Iterator[Check]:
    count, missing = len(checksums.read(run)), checksums.missing(run)
    if not count:
        yield Check.skipped("checksums", "this run has none")
        return
    yield _check("checksums", checksums.verify(run), f"{count} stored files are as they were made")
    if missing:
        yield Check.skipped("checksums", f"none for {', '.join(missing)}")


def _image_files(results: RunResults) -> Check:
    """Each judged image has the bytes that were judged."""
    root, digests = Path(str(results.record.parameters.get("data") or results.run.data)), {}
    for dataset, rows in results.answers.groupby("dataset"):
        with suppress(UserError):
            folder = find_dataset(root, dataset)
            for row in rows.itertuples():
                digests |= {folder / row.reference: row.images_sha256[0], folder / row.test: row.images_sha256[1]}
    if not digests:
        return Check.skipped("image files", "the datasets are not at hand")
    changed = [path for path, digest in digests.items() if not path.is_file() or sha256(path) != digest]
    faults = [f"{path} is missing or not the file that was judged" for path in changed]
    return _check("image files", faults, f"{len(digests)} have the bytes that were judged")


# A toy run in the bands of the released study


def _bands(results: RunResults, released: RunFolder) -> Iterator[Check]:
    """Two measures of each arm and seed, or one skipped line with the reason.

    They must lie between the study's lowest and highest seed, on the images that both share (same id and bytes),
    widened by 1.96 standard errors of the difference between two of the study's seeds, averaged over their pairs: three
    seeds span a range that a fourth leaves half of the time, and a poor run does not widen its own band.
    """
    if reason := _incomparable(results, released):
        yield Check.skipped("study", reason)
        return
    study = load_run(released).images
    for (arm, seed), own in results.images.items():
        name, served = f"{arm}-seed{seed}", results.of(arm)["served"].iloc[0]
        if served:
            yield Check.skipped(name, f"answered by {served}, no model of the study")
        else:
            yield from _in_bands(name, own, seeds_of(study, arm))


def _incomparable(results: RunResults, released: RunFolder) -> str:
    """Why the run cannot be compared with the study; "" where it can."""
    if not (released.run_json.is_file() and stored(released.root / "generations")):
        return "no released study in this installation"
    if results.run.root.resolve() == released.root.resolve() or _is_copy(results.run, released):
        return "this is the released study itself"
    ours, theirs = results.profile, load_run(released).profile
    if theirs.name != ours.name:
        return f"it is of profile {theirs.name}, this run of profile {ours.name}"
    for section in ("sft", "grpo"):
        values = [getattr(profile, section).model_dump(exclude={"micro_batch_size"}) for profile in (ours, theirs)]
        if values[0] != values[1]:  # but for what changes memory only
            return f"{section} has other settings in this run"
    return ""


def _is_copy(run: RunFolder, other: RunFolder) -> bool:
    """Whether both runs hold the same answers, by their checksums."""
    ours, theirs = (
        {path: digest for path, digest in checksums.read(each).items() if path.startswith("generations/")}
        for each in (run, other)
    )
    return bool(ours) and ours == theirs


def _in_bands(name: str, own: pd.DataFrame, seeds: list[pd.DataFrame]) -> Iterator[Check]:
    if not seeds:
        yield Check.skipped(name, "the study has no such arm")
        return
    digests = own["images_sha256"].items()
    shared = [image for image, digest in digests if all(seed["images_sha256"].get(image) == digest for seed in seeds)]
    if 2 * len(shared) < len(own) or own.loc[shared, "anomalous"].nunique() < 2:
        yield Check.skipped(name, "the study has too few of its good and logical images")
        return
    for rule, title in BANDS.items():
        yield _band(f"{name} {title}", rule, own.loc[shared], [seed.loc[shared] for seed in seeds])


def _band(subject: str, rule: str, own: pd.DataFrame, seeds: list[pd.DataFrame]) -> Check:
    estimate = partial(bootstrap, RULES[rule], own["anomalous"])
    value, band = estimate(own[rule]).value, [estimate(seed[rule]).value for seed in seeds]
    errors = [estimate(second[rule], first[rule]).error for first, second in combinations(seeds, 2)]
    tolerance = max(LEVEL * float(np.mean(errors or [0.0])), ROUNDING)
    low, high = max(0.0, min(band) - tolerance), min(1.0, max(band) + tolerance)
    span = f"{100 * min(band):.1f}" + (f" to {100 * max(band):.1f} over {len(band)} seeds" if len(band) > 1 else "")
    basis = f"study {span}, tolerance {100 * tolerance:.1f}, on {len(own)} shared images"
    found = f"{100 * value:.1f}"
    fault = f"{found} (below)" if value < low else f"{found} (above)" if value > high else ""
    return _check(subject, [fault] if fault else [], found, f"{100 * low:.1f} to {100 * high:.1f} ({basis})")


# The claims


def _claims(results: RunResults) -> Iterator[Check]:
    """Each claim of ``results/claims.yml``: what is expected of a run on real data can fail, the rest informs."""
    table = claims.table(results)
    for row, text in zip(table.to_dict("records"), claims.readable(table).to_dict("records"), strict=True):
        subject, found = f"claim {row['id']}", f"{row['status']}, {text['measured']} ({text['interval']})"
        if row["status"] == claims.UNTESTED:
            yield Check.skipped(subject, claims.UNTESTED)
        elif row["basis"] == "real data":
            yield _check(subject, [] if row["status"] == "holds" else [found], found, row["expected"])
        else:
            yield Check(verdict="note", subject=subject, found=found, expected=row["expected"])

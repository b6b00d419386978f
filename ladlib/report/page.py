"""One offline page of all that a run shows: claims, checks, tables, every test pair, figures, provenance.

>>> from ladlib.report.page import write_report
>>> write_report(RunFolder("results/runs/toy"))  # doctest: +SKIP
PosixPath('results/runs/toy/report.html')
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import pandas as pd
from itables.utils import read_package_file
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from matplotlib.figure import Figure

from ladlib import checksums
from ladlib.data import find_dataset, read_dataset
from ladlib.parsing import parse
from ladlib.records import Generation, RunRecord
from ladlib.report import analysis, cards, figures, qualitative, study_figures, tables
from ladlib.results import NAMES, RunResults, load_run, refuse_doubles
from ladlib.runs import RunFolder, write_text
from ladlib.sanitize import strip_control

LARGEST = 9_500_000  # characters of the page, to stay below 10 MB
LONGEST = 100_000  # characters of a completion; what is longer is cut, and says so
SIDES = (320, 224, 160, 112, 80)  # longest side of an image in pixels: the first at which all fit
MARKS = {True: "t", False: "f", None: "u"}


class Verdict(Protocol):
    """One check of the run and its outcome."""

    verdict: str
    subject: str
    found: str
    expected: str


def write_report(
    run: RunFolder, data: Path | None = None, check: Callable[[RunFolder], Sequence[Verdict]] | None = None
) -> Path:
    """Write metrics.json, tables/, figures/ and report.html from the stored answers and logs; the page's path.

    Images are shown where they are the files that were evaluated: below ``data``, where the run found them, or in the
    run folder. ``check`` is :func:`ladlib.verify.verify`. Two calls on the same files write the same bytes. Raises
    :class:`UserError` where the run has no readable answers.
    """
    results = load_run(run)
    refuse_doubles(results.answers)
    data = data or Path(str(results.record.parameters.get("data") or run.data))
    frames = tables.of_run(results)
    drawn = _figures(results, frames, data)  # everything that can fail comes before the first file is written
    tables.write_all(results, run.root, frames)
    for name, (_, figure) in drawn.items():
        figures.save(figure, run, name)
    checksums.write(run, run.metrics_json, run.tables, run.figures)
    images = [(title, figure.alt, _url((run.figures / f"{name}.png",))) for name, (title, figure) in drawn.items()]
    checks = check(run) if check else None
    texts = {name: tables.readable(frame) for name, frame in frames.items()}
    write_text(run.report, _render(results, texts, images, checks, data))
    return run.report


def write_study(run: RunFolder) -> None:
    """Write ``tables/study-*`` (csv, md, tex) and ``figures/study-*`` (png, pdf) from the stored files alone.

    What has not been run yet is missing, or says so. Two calls on the same stored files write the same bytes.
    """
    results = load_run(run)
    frames, note, runs = tables.of_study(results), results.profile.label, analysis.collapsed_runs(results)
    drawn = {"readings": study_figures.readings(analysis.seeds(results), note=note)}
    if (results.metrics["subset"] == "logical").any():
        drawn["categories"] = study_figures.categories(results.metrics, note=note)
    if not results.passes.empty:
        drawn["passes"] = study_figures.passes(results.passes, note=note)
    if len(runs) > 1:
        drawn["collapse"] = study_figures.collapse(runs, note=note)
    tables.write_all(results, run.root, frames)
    for name, figure in drawn.items():
        figures.save(figure, run, f"study-{name}")
    checksums.write(run, run.metrics_json, run.tables, run.figures)


def _figures(results: RunResults, frames: dict[str, pd.DataFrame], data: Path) -> dict[str, tuple[str, Figure]]:
    """Name to (caption, figure), in the page's order."""
    answers, note = results.answers, results.profile.label
    protocol = answers[answers["anomaly"] != "structural"]
    drawn = {}
    if examples := qualitative.draw(answers, data, note=note):
        drawn["qualitative"] = (qualitative.CAPTION, examples)
    drawn |= {
        "categories": ("Accuracy per category; lines are 95 % intervals", figures.categories(protocol, note=note)),
        "confusion": ("Answers on good and logical images", figures.confusion(protocol, note=note)),
        "roc": ("How well P(anomalous) ranks good and logical images", figures.roc(protocol, note=note)),
        "calibration": (
            "Calibration of P(anomalous), good and logical images",
            figures.calibration(protocol, note=note),
        ),
    }
    if "sensitivity" in frames:
        changed = figures.sensitivity(frames["sensitivity"], note=note)
        drawn["sensitivity"] = ("Answers that change with the input, on the same pairs", changed)
    for (arm, seed), log in results.logs.items():
        if log:
            title = f"Training of {NAMES.get(arm, arm)}, seed {seed}"
            drawn[f"training-{arm}-seed{seed}"] = (title, figures.training(log, note=f"{title}: {note}"))
    return drawn


def _render(
    results: RunResults, texts: dict[str, pd.DataFrame], images: list[tuple[str, str, str]],
    checks: Sequence[Verdict] | None, data: Path,
) -> str:  # fmt: skip
    explored = explore(results.answers, data, LARGEST - 1_500_000 - sum(len(url) for *_, url in images))
    environment = Environment(
        loader=PackageLoader("ladlib.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    chosen = max((at for at, name in enumerate(explored["models"]) if not name.startswith("large")), default=0)
    bundle = re.sub(
        r"export\{.*?(\w+) as default.*?\};?", r"const DataTable=\1;", read_package_file("html/dt_bundle.js")
    )
    script = bundle + "\n" + environment.get_template("report.js.j2").render(chosen=chosen)
    counts = Counter(one.verdict for one in checks or ())
    last_groups = [cards.first_with_spread(groups[::-1]) for groups in results.rollouts.values()]
    return environment.get_template("report.html.j2").render(
        record=results.record,
        profile=results.profile,
        toy=results.is_toy,
        **{name: texts.get(name) for name in ("comparison", "categories", "calibration", "departures", "sensitivity")},
        claims=texts["claims"],
        checks=None if checks is None else _check_frame(checks),
        counts=", ".join(f"{count} {verdict}" for verdict, count in counts.items()),
        made=_provenance(results.record),
        images=images,
        groups=[cards.rollout(group).data for group in last_groups if group],
        notes=_notes(explored),
        data=htmlsafe_json_dumps(explored),
        datatables_css=read_package_file("html/dt_bundle.css"),
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _check_frame(checks: Sequence[Verdict]) -> pd.DataFrame:
    rows = [(one.verdict, one.subject, one.found, one.expected or "–") for one in checks]
    return pd.DataFrame(rows, columns=["verdict", "subject", "result", "expected"])


def _provenance(record: RunRecord) -> pd.DataFrame:
    parts = {"parameter": record.parameters, "version": record.versions, "machine": record.hardware}
    rows = [("commit", record.commit or "not from a checkout")]
    rows += [(f"{part} {name}", str(value)) for part, values in parts.items() for name, value in values.items()]
    rows += [(f"stage {one.name}", f"{one.seconds:.0f} s, started {one.started}") for one in record.stages]
    return pd.DataFrame(rows, columns=["what", "value"])


# The explorer


def explore(answers: pd.DataFrame, data: Path, room: int) -> dict:
    """What the explorer shows, as JSON at most ``room`` characters: models, texts, images, pairs and answers.

    Where that is too little, pairs are left out evenly, then images; ``total`` is the number of pairs there are.
    """
    number = answers.groupby(["dataset", "id", "reference"], sort=False).ngroup()
    scenes = {name: qualitative.scenes(data, name) for name in set(answers["dataset"])}
    firsts = answers[~number.duplicated()]
    sources = [_sources(row, data) for row in firsts.itertuples()]
    rows = answers.assign(pair=number, known=number.map(lambda one: sources[one] is not None))
    rows["marks"] = [_marks(row, scenes[row.dataset]) for row in rows.itertuples()]
    step = 1
    while True:
        words = _words(rows[rows["pair"] % step == 0])
        if len(htmlsafe_json_dumps(words)) <= room / 2 or step >= len(sources):
            break
        step *= 2
    shown = [sources[one] for one in range(0, len(sources), step)]
    every = list(dict.fromkeys(source for three in shown for source in three or () if source))
    urls = embed(every, room - len(htmlsafe_json_dumps(words)))
    places = {source: place for place, source in enumerate(every[: len(urls)])}
    for pair, three in zip(words["pairs"], shown, strict=True):
        pair += [places.get(source) for source in three or (None, None, None)]
    return words | {"images": urls, "total": len(sources)}


def _sources(row: Generation, data: Path) -> tuple | None:
    """(reference, test image, defect) as files to embed; None where they are not those that were evaluated."""
    files = qualitative.image_files(row, data)
    if not files:
        return None
    masks = _masks(data, row.dataset).get(row.test, ())
    folder = find_dataset(data, row.dataset)
    return (files[0],), (files[1],), (files[1], *(folder / mask for mask in masks)) if masks else None


@lru_cache(maxsize=4)
def _masks(data: Path, dataset: str) -> dict[str, tuple[str, ...]]:
    return {sample.image: sample.masks for sample in read_dataset(data, dataset)}


def _marks(row: Generation, scenes: dict) -> str:
    """A letter per sentence of the rationale; "" where its scenes are not known."""
    both, think = [scenes.get(path) for path in (row.reference, row.test)], parse(row.text).think
    known = row.known and think and all(both)
    return "".join(MARKS[mark] for mark, _ in qualitative.sentence_marks(think, both)) if known else ""


def _words(rows: pd.DataFrame) -> dict:
    """Models, texts (each once), pairs [id, category, kind, defect] and answers [pair, model, text, answer, P, ...]."""
    models: dict[tuple[str, int], int] = {}
    texts: dict[str, int] = {}
    pairs: dict[int, list] = {}
    answers = []
    for row in rows.itertuples():
        pairs.setdefault(row.pair, [row.id, row.category, row.anomaly, row.defect])
        text, answer = strip_control(row.text[:LONGEST]), parse(row.text).answer
        if len(row.text) > LONGEST:
            text += f"… (cut here: {len(row.text):,} characters)"
        p_yes = None if pd.isna(row.p_yes) else round(row.p_yes, 4)
        verdict = "unparsed" if answer is None else "right" if answer == row.label else "wrong"
        model = models.setdefault((row.arm, row.seed), len(models))
        answers.append([row.pair, model, texts.setdefault(text, len(texts)), answer, p_yes, verdict, row.marks])
    places = {pair: place for place, pair in enumerate(pairs)}
    for answer in answers:
        answer[0] = places[answer[0]]
    names = [f"{NAMES.get(arm, arm)}, seed {seed}" for arm, seed in models]
    return {"models": names, "texts": list(texts), "pairs": list(pairs.values()), "answers": answers}


def embed(sources: Sequence[tuple[Path, ...]], room: int) -> list[str]:
    """Data URLs of ``sources`` in their order, as far as ``room`` characters go, at the largest side where all fit.

    A source is an image file, then the masks to mark on it.
    """
    sample = sources[:: max(1, len(sources) // 24)]
    for side in SIDES:
        if 1.1 * len(sources) * sum(len(_url(one, side)) for one in sample) <= room * len(sample):
            break
    urls: list[str] = []
    for source in sources:
        url = _url(source, side)
        room -= len(url) + len('"",')
        if room < 0:
            break
        urls.append(url)
    return urls


def _url(source: tuple[Path, ...], side: int = 0) -> str:
    image, mime = (cards.webp(*source, side=side), "webp") if side else (source[0].read_bytes(), "png")
    return f"data:image/{mime};base64," + base64.b64encode(image).decode("ascii")


def _notes(explored: dict) -> list[str]:
    """What the explorer shows and what it lacks, in sentences."""
    total, shown = explored["total"], len(explored["pairs"])
    pictured = sum(pair[4] is not None and pair[5] is not None for pair in explored["pairs"])
    notes = [f"{total} pairs of a reference image and a test image, answered by {len(explored['models'])} models."]
    if shown < total:
        notes.append(
            f"All would make this file too large: every {-(-total // shown)}th pair is here, {shown} in total."
        )
    if not pictured:
        notes.append("There are no images: those that were evaluated were not available when this page was made.")
    elif pictured < shown:
        notes.append(f"{pictured} of them have their images; the others were not available, or did not fit.")
    if any(answer[6] for answer in explored["answers"]):
        notes.append("Statements are marked ✓ true of the two synthetic scenes, ✗ false, ? not parsed.")
    return notes

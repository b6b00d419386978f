"""One offline page of all that a run shows: claims, checks, tables, every test pair, figures, provenance."""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from itables.utils import read_package_file
from jinja2.utils import htmlsafe_json_dumps
from matplotlib.figure import Figure

from ladlib import checksums
from ladlib.checksums import sha256
from ladlib.data import find_dataset, read_dataset
from ladlib.errors import UserError
from ladlib.parsing import parse
from ladlib.records import Generation
from ladlib.report import analysis, cards, figures, tables
from ladlib.report.cards import TEMPLATES
from ladlib.results import NAMES, RunResults, load_run, refuse_doubles
from ladlib.runs import RunFolder, write_text
from ladlib.sanitize import strip_control
from ladlib.toy.statements import check_statements
from ladlib.toy.truth import read_scenes

LARGEST = 8_000_000  # characters of images and answers: with DataTables the page stays below 10 MB
LONGEST = 100_000  # characters of a completion; what is longer is cut, and says so
MARKS = {True: "t", False: "f", None: "u"}


def write_report(
    run: RunFolder, data: Path | None = None, check: Callable[[RunFolder], Sequence] | None = None
) -> Path:
    """Write metrics.json, tables/, figures/ and report.html from the stored answers and logs; the page's path.

    Images are shown where they are the files that were evaluated: below ``data``, where the run found them, or in its
    folder. ``check`` is :func:`ladlib.verify.verify`. Raises :class:`UserError` where the run has no readable answers.
    """
    results = load_run(run)
    refuse_doubles(results.answers)
    data = data or Path(str(results.record.parameters.get("data") or run.data))
    frames = tables.of_run(results)
    drawn = _figures(results)  # everything that can fail comes before the first file is written
    _write(results, frames, drawn)
    urls = [cards.data_url((run.figures / f"{name}.png").read_bytes()) for name in drawn]
    images = [(figure.alt, url) for figure, url in zip(drawn.values(), urls, strict=True)]
    texts = {name: tables.readable(frame) for name, frame in frames.items()}
    run.report.unlink(missing_ok=True)  # the page is not among the files that it reports on
    checksums.forget(run, run.report)
    write_text(run.report, _render(results, texts, images, check(run) if check else None, data))
    checksums.write(run, run.report)
    return run.report


def write_study(run: RunFolder) -> None:
    """Write ``tables/study-*`` (csv, md, tex) and ``figures/study-*`` (png, pdf) of what has been run."""
    results = load_run(run)
    runs = analysis.collapsed_runs(results)
    note = results.profile.label
    drawn = {"study-strategy": figures.strategy(analysis.strategies(results), note=note)} if results.is_toy else {}
    drawn |= {"study-collapse": figures.collapse(runs, note=note)} if len(runs) > 1 else {}
    _write(results, tables.of_study(results), drawn)


def _write(results: RunResults, frames: dict[str, pd.DataFrame], drawn: dict[str, Figure]) -> None:
    run = results.run
    tables.write_all(results, run.root, frames)
    for name, figure in drawn.items():
        figures.save(figure, run, name)
    checksums.write(run, run.metrics_json, run.tables, run.figures)


def _figures(results: RunResults) -> dict[str, Figure]:
    """The figures by name, in the page's order; a note below each says whose numbers it shows."""
    answers, note = results.answers[results.answers["anomaly"] != "structural"], results.profile.label
    drawn = {draw.__name__: draw(answers, note=note) for draw in (figures.categories, figures.confusion, figures.roc)}
    logs = {key: log for key, log in results.logs.items() if log}
    for arm in dict.fromkeys(arm for arm, _ in logs):
        seeds = [seed for other, seed in logs if other == arm]
        title = f"{NAMES.get(arm, arm)}, seed {', '.join(map(str, seeds))}: {note}"
        drawn[f"training-{arm}-seed{seeds[0]}"] = figures.training(*(logs[arm, seed] for seed in seeds), note=title)
    return drawn


def _render(
    results: RunResults, texts: dict[str, pd.DataFrame], images: list[tuple[str, str]], checks: Sequence | None,
    data: Path,
) -> str:  # fmt: skip
    explored = explore(results.answers, data, LARGEST - sum(len(url) for _, url in images))
    bundle = read_package_file("html/dt_bundle.js")  # a module: its export becomes a name in the page's one script
    bundle = re.sub(r"export\{.*?(\w+) as default.*?\};?", r"const DataTable=\1;", bundle)
    chosen = max((at for at, name in enumerate(explored["models"]) if not name.startswith("large")), default=0)
    script = bundle + "\n" + TEMPLATES.get_template("report.js.j2").render(chosen=chosen)
    return TEMPLATES.get_template("report.html.j2").render(
        record=results.record, profile=results.profile, toy=results.is_toy, texts=texts, images=images,
        checks=checks, counts=Counter(check.verdict for check in checks or ()), explored=explored, script=script,
        datatables_css=read_package_file("html/dt_bundle.css"),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def explore(answers: pd.DataFrame, data: Path, room: int) -> dict:
    """What the explorer shows, as JSON at most ``room`` characters: models, texts, images, pairs and answers.

    Where that is too little, pairs are left out evenly, then images; ``total`` is the number of pairs there are.
    """
    datasets = {name: _dataset(data, name) for name in answers["dataset"].unique()}
    rows = answers.assign(pair=answers.groupby(["dataset", "id", "reference"], sort=False).ngroup())
    sources = [_sources(row, *datasets[row.dataset][:2]) for row in rows.drop_duplicates("pair").itertuples()]
    marks = [_marks(row, datasets[row.dataset][2]) if sources[row.pair] else "" for row in rows.itertuples()]
    rows = rows.assign(marks=marks)
    step, words = 1, _words(rows)
    while len(htmlsafe_json_dumps(words)) > room / 2 and step < len(sources):
        step *= 2
        words = _words(rows[rows["pair"] % step == 0])
    room -= len(htmlsafe_json_dumps(words))
    urls: dict[tuple[Path, ...], str] = {}
    for files in dict.fromkeys(files for images in sources[::step] for files in images):
        url = cards.data_url(cards.webp(*files), "webp")
        if (room := room - len(url) - 12) < 0:
            break
        urls[files] = url
    places = {files: place for place, files in enumerate(urls)}
    for pair, images in zip(words["pairs"], sources[::step], strict=True):
        known = [places.get(files) for files in images]
        pair += known + [None] * (3 - len(known))
    return words | {"images": list(urls.values()), "total": len(sources)}


def _dataset(data: Path, name: str) -> tuple[Path, dict, dict]:
    """The folder of a dataset, its masks by image and, of synthetic images, the scenes by image."""
    try:
        folder = find_dataset(data, name)
        masks = {sample.image: sample.masks for sample in read_dataset(data, name)}
    except UserError:
        return data, {}, {}
    scenes = read_scenes(folder) if (folder / "scenes.jsonl").is_file() else {}
    return folder, masks, {image: truth.scene for image, truth in scenes.items()}


def _sources(row: Generation, folder: Path, masks: dict) -> list[tuple[Path, ...]]:
    """Reference, test image and, where it is known, the defect, each as a file and the masks to mark on it.

    [] where either image is not the file that was evaluated.
    """
    files = folder / row.reference, folder / row.test
    if not all(file.is_file() and sha256(file) == known for file, known in zip(files, row.images_sha256, strict=True)):
        return []
    marked = [folder / mask for mask in masks.get(row.test, ())]
    return [(files[0],), (files[1],), *([(files[1], *marked)] if marked else [])]


def _marks(row: Generation, scenes: dict) -> str:
    """A letter per sentence of the rationale; "" where its scenes are not known."""
    both, think = [scenes.get(path) for path in (row.reference, row.test)], parse(row.text).think
    return "".join(MARKS[is_true] for is_true in check_statements(think, *both)) if think and all(both) else ""


def _words(rows: pd.DataFrame) -> dict:
    """Models, texts (each once), pairs [id, category, kind, defect], answers [pair, model, text, answer, P, ...]."""
    models, texts, pairs, answers = {}, {}, {}, []
    for row in rows.itertuples():
        text, answer = strip_control(row.text[:LONGEST]), parse(row.text).answer
        text += f"… (cut here: {len(row.text):,} characters)" if len(row.text) > LONGEST else ""
        pair, _ = pairs.setdefault(row.pair, (len(pairs), [row.id, row.category, row.anomaly, row.defect]))
        model = models.setdefault(f"{NAMES.get(row.arm, row.arm)}, seed {row.seed}", len(models))
        p_yes = None if pd.isna(row.p_yes) else round(row.p_yes, 4)
        verdict = "unparsed" if answer is None else "right" if answer == row.label else "wrong"
        answers.append([pair, model, texts.setdefault(text, len(texts)), answer, p_yes, verdict, row.marks])
    parts = {"models": list(models), "texts": list(texts), "pairs": [list(pair) for _, pair in pairs.values()]}
    return parts | {"answers": answers}

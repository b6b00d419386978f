"""One page of everything a run has shown: claims, tables, every test pair, figures, and what it was made from."""

import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from matplotlib.figure import Figure

from ladlib import checksums
from ladlib.report import figures, tables, varied
from ladlib.report.answers import calibration
from ladlib.report.claims import claims_frame, claims_text
from ladlib.report.defects import defects_frame
from ladlib.report.doubt import calibration_frame, calibration_text
from ladlib.report.explorer import explore
from ladlib.report.qualitative import CAPTION, qualitative
from ladlib.report.rollouts import rollout_frame, telling
from ladlib.report.stored import Stored, read_run, refuse_doubles
from ladlib.report.study_spoken import read_summaries
from ladlib.runs import RunFolder, write_text

LARGEST = 9_500_000  # characters of the page, to stay below 10 MB
TEXTS = {
    "claims": claims_text,
    "calibration": calibration_text,
    "sensitivity": varied.sensitivity_text,
    "variance": varied.variance_text,
}
"""Tables whose text :func:`ladlib.report.tables.readable` does not make."""
TONES = {"held": "right", "failed": "wrong", "skipped": "soft", "note": "soft"}


class Verdict(Protocol):
    """One claim about the run and what became of it."""

    verdict: str
    subject: str
    found: str
    expected: str


Hold = Callable[[RunFolder], Sequence[Verdict]]


def write_report(run: RunFolder, data: Path | None = None, hold: Hold | None = None) -> Path:
    """Write metrics.json, tables/, figures/ and report.html from the stored generations and logs.

    Loads no model. Images are only shown, and only where the datasets are at hand: below ``data``, where the
    run found them, or in the run folder. ``hold`` says which claims stand, as :func:`ladlib.verify.verify`
    does. Two calls on the same stored files write the same bytes. Returns the page's path; raises
    :class:`UserError` where the run has no readable generations.
    """
    stored = read_run(run)
    refuse_doubles(stored.generations)
    frames = {
        "comparison": tables.comparison(stored),
        "categories": tables.categories(stored),
        "calibration": calibration_frame(stored),
        "defects": defects_frame(stored),
        "departures": tables.departures(stored.profile),
        "claims": claims_frame(stored, read_summaries(run, {(one.arm, one.seed) for one in stored.generations})),
    }
    if stored.variations:
        frames |= {"sensitivity": varied.sensitivity_frame(stored), "variance": varied.variance_frame(stored)}
    shown = {name: text(frames[name]) for name, text in TEXTS.items() if name in frames}
    images = data or _datasets(run, stored)
    drawn = _draw(stored, images)  # everything that can fail comes before the first file is written
    write_text(run.metrics_json, _json_rows(stored.metrics))
    for name, frame in frames.items():
        tables.write(frame, run.tables, name, shown.get(name))
    for name, (_, figure) in drawn.items():
        figures.save(figure, run, name)
    checksums.write(run, run.metrics_json, run.tables, run.figures)
    claims = hold(run) if hold else ()
    captions = {name: title for name, (title, _) in drawn.items()}
    write_text(run.report, _render(run, stored, frames, shown, captions, claims, images))
    return run.report


def _datasets(run: RunFolder, stored: Stored) -> Path:
    return Path(str(stored.record.parameters.get("data") or run.data))


def _json_rows(rows: list[dict]) -> str:
    """A JSON list with one row a line: readable, and a change shows as the lines that changed."""
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def _draw(stored: Stored, images: Path) -> dict[str, tuple[str, Figure]]:
    """Name to (caption, figure), in the page's order."""
    protocol = [one for one in stored.generations if one.anomaly != "structural"]
    drawn = {
        "categories": (
            "Accuracy per category; lines are 95 % intervals",
            figures.category_bars(stored.metrics),
        ),
        "confusion": ("Answers on good and logical images", figures.confusion(protocol)),
        "roc": ("How well P(anomalous) ranks good and logical images", figures.roc(protocol)),
        "calibration": ("Whether P(anomalous) is what it says, good and logical images", calibration(protocol)),
    }
    if stored.variations:
        drawn["sensitivity"] = ("What moves the answers on the same pairs", varied.sensitivity_figure(stored))
    if said := qualitative(stored, images):
        drawn = {"qualitative": (CAPTION, said)} | drawn
    for (arm, seed), rows in stored.logs.items():
        if rows:
            curves = figures.grpo_curves if "reward" in rows[0] else figures.loss_curve
            drawn[f"training-{arm}-seed{seed}"] = (
                f"Training of {tables.NAMES.get(arm, arm)}, seed {seed}",
                curves(rows),
            )
    return drawn


def _render(
    run: RunFolder,
    stored: Stored,
    frames: dict[str, pd.DataFrame],
    shown: dict[str, pd.DataFrame],
    captions: dict[str, str],
    claims: Sequence[Verdict],
    data: Path,
) -> str:
    pictures = [(title, _embedded(run.figures / f"{name}.png")) for name, title in captions.items()]
    explored = explore(run, stored, data, LARGEST - 500_000 - sum(len(url) for _, url in pictures))
    environment = Environment(
        loader=PackageLoader("ladlib.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    comparison = frames["comparison"]
    return environment.get_template("report.html.j2").render(
        record=stored.record,
        profile=stored.profile,
        toy=stored.is_toy,
        claims=claims,
        counts=_counts(claims),
        tone=TONES,
        headings=list(tables.readable(comparison).columns),
        blocks=[(title, rows.to_numpy().tolist()) for title, rows in tables.blocks(comparison)],
        calibration=shown["calibration"],
        categories=tables.readable(frames["categories"]),
        departures=tables.readable(frames["departures"]),
        registry=shown["claims"],
        sensitivity=shown.get("sensitivity"),
        variance=shown.get("variance"),
        pictures=pictures,
        groups=_groups(stored),
        notes=_notes(explored),
        chosen=_trained(explored["arms"]),
        data=htmlsafe_json_dumps(explored),
    )


def _counts(claims: Sequence[Verdict]) -> str:
    counted = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{count} {'to note' if verdict == 'note' else verdict}" for verdict, count in counted.items())


def _trained(arms: Sequence[str]) -> int:
    """The place of the arm that is shown first: the last one that was trained here."""
    large = f"{tables.NAMES['large']}, "
    return max((place for place, arm in enumerate(arms) if not arm.startswith(large)), default=0)


def _notes(explored: dict) -> list[str]:
    """What the explorer shows and what it lacks, in sentences."""
    total, shown, pictured = explored["total"], len(explored["pairs"]), explored["pictured"]
    notes = [f"{total} pairs of a reference image and a test image, with the answers of {len(explored['arms'])} arms."]
    if shown < total:
        notes.append(f"All would make this file too large: every {-(-total // shown)}th pair is here, {shown} in all.")
    if not pictured:
        notes.append("There are no pictures: the images that were judged were not at hand when this page was made.")
    elif pictured < shown:
        notes.append(f"{pictured} of them have their pictures; other images were not at hand, or did not fit.")
    if explored["marked"]:
        notes.append("Statements are marked ✓ true of the two drawn scenes, ✗ false, ? not read.")
    return notes


def _embedded(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")


def _groups(stored: Stored) -> list[tuple[dict, list[dict]]]:
    """One telling group of rollouts of each GRPO log, with the rows of its table."""
    chosen = [group for rows in stored.rollouts.values() if (group := telling(rows))]
    return [(group, rollout_frame(group).to_dict("records")) for group in chosen]

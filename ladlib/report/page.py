"""One page of everything a run has shown: tables, figures, examples, and what it was made from."""

import base64
import json
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from ladlib.report import figures, tables
from ladlib.report.pictures import choose, verdict
from ladlib.report.rollouts import rollout_frame, telling
from ladlib.report.stored import Stored, read_run
from ladlib.report.style import printable
from ladlib.runs import RunFolder, write_text
from ladlib.schema import ARMS

EXAMPLES = 6  # completions printed in the page


def write_report(run: RunFolder) -> Path:
    """Write metrics.json, tables/, figures/ and report.html from the stored generations and logs alone.

    Loads no model and no image. Two calls on the same stored files write the same bytes. Returns the page's
    path; raises :class:`UserError` where the run has no readable generations.
    """
    stored = read_run(run)
    frames = {
        "comparison": tables.comparison(stored),
        "categories": tables.categories(stored),
        "departures": tables.departures(stored.profile),
    }
    drawn = _draw(stored)  # everything that can fail comes before the first file is written
    write_text(run.metrics_json, _json_rows(stored.metrics))
    for name, frame in frames.items():
        tables.write(frame, run.tables, name)
    for name, (_, figure) in drawn.items():
        figures.save(figure, run, name)
    write_text(run.report, _render(run, stored, frames, {name: title for name, (title, _) in drawn.items()}))
    return run.report


def _json_rows(rows: list[dict]) -> str:
    """A JSON list with one row a line: readable, and a change shows as the lines that changed."""
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def _draw(stored: Stored) -> dict[str, tuple[str, Figure]]:
    """Name to (caption, figure), in the page's order."""
    protocol = [one for one in stored.generations if one.anomaly != "structural"]
    drawn = {
        "categories": (
            "Accuracy per category; lines are 95 % intervals",
            figures.category_bars(stored.metrics),
        ),
        "confusion": ("Answers on good and logical images", figures.confusion(protocol)),
        "roc": ("How well P(anomalous) ranks good and logical images", figures.roc(protocol)),
    }
    for (arm, seed), rows in stored.logs.items():
        if rows:
            curves = figures.grpo_curves if "reward" in rows[0] else figures.loss_curve
            drawn[f"training-{arm}-seed{seed}"] = (
                f"Training of {tables.NAMES.get(arm, arm)}, seed {seed}",
                curves(rows),
            )
    return drawn


def _render(run: RunFolder, stored: Stored, frames: dict, captions: dict[str, str]) -> str:
    environment = Environment(
        loader=PackageLoader("ladlib.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    comparison = frames["comparison"]
    return environment.get_template("report.html.j2").render(
        record=stored.record,
        profile=stored.profile,
        toy=stored.is_toy,
        headings=list(tables.readable(comparison).columns),
        blocks=[(title, rows.to_numpy().tolist()) for title, rows in tables.blocks(comparison)],
        categories=tables.readable(frames["categories"]),
        departures=tables.readable(frames["departures"]),
        pictures=[(title, _embedded(run.figures / f"{name}.png")) for name, title in captions.items()],
        groups=_groups(stored),
        examples=_examples(stored),
    )


def _embedded(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")


def _groups(stored: Stored) -> list[tuple[dict, list[dict]]]:
    """One telling group of rollouts of each GRPO log, with the rows of its table."""
    chosen = [group for rows in stored.rollouts.values() if (group := telling(rows))]
    return [(group, rollout_frame(group).to_dict("records")) for group in chosen]


def _examples(stored: Stored) -> list[tuple[str, str, str]]:
    """(id, verdict, completion) of the last trained arm: some right, some wrong."""
    trained = [arm for arm in ARMS if arm != "large" and stored.of(arm)]
    shown = choose(stored.of(trained[-1]), EXAMPLES) if trained else []
    return [(f"{one.arm}, {one.id}", verdict(one), printable(one.text)) for one in shown]

"""Tables and figures of a study from what it has stored. Needs no model, no image and no torch.

>>> write_study(RunFolder("results/runs/study"))  # doctest: +SKIP
"""

import pandas as pd

from ladlib import checksums
from ladlib.alarms import ALARM_STEPS, one_answer
from ladlib.report.claims import claims_frame, claims_text
from ladlib.report.stored import Key, Stored, read_run
from ladlib.report.study_arms import arms_frame, arms_text, seeds_frame, seeds_text
from ladlib.report.study_paired import differences_frame, differences_text
from ladlib.report.study_spoken import (
    passes_frame,
    passes_text,
    rationale_frame,
    rationale_text,
    read_passes,
    read_summaries,
)
from ladlib.report.tables import write
from ladlib.runs import RunFolder

HEALTHY = "sft_grpo"
COLLAPSES = {
    "accuracy_only": "accuracy reward only",
    "unbalanced": "unbalanced labels",
    "high_rate": "learning rate too high",
}


def write_study(run: RunFolder) -> None:
    """Write ``tables/study-*`` (csv, md, tex) and ``figures/study-*`` (png, pdf) from the stored files alone.

    What has not been run yet is missing, or says so. Two calls on the same stored files write the same bytes.
    Raises :class:`UserError` where the folder has no readable generations.
    """
    from ladlib.report.style import save

    stored = read_run(run)
    passes = read_passes(run, arms_and_seeds(stored))
    tables = _tables(run, stored, passes)
    drawn = _figures(stored, tables["seeds"][0], passes)  # what can fail comes before the first file is written
    for name, (frame, shown) in tables.items():
        write(frame, run.tables, f"study-{name}", shown)
    for name, figure in drawn.items():
        save(figure, run, f"study-{name}")
    checksums.write(run, run.tables, run.figures)


def arms_and_seeds(stored: Stored) -> list[Key]:
    """The arms and seeds that have answered."""
    return list(dict.fromkeys((one.arm, one.seed) for one in stored.generations))


def _tables(run: RunFolder, stored: Stored, passes: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Name to the frame and the same as text."""
    summaries, label = read_summaries(run, arms_and_seeds(stored)), stored.profile.label
    arms, seeds, differences = arms_frame(stored), seeds_frame(stored), differences_frame(stored)
    claims = claims_frame(stored, summaries, "toy study")
    tables = {
        "arms": (arms, arms_text(arms)),
        "seeds": (seeds, seeds_text(seeds)),
        "differences": (differences, differences_text(differences)),
        "claims": (claims, claims_text(claims)),
    }
    if summaries:
        rationales = rationale_frame(summaries, label)
        tables["rationales"] = (rationales, rationale_text(rationales))
    if not passes.empty:
        by_rule = passes_frame(passes, label)
        tables["passes"] = (by_rule, passes_text(by_rule))
    return tables


def _figures(stored: Stored, seeds: pd.DataFrame, passes: pd.DataFrame) -> dict[str, object]:
    from ladlib.report import study_figures

    note, metrics, runs = stored.profile.label, pd.DataFrame(stored.metrics), collapsed_runs(stored)
    drawn = {"readings": study_figures.readings(seeds, note=note)}
    if (metrics["subset"] == "logical").any():
        drawn["categories"] = study_figures.categories(metrics, note=note)
    if not passes.empty:
        drawn["passes"] = study_figures.passes(passes, note=note)
    if len(runs) > 1:
        drawn["collapse"] = study_figures.collapse(runs, note=note)
    return drawn


def collapsed_runs(stored: Stored) -> dict[str, list[dict]]:
    """Title to log rows: a healthy run first, then its seeds that ended in one answer, then the collapses there are.

    {} where no run is healthy.
    """
    logs = {key: rows for key, rows in sorted(stored.logs.items()) if rows}
    seeds = {seed: rows for (arm, seed), rows in logs.items() if arm == HEALTHY}
    stuck = {seed for seed, rows in seeds.items() if one_answer(rows[-ALARM_STEPS:]) is not None}
    unlucky = {f"same settings, seed {seed}": seeds[seed] for seed in sorted(stuck)}
    healthy = next((rows for seed, rows in seeds.items() if seed not in stuck), None)
    if healthy is None:
        return {}
    others = {title: rows for (arm, _), rows in logs.items() for name, title in COLLAPSES.items() if arm == name}
    return {"healthy": healthy} | unlucky | others

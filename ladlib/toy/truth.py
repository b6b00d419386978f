"""The truth about each toy picture, kept in ``scenes.jsonl`` of its dataset, and rationales checked against it.

    rows = check(generations, Path("data/mvtec_loco_anomaly_detection"))
    summary(rows)["statements_true"]    # share of all statements

Grammar and truth of the statements: :mod:`ladlib.toy.statements`. One row for each image:

- ``statements`` the different statements of the think block, ``true`` how many of them are true of the two scenes,
  ``unread`` sentences that the grammar does not cover, ``words`` those between white space. All are 0 where there is
  not exactly one think block;
- ``implied`` the verdict that follows from the statements, true or not: "yes" where one states a difference,
  "no" where the two images are compared and none does, None where they are not compared;
- ``answer`` the strict answer, ``agrees`` whether it is the implied one: None where either is None;
- ``names_difference`` whether a true statement of difference names a place that the defect changed (places compared)
  or a kind whose number it changed (kinds paired off). None where no part was changed: a normal image, a missing
  separator.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from ladlib.errors import UserError
from ladlib.records import Generation, Record
from ladlib.runs import RunFolder, read_jsonl, write_text
from ladlib.toy.scenes import Scene
from ladlib.toy.statements import ComparedPlace, Layout, read_statements

SCENES = "scenes.jsonl"


class Changed(Record):
    """Where a defect left its mark; empty for a normal picture and for a defect of the backdrop."""

    places: tuple[str, ...] = ()  # in reading order: where other parts lie than in the normal scene, or more or fewer
    kinds: tuple[str, ...] = ()  # in alphabetical order: names of parts of which there are more or fewer


class Truth(Record):
    """A line of ``scenes.jsonl``."""

    image: str  # POSIX, relative to the dataset folder
    scene: Scene
    changed: Changed


def what_changed(normal: Scene, scene: Scene) -> Changed:
    """The places and kinds in which two scenes on one grid differ."""
    old, new = Layout(normal), Layout(scene)
    places = [place for place, names in new.names.items() if old.names[place] != names]
    all_kinds = sorted({*old.kinds, *new.kinds})
    counted = [kind for kind in all_kinds if len(old.kinds.get(kind, [])) != len(new.kinds.get(kind, []))]
    return Changed(places=tuple(places), kinds=tuple(counted))


def read_scenes(folder: Path) -> dict[str, Truth]:
    """The truth about every image of the dataset ``folder`` by the image's path.

    Raises :class:`UserError` where there is none, as beside real images, or where it is of an earlier form.
    """
    path = folder / SCENES
    if not path.is_file():
        raise UserError(f"{folder} holds no {SCENES}.", "Only toy datasets have one: `ladlib data toy` draws them.")
    try:
        truths = [Truth.model_validate(row) for row in read_jsonl(path)]
    except ValueError as error:
        raise UserError(f"{path} cannot be read.", "Move the folder away and draw the toy datasets again.") from error
    return {truth.image: truth for truth in truths}


def check(generations: Iterable[Generation], dataset_folder: Path) -> list[dict]:
    """A row for each of ``generations``, whose images lie in the toy dataset ``dataset_folder``.

    Raises :class:`UserError` where the scene of an image is not kept there.
    """
    scenes = read_scenes(dataset_folder)
    try:
        return [_row(row, scenes[row.reference].scene, scenes[row.test]) for row in generations]
    except KeyError as error:
        raise UserError(f"There is no scene of {error}.", "Give the toy dataset that was evaluated.") from error


def write_rationales(run: RunFolder, arm: str, seed: int, dataset_folder: Path) -> Path:
    """Check the generations of one arm and seed of ``run``, and write the rows all at once; returns their file.

    Raises :class:`UserError` where there are no generations or no scenes.
    """
    stored = read_jsonl(run.generations(arm, seed))
    if not stored:
        raise UserError(f"{run.generations(arm, seed)} holds no generations.", "Evaluate this arm and seed first.")
    rows = check([Generation.model_validate(row) for row in stored], dataset_folder)
    path = run.rationales(arm, seed)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def summary(rows: Sequence[dict]) -> dict[str, float | None]:
    """What the rows of one arm (of any seeds) show together; None where a share is of nothing.

    ``statements_true`` is of all statements, ``difference_named`` of the images where it can be named, ``agree`` of
    those with a strict answer, where no comparison counts as no agreement; the others are of all images.
    """
    stated = sum(row["statements"] for row in rows)
    return {
        "statements_true": sum(row["true"] for row in rows) / stated if stated else None,
        "difference_named": _mean([row["names_difference"] for row in rows if row["names_difference"] is not None]),
        "agree": _mean([row["agrees"] is True for row in rows if row["answer"] is not None]),
        "compared": _mean([row["implied"] is not None for row in rows]),
        "empty": _mean([row["statements"] == 0 for row in rows]),
        "statements_mean": _mean([row["statements"] for row in rows]),
        "words_mean": _mean([row["words"] for row in rows]),
    }


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def _row(generation: Generation, reference: Scene, truth: Truth) -> dict:
    from ladlib.parsing import parse  # a notebook that draws the images does without

    reading = parse(generation.text)
    read = read_statements(reading.think or "")
    statements = list(dict.fromkeys(statement for statement in read if statement))
    layouts = Layout(reference), Layout(truth.scene)
    true = [statement for statement in statements if statement.is_true(*layouts)]
    comparisons = [statement.differs for statement in statements if statement.differs is not None]
    implied = ("yes" if any(comparisons) else "no") if comparisons else None
    changed = {*truth.changed.places, *truth.changed.kinds}
    named = {one.place if isinstance(one, ComparedPlace) else one.name for one in true if one.differs}
    return {
        **generation.model_dump(include={"id", "category", "anomaly", "label"}),
        "statements": len(statements),
        "true": len(true),
        "unread": read.count(None),
        "names_difference": bool(named & changed) if changed else None,
        "implied": implied,
        "answer": reading.answer,
        "agrees": implied == reading.answer if implied and reading.answer else None,
        "words": len((reading.think or "").split()),
    }

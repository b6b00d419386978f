"""The truth about each toy picture, kept in ``scenes.jsonl`` beside the images of a dataset.

One line an image: its path below the dataset folder, its scene, and what its defect changed in the
normal scene that it was made from.

Rationales held against the scenes of the toy images: are they true, to the point, and heard by the answer?

    rows = check(generations, Path("data/mvtec_loco_anomaly_detection"))
    summary(rows)["statements_true"]    # share of all statements

Grammar and truth of the statements: :mod:`ladlib.toy.statements`. One row for each image:

- ``statements`` the different statements of the think block (one that is repeated says nothing more, save a
  pair, which pairs the parts off once more), ``true`` how many of them are true of the two scenes, ``unread``
  sentences that the grammar does not cover, ``words`` those between white space. All are 0 where there is not
  exactly one think block;
- ``implied`` the verdict that follows from the statements, true or not: "yes" where one states a difference,
  "no" where the two images are compared and none does, None where they are not compared;
- ``answer`` the strict answer, ``agrees`` whether it is the implied one: None where either is None;
- ``names_difference`` for an anomalous image: whether a true statement of difference names a place that the
  defect changed (places compared) or a kind whose number it changed (kinds paired off). None for a normal
  image and for a defect that changed no part, as the missing separator, for which the language has no words.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from ladlib.errors import UserError
from ladlib.records import Answer, Generation, Record
from ladlib.runs import RunFolder, read_jsonl, write_text
from ladlib.toy.scenes import Scene
from ladlib.toy.statements import Claim, ComparedPlace, claims, is_comparison, is_true, states_difference

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
    """The places and kinds in which ``scene`` is not ``normal``; parts that share a cell are told apart by number."""
    places = Counter((part.place, part.name) for part in normal.parts)
    places.subtract((part.place, part.name) for part in scene.parts)
    kinds = Counter(part.name for part in normal.parts)
    kinds.subtract(part.name for part in scene.parts)
    return Changed(
        places=tuple(sorted({place for (place, _), surplus in places.items() if surplus})),
        kinds=tuple(sorted(kind for kind, surplus in kinds.items() if surplus)),
    )


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
    return [_row(one, _known(scenes, one.reference), _known(scenes, one.test)) for one in generations]


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


def summary(rows: Sequence[dict]) -> dict[str, float | int | None]:
    """What the rows of one arm (of any seeds) show together; None where a share is of nothing.

    ``statements_true`` is of all statements; ``difference_named`` of the images where it can be named;
    ``agree`` of the images with a strict answer, where no comparison counts as no agreement; ``compared`` of
    the images that are compared at all, ``empty`` of those about which nothing is stated. Means are per image.
    """
    stated = sum(row["statements"] for row in rows)
    return {
        "images": len(rows),
        "statements_true": sum(row["true"] for row in rows) / stated if stated else None,
        "difference_named": _mean(row["names_difference"] for row in rows if row["names_difference"] is not None),
        "agree": _mean(row["agrees"] is True for row in rows if row["answer"] is not None),
        "compared": _mean(row["implied"] is not None for row in rows),
        "empty": _mean(row["statements"] == 0 for row in rows),
        "statements_mean": _mean(row["statements"] for row in rows),
        "unread_mean": _mean(row["unread"] for row in rows),
        "words_mean": _mean(row["words"] for row in rows),
    }


def summary_by_label(rows: Sequence[dict]) -> dict[str, dict[str, float | int | None]]:
    """The summaries of the anomalous ("yes") and of the normal ("no") images."""
    return {label: summary([row for row in rows if row["label"] == label]) for label in ("yes", "no")}


def _row(generation: Generation, reference: Truth, test: Truth) -> dict:
    from ladlib.parsing import parse  # a notebook that draws the images does without

    reading = parse(generation.text)
    think = reading.think or ""
    said, unread = claims(think)
    statements = list(dict.fromkeys(said))
    true = [one for one in statements if is_true(one, reference.scene, test.scene)]
    implied = _implied(statements)
    return {
        "id": generation.id,
        "category": generation.category,
        "anomaly": generation.anomaly,
        "label": generation.label,
        "statements": len(statements),
        "true": len(true),
        "unread": unread,
        "names_difference": _names_difference(true, test.changed),
        "implied": implied,
        "answer": reading.answer,
        "agrees": implied == reading.answer if implied and reading.answer else None,
        "words": len(think.split()),
    }


def _known(scenes: dict[str, Truth], image: str) -> Truth:
    if image not in scenes:
        raise UserError(f"The scene of {image} is not kept.", "Give the toy dataset that was evaluated.")
    return scenes[image]


def _implied(statements: Sequence[Claim]) -> Answer | None:
    if any(states_difference(one) for one in statements):
        return "yes"
    return "no" if any(is_comparison(one) for one in statements) else None


def _names_difference(true: Sequence[Claim], changed: Changed) -> bool | None:
    if not changed.places and not changed.kinds:
        return None
    return any(_names(one, changed) for one in true if states_difference(one))


def _names(claim: Claim, changed: Changed) -> bool:
    """Whether a comparison is about what ``changed``."""
    return claim.place in changed.places if isinstance(claim, ComparedPlace) else claim.name in changed.kinds


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None

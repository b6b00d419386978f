"""The truth about each toy picture, kept in ``scenes.jsonl`` beside the images of a dataset.

One line an image: its path below the dataset folder, its scene, and what its defect changed in the
normal scene that it was made from.
"""

from collections import Counter
from pathlib import Path

from ladlib.errors import UserError
from ladlib.records import Record
from ladlib.runs import read_jsonl
from ladlib.toy.scenes import Scene

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

"""What a toy product is: a rule for its normal scenes and ways to break it.

A defect takes a normal scene and gives it back changed; where the two differ is the defect's mask.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ladlib.records import Anomaly, Dataset
from ladlib.toy.scenes import Part, Scene

Defect = Callable[[Scene, random.Random], Scene]
Cell = tuple[int, int]
RuleKind = Literal["place", "count", "relation"]


@dataclass(frozen=True)
class Product:
    """One category of a toy dataset."""

    dataset: Dataset
    name: str
    rule_kind: RuleKind  # a part in its place; so many parts wherever they lie; parts that belong together
    rule: str  # the normality rule in words, for people and for domain_knowledge.json
    normal: Callable[[random.Random], Scene]
    logical: dict[str, Defect]
    structural: dict[str, Defect]
    looseness: int = 3  # pixels a part may lie off the middle of its cell
    values: dict[str, int] = field(default_factory=dict)  # LOCO's mask value of each defect

    def draw(self, anomaly: Anomaly, index: int, rng: random.Random) -> tuple[Scene, Scene]:
        """A normal scene and what became of it; defects take turns by ``index``."""
        normal = self.normal(rng)
        if anomaly == "good":
            return normal, normal
        defects = self.logical if anomaly == "logical" else self.structural
        name = list(defects)[index % len(defects)]
        return normal, defects[name](normal, rng).model_copy(update={"defect": name})


def at(shape: str, colour: str, row: int, col: int) -> Part:
    return Part(shape=shape, colour=colour, row=row, col=col)


def cell_of(part: Part) -> Cell:
    return part.row, part.col


def with_parts(scene: Scene, parts: list[Part]) -> Scene:
    return scene.model_copy(update={"parts": tuple(sorted(parts, key=lambda part: (part.row, part.col)))})


def empty_cells(scene: Scene) -> list[Cell]:
    taken = {cell_of(part) for part in scene.parts}
    return [(row, col) for row in range(scene.rows) for col in range(scene.cols) if (row, col) not in taken]


def blemish(name: str, *shapes: str) -> Defect:
    """A defect that scratches, stains or breaks one part (of ``shapes``, where given)."""

    def apply(scene: Scene, rng: random.Random) -> Scene:
        parts = list(scene.parts)
        index = rng.choice([k for k, part in enumerate(parts) if not shapes or part.shape in shapes])
        parts[index] = parts[index].model_copy(update={"blemish": name})
        return with_parts(scene, parts)

    return apply


def remove(kind: str, count: int = 1) -> Defect:
    """A defect that takes ``count`` parts of ``kind`` ("colour shape") away, or all with count 0."""

    def apply(scene: Scene, rng: random.Random) -> Scene:
        found = [part for part in scene.parts if part.kind == kind]
        gone = rng.sample(found, count or len(found))
        return with_parts(scene, [part for part in scene.parts if part not in gone])

    return apply


def add(kind: str, count: int = 1) -> Defect:
    """A defect that puts ``count`` more parts of ``kind`` into empty cells."""
    colour, shape = kind.split()

    def apply(scene: Scene, rng: random.Random) -> Scene:
        cells = rng.sample(empty_cells(scene), count)
        return with_parts(scene, [*scene.parts, *(at(shape, colour, *cell) for cell in cells)])

    return apply


def replace(kind: str, other: str, count: int = 1) -> Defect:
    """A defect that puts ``other`` where ``kind`` was, ``count`` times or (count 0) everywhere."""
    colour, shape = other.split()

    def apply(scene: Scene, rng: random.Random) -> Scene:
        found = [part for part in scene.parts if part.kind == kind]
        gone = rng.sample(found, count or len(found))
        parts = [at(shape, colour, *cell_of(part)) if part in gone else part for part in scene.parts]
        return with_parts(scene, parts)

    return apply


def then(*defects: Defect) -> Defect:
    """One defect after the other."""

    def apply(scene: Scene, rng: random.Random) -> Scene:
        for defect in defects:
            scene = defect(scene, rng)
        return scene

    return apply


def recolour(shape: str, colours: tuple[str, ...]) -> Defect:
    """A defect that gives one part of ``shape`` another of ``colours``."""

    def apply(scene: Scene, rng: random.Random) -> Scene:
        parts = list(scene.parts)
        index = rng.choice([k for k, part in enumerate(parts) if part.shape == shape])
        colour = rng.choice([colour for colour in colours if colour != parts[index].colour])
        parts[index] = parts[index].model_copy(update={"colour": colour})
        return with_parts(scene, parts)

    return apply


def move(shape: str) -> Defect:
    """A defect that puts one part of ``shape`` into an empty cell."""

    def apply(scene: Scene, rng: random.Random) -> Scene:
        parts = list(scene.parts)
        index = rng.choice([k for k, part in enumerate(parts) if part.shape == shape])
        row, col = rng.choice(empty_cells(scene))
        parts[index] = parts[index].model_copy(update={"row": row, "col": col})
        return with_parts(scene, parts)

    return apply

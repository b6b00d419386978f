"""What a toy product is: a rule for its normal scenes and ways to break it.

A defect takes a normal scene and gives it back changed; where the two differ is the defect's mask.

Toy MVTec AD and toy VisA: the products that both training stages see.

Names and defect names follow the real datasets where they have one; layouts and rules are other than
LOCO's. Between them they hold the kinds of rule that the test set has (a part in its place, a count of
parts that lie anywhere, a relation between parts), so that what is learned can carry over.
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


def _cable(rng: random.Random) -> Scene:
    cores = (at("disc", "green", 1, 1), at("disc", "blue", 2, 1), at("disc", "grey", 2, 2))
    return Scene(rows=4, cols=4, parts=cores, backdrop="cable")


def _transistor(rng: random.Random) -> Scene:
    legs = tuple(at("bolt", "grey", 3, col) for col in (0, 1, 2))
    return Scene(rows=4, cols=3, parts=(at("chip", "brown", 1, 1), *legs), backdrop="velvet")


def _metal_nut(rng: random.Random) -> Scene:
    parts = tuple(at("nut", "grey", row, col) for row, col in ((0, 0), (0, 3), (1, 1), (1, 2), (2, 0), (2, 3)))
    return Scene(rows=3, cols=4, parts=parts, backdrop="velvet")


def _bottle(rng: random.Random) -> Scene:
    parts = tuple(at("ring", colour, 1, col) for col, colour in enumerate(("brown", "brown", "green", "green")))
    return Scene(rows=3, cols=4, parts=parts, backdrop="blister")


def _loose(counts: dict[str, int], rows: int, cols: int, backdrop: str, fixed: tuple[Part, ...] = ()):
    """A normal scene of so many parts of each kind anywhere, beside ``fixed`` parts in their places."""
    free = empty_cells(Scene(rows=rows, cols=cols, parts=fixed))

    def draw(rng: random.Random) -> Scene:
        kinds = [kind.split() for kind, count in counts.items() for _ in range(count)]
        cells = rng.sample(free, len(kinds))
        parts = [at(shape, colour, *cell) for (colour, shape), cell in zip(kinds, cells, strict=True)]
        return with_parts(Scene(rows=rows, cols=cols, parts=(), backdrop=backdrop), [*fixed, *parts])

    return draw


def _pcb1(rng: random.Random) -> Scene:
    parts = [at("chip", "blue", 0, 0), at("chip", "blue", 0, 3), at("ring", "yellow", 2, 0), at("ring", "yellow", 2, 1),
             at("pill", "orange", 1, 2), at("pin", "red", 3, 3)]  # fmt: skip
    return with_parts(Scene(rows=4, cols=4, parts=(), backdrop="board"), parts)


def _pcb4(rng: random.Random) -> Scene:
    """Two designs: with a green chip goes a red lamp, with a yellow chip a blue one."""
    chip, lamp = rng.choice((("green", "red"), ("yellow", "blue")))
    parts = [at("chip", chip, 0, 1), at("disc", lamp, 2, 0), at("disc", lamp, 2, 3), at("wire", "orange", 3, 1)]
    return with_parts(Scene(rows=4, cols=4, parts=(), backdrop="board"), parts)


def _pcb4_lamp(scene: Scene, rng: random.Random) -> Scene:
    other = "blue" if any(part.kind == "red disc" for part in scene.parts) else "red"
    return with_parts(scene, [p.model_copy(update={"colour": other}) if p.shape == "disc" else p for p in scene.parts])


def _remove_shape(shape: str):
    def apply(scene: Scene, rng: random.Random) -> Scene:
        gone = rng.choice([part for part in scene.parts if part.shape == shape])
        return with_parts(scene, [part for part in scene.parts if part is not gone])

    return apply


CABLE = Product(
    "mvtec_ad", "cable", "place", "Three cores: green above, blue below it, grey beside the blue one.", _cable,
    logical={"cable_swap": recolour("disc", ("green", "blue", "grey")), "missing_cable": _remove_shape("disc")},
    structural={"cut_outer_insulation": blemish("broken"), "poke_insulation": blemish("stained")},
)  # fmt: skip
TRANSISTOR = Product(
    "mvtec_ad", "transistor", "place", "One case in the middle of the upper half and three legs in the lowest row.",
    _transistor,
    logical={"misplaced": move("chip"), "cut_lead": _remove_shape("bolt")},
    structural={"damaged_case": blemish("scratched", "chip"), "contamination": blemish("stained")},
)  # fmt: skip
METAL_NUT = Product(
    "mvtec_ad", "metal_nut", "place", "Six nuts in a fixed pattern.", _metal_nut,
    logical={"flip": replace("grey nut", "grey ring")},
    structural={
        "scratch": blemish("scratched"), "bent": blemish("broken"), "color": recolour("nut", ("brown", "blue")),
    },
)  # fmt: skip
BOTTLE = Product(
    "mvtec_ad", "bottle", "place", "Four bottle mouths in a row, two brown and then two green.", _bottle,
    logical={},
    structural={"broken_large": blemish("broken"), "contamination": blemish("stained")},
)  # fmt: skip
CANDLE = Product(
    "visa", "candle", "count", "Six white candles, standing anywhere.", _loose({"white candle": 6}, 3, 5, "velvet"),
    logical={
        "missing": remove("white candle"), "extra": add("white candle"),
        "swapped": recolour("candle", ("red", "green")),
    },
    structural={"damaged": blemish("broken"), "stain": blemish("stained")},
)  # fmt: skip
CAPSULES = Product(
    "visa", "capsules", "count", "Five green capsules, lying anywhere.", _loose({"green pill": 5}, 3, 5, "blister"),
    logical={
        "missing": remove("green pill"), "extra": add("green pill"), "swapped": replace("green pill", "blue pill"),
    },
    structural={"scratch": blemish("scratched"), "leak": blemish("stained")},
)  # fmt: skip
MACARONI = Product(
    "visa", "macaroni2", "count", "Three yellow and two orange pieces, lying anywhere.",
    _loose({"yellow pill": 3, "orange pill": 2}, 4, 4, "velvet"),
    logical={
        "missing": remove("yellow pill"), "extra": add("orange pill"),
        "swapped": replace("yellow pill", "orange pill"),
    },
    structural={"breakage": blemish("broken"), "stain": blemish("stained")},
)  # fmt: skip
FRYUM = Product(
    "visa", "fryum", "count", "Two brown rings, two red rings and one white nut, lying anywhere.",
    _loose({"brown ring": 2, "red ring": 2, "white nut": 1}, 4, 4, "plain"),
    logical={"missing": _remove_shape("ring"), "extra": add("white nut"), "swapped": replace("brown ring", "red ring")},
    structural={"burnt": blemish("stained"), "breakage": blemish("broken")},
)  # fmt: skip
PCB1 = Product(
    "visa", "pcb1", "place", "Two blue chips above, two yellow coils and a red pin below, an orange part between.",
    _pcb1,
    logical={
        "missing": _remove_shape("ring"), "wrong place": move("pin"), "swapped": replace("blue chip", "green chip"),
    },
    structural={"scratch": blemish("scratched"), "melt": blemish("stained")},
)  # fmt: skip
PCB3 = Product(
    "visa", "pcb3", "count", "Two green chips in the upper corners; three blue nuts and two yellow discs anywhere.",
    _loose({"blue nut": 3, "yellow disc": 2}, 4, 4, "board", (at("chip", "green", 0, 0), at("chip", "green", 0, 3))),
    logical={"missing": remove("blue nut"), "extra": add("yellow disc"), "swapped": replace("blue nut", "yellow disc")},
    structural={"scratch": blemish("scratched"), "melt": blemish("stained")},
)  # fmt: skip
PCB4 = Product(
    "visa", "pcb4", "relation",
    "One chip and two lamps of the colour that belongs to it: red to green, blue to yellow.", _pcb4,
    logical={"missing": _remove_shape("disc"), "swapped": _pcb4_lamp, "extra": add("red disc")},
    structural={"scratch": blemish("scratched"), "melt": blemish("stained")},
)  # fmt: skip

PRODUCTS = (CABLE, TRANSISTOR, METAL_NUT, BOTTLE, CANDLE, CAPSULES, MACARONI, FRYUM, PCB1, PCB3, PCB4)

"""The normal scenes of toy MVTec LOCO AD and the ways in which its products break."""

import random

from ladlib.toy.products import at, with_parts
from ladlib.toy.scenes import Part, Scene

TANGERINE, NECTARINE, CEREAL, BANANA, ALMOND = (
    "orange disc",
    "red disc",
    "brown flakes",
    "yellow chips",
    "brown almonds",
)
JUICES = ("red", "yellow", "orange")  # cherry, banana, orange
CABLES = {"duo": "yellow", "trio": "blue", "quint": "red"}  # clamps and the colour that belongs to them


def breakfast(rng: random.Random) -> Scene:
    cells = rng.sample([(0, 0), (0, 1), (1, 0), (2, 1), (3, 0), (3, 1)], 3)
    fruit = [at("disc", colour, *cell) for colour, cell in zip(("orange", "orange", "red"), sorted(cells), strict=True)]
    order = rng.sample(["orange", "orange", "red"], 3)
    fruit = [part.model_copy(update={"colour": colour}) for part, colour in zip(fruit, order, strict=True)]
    right = [at("flakes", "brown", row, col) for row in (0, 1) for col in (2, 3, 4)]
    right += [at("chips", "yellow", 2, col) for col in (2, 3, 4)] + [
        at("almonds", "brown", 3, col) for col in (2, 3, 4)
    ]
    return with_parts(Scene(rows=4, cols=5, parts=(), backdrop="breakfast_box"), fruit + right)


def mirrored(scene: Scene, rng: random.Random) -> Scene:
    return with_parts(scene, [part.model_copy(update={"col": scene.cols - 1 - part.col}) for part in scene.parts])


def juice(rng: random.Random) -> Scene:
    colour = rng.choice(JUICES)
    column = [at("juice", colour, row, 1) for row in (1, 3, 5)] + [at("tag", colour, 2, 1), at("band", colour, 4, 1)]
    return poured(with_parts(Scene(rows=6, cols=3, parts=(), backdrop="juice_bottle"), column))


def poured(scene: Scene) -> Scene:
    """``scene`` with juice behind the labels, from the uppermost juice down."""
    juice = [part for part in scene.parts if part.shape == "juice"]
    labels = [part.row for part in scene.parts if part.shape != "juice" and juice and part.row > juice[0].row]
    return scene.model_copy(update={"under": tuple(at("juice", juice[0].colour, row, 1) for row in labels)})


def swap_rows(scene: Scene, one: int, two: int) -> Scene:
    rows = {one: two, two: one}
    moved = [part.model_copy(update={"row": rows.get(part.row, part.row)}) for part in scene.parts]
    return poured(with_parts(scene, moved))


def labels_swapped(scene: Scene, rng: random.Random) -> Scene:
    return swap_rows(scene, 2, 4)


def top_label_misplaced(scene: Scene, rng: random.Random) -> Scene:
    return swap_rows(scene, 2, rng.choice((1, 3)))


def bottom_label_misplaced(scene: Scene, rng: random.Random) -> Scene:
    return swap_rows(scene, 4, rng.choice((3, 5)))


def without_label(*shapes: str):
    def apply(scene: Scene, rng: random.Random) -> Scene:
        juice = next(part.colour for part in scene.parts if part.shape == "juice")
        swap = {"shape": "juice", "colour": juice}
        return poured(with_parts(scene, [p.model_copy(update=swap) if p.shape in shapes else p for p in scene.parts]))

    return apply


def without_juice(*rows: int):
    def apply(scene: Scene, rng: random.Random) -> Scene:
        kept = [p for p in scene.parts if p.shape != "juice" or (rows and p.row not in rows)]
        return poured(with_parts(scene, kept))

    return apply


def overfilled(scene: Scene, rng: random.Random) -> Scene:
    return with_parts(scene, [*scene.parts, at("juice", scene.parts[0].colour, 0, 1)])


def wrong_juice(scene: Scene, rng: random.Random) -> Scene:
    other = rng.choice([colour for colour in JUICES if colour != scene.parts[0].colour])
    parts = [p.model_copy(update={"colour": other}) if p.shape == "juice" else p for p in scene.parts]
    return poured(with_parts(scene, parts))


def icon_missing(scene: Scene, rng: random.Random) -> Scene:
    return with_parts(scene, [p.model_copy(update={"shape": "band"}) if p.shape == "tag" else p for p in scene.parts])


def pushpins(rng: random.Random) -> Scene:
    pins = tuple(at("pin", "yellow", row, col) for row in range(3) for col in range(5))
    return Scene(rows=3, cols=5, parts=pins, backdrop="pushpins")


def more_pins(count: int):
    def apply(scene: Scene, rng: random.Random) -> Scene:
        return with_parts(scene, [*scene.parts, *rng.sample(scene.parts, count)])

    return apply


def no_separator(scene: Scene, rng: random.Random) -> Scene:
    return scene.model_copy(update={"backdrop": "pushpins_open"})


def screw_bag(rng: random.Random) -> Scene:
    kinds = ["ring", "ring", "nut", "nut", "screw", "bolt"]
    cells = rng.sample([(row, col) for row in range(4) for col in range(5)], len(kinds))
    parts = [at(shape, "grey", *cell) for shape, cell in zip(kinds, cells, strict=True)]
    return with_parts(Scene(rows=4, cols=5, parts=(), backdrop="screw_bag"), parts)


def splicing(rng: random.Random) -> Scene:
    shape, row = rng.choice(tuple(CABLES)), rng.randrange(3)
    parts = [at(shape, "grey", row, 0), at(shape, "grey", row, 5)]
    parts += [at("wire", CABLES[shape], row, col) for col in range(1, 5)]
    return with_parts(Scene(rows=3, cols=6, parts=(), backdrop="splicing_connectors"), parts)


def wires(scene: Scene) -> list[Part]:
    return [part for part in scene.parts if part.shape == "wire"]


def without_wires(*cols: int):
    def apply(scene: Scene, rng: random.Random) -> Scene:
        return with_parts(scene, [p for p in scene.parts if p.shape != "wire" or (cols and p.col not in cols)])

    return apply


def other_row(keep: bool):
    def apply(scene: Scene, rng: random.Random) -> Scene:
        found = wires(scene)
        row = rng.choice([row for row in range(3) if row != found[0].row])
        moved = [wire.model_copy(update={"row": row}) for wire in found]
        kept = list(scene.parts) if keep else [part for part in scene.parts if part.shape != "wire"]
        return with_parts(scene, [*kept, *moved])

    return apply


def cable_colour(scene: Scene, rng: random.Random) -> Scene:
    found = wires(scene)
    other = rng.choice([colour for colour in CABLES.values() if colour != found[0].colour])
    return with_parts(scene, [p.model_copy(update={"colour": other}) if p in found else p for p in scene.parts])


def connector_type(scene: Scene, rng: random.Random) -> Scene:
    col = rng.choice((0, 5))
    own = next(part.shape for part in scene.parts if part.col == col)
    other = rng.choice([shape for shape in CABLES if shape != own])
    return with_parts(scene, [p.model_copy(update={"shape": other}) if p.col == col else p for p in scene.parts])


def no_connector(scene: Scene, rng: random.Random) -> Scene:
    col = rng.choice((0, 5))
    return with_parts(scene, [part for part in scene.parts if part.col != col])

"""Toy MVTec LOCO AD: the normal scenes of its five categories, and LOCO's rules and defects of each.

Rules and defect names: MVTec LOCO AD (Bergmann et al., IJCV 2022, doi 10.1007/s11263-022-01578-9) and
the dataset's ``defects_config.json``, whose mask values are used. Departures: parts lie in cells;
a bag holds no plastic folds, a bottle one column of juice; of 89 defect types, 45 are drawn.
"""

import random

from ladlib.toy.products import Product, add, at, blemish, recolour, remove, replace, then, with_parts
from ladlib.toy.scenes import Part, Scene

TANGERINE, NECTARINE, CEREAL = "orange disc", "red disc", "brown flakes"
BANANA, ALMOND = "yellow chips", "brown almonds"
JUICES = ("red", "yellow", "orange")  # cherry, banana, orange
CABLES = {"duo": "yellow", "trio": "blue", "quint": "red"}  # clamps and the colour that belongs to them


def breakfast(rng: random.Random) -> Scene:
    cells = rng.sample([(0, 0), (0, 1), (1, 0), (2, 1), (3, 0), (3, 1)], 3)
    fruit = [at("disc", colour, *cell) for colour, cell in zip(("orange", "orange", "red"), sorted(cells), strict=True)]
    order = rng.sample(["orange", "orange", "red"], 3)
    fruit = [part.model_copy(update={"colour": colour}) for part, colour in zip(fruit, order, strict=True)]
    right = [at("flakes", "brown", row, col) for row in (0, 1) for col in (2, 3, 4)]
    right += [at("chips", "yellow", 2, col) for col in (2, 3, 4)]
    right += [at("almonds", "brown", 3, col) for col in (2, 3, 4)]
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


BREAKFAST = Product(
    "mvtec_loco", "breakfast_box", "count",
    "Two tangerines and one nectarine on the left; on the right cereals above, banana chips and almonds below.",
    breakfast,
    logical={
        "missing_almonds": remove(ALMOND, 0),
        "missing_bananas": remove(BANANA, 0),
        "missing_toppings": then(remove(ALMOND, 0), remove(BANANA, 0)),
        "missing_cereals": remove(CEREAL, 0),
        "missing_cereals_and_toppings": then(remove(CEREAL, 0), remove(ALMOND, 0), remove(BANANA, 0)),
        "nectarines_2_tangerine_1": replace(TANGERINE, NECTARINE),
        "nectarine_1_tangerine_1": remove(TANGERINE),
        "nectarines_0_tangerines_2": remove(NECTARINE),
        "nectarines_0_tangerines_3": replace(NECTARINE, TANGERINE),
        "compartments_swapped": mirrored,
        "underflow": remove(CEREAL, 3),
        "wrong_ratio": replace(CEREAL, BANANA, 3),
    },
    structural={
        "fruit_damaged": blemish("broken", "disc"), "toppings_crushed": blemish("broken", "chips", "almonds"),
        "contamination": blemish("stained"),
    },
    values={
        "missing_almonds": 255, "missing_bananas": 254, "missing_toppings": 253, "missing_cereals": 252,
        "missing_cereals_and_toppings": 251, "nectarines_2_tangerine_1": 250, "nectarine_1_tangerine_1": 249,
        "nectarines_0_tangerines_2": 248, "nectarines_0_tangerines_3": 247, "compartments_swapped": 242,
        "underflow": 240, "wrong_ratio": 239, "fruit_damaged": 237, "toppings_crushed": 235, "contamination": 234,
    },
)  # fmt: skip

JUICE = Product(
    "mvtec_loco", "juice_bottle", "relation",
    "One of three juices up to the neck; the icon of the upper label matches the juice; a second label below.",
    juice,
    logical={
        "missing_top_label": without_label("tag"), "missing_bottom_label": without_label("band"),
        "swapped_labels": labels_swapped,
        "misplaced_label_top": top_label_misplaced,
        "misplaced_label_bottom": bottom_label_misplaced,
        "empty_bottle": without_juice(),
        "wrong_fill_level_too_much": overfilled,
        "wrong_fill_level_not_enough": without_juice(1),
        "missing_fruit_icon": icon_missing,
        "wrong_juice_type": wrong_juice,
    },
    structural={
        "damaged_label": blemish("broken", "tag", "band"), "label_text_incomplete": blemish("scratched", "band"),
        "contamination": blemish("stained"),
    },
    values={
        "missing_top_label": 255, "missing_bottom_label": 254, "swapped_labels": 253, "damaged_label": 252,
        "misplaced_label_top": 250, "misplaced_label_bottom": 249, "label_text_incomplete": 248, "empty_bottle": 247,
        "wrong_fill_level_too_much": 246, "wrong_fill_level_not_enough": 245, "missing_fruit_icon": 243,
        "wrong_juice_type": 240, "contamination": 238,
    },
)  # fmt: skip

PUSHPINS = Product(
    "mvtec_loco", "pushpins", "count",
    "Fifteen compartments, divided by separators, with exactly one yellow pushpin in each.",
    pushpins,
    logical={
        "missing_pushpin": remove("yellow pin"),
        "additional_1_pushpin": more_pins(1),
        "additional_2_pushpins": more_pins(2),
        "missing_separator": no_separator,
    },
    structural={
        "broken": blemish("broken", "pin"),
        "color": recolour("pin", ("red", "green", "blue")),
        "contamination": blemish("stained"),
    },
    looseness=4,
    values={
        "additional_1_pushpin": 255, "additional_2_pushpins": 254, "missing_pushpin": 253, "missing_separator": 252,
        "broken": 250, "color": 249, "contamination": 248,
    },
)  # fmt: skip

SCREW_BAG = Product(
    "mvtec_loco", "screw_bag", "count",
    "Two washers, two nuts, one long screw and one short screw, lying anywhere in the bag.",
    screw_bag,
    logical={
        "screw_too_long": replace("grey bolt", "grey screw"),
        "screw_too_short": replace("grey screw", "grey bolt"),
        "additional_1_long_screw": add("grey screw"),
        "additional_1_short_screw": add("grey bolt"),
        "additional_1_nut": add("grey nut"),
        "additional_1_washer": add("grey ring"),
        "missing_1_long_screw": remove("grey screw"),
        "missing_1_short_screw": remove("grey bolt"),
        "missing_1_nut": remove("grey nut"),
        "missing_1_washer": remove("grey ring"),
    },
    structural={
        "color": recolour("nut", ("brown", "yellow", "blue")),
        "part_broken": blemish("broken"),
        "contamination": blemish("stained"),
    },
    looseness=4,
    values={
        "screw_too_long": 255, "screw_too_short": 254, "additional_1_long_screw": 251, "additional_1_short_screw": 250,
        "additional_1_nut": 249, "additional_1_washer": 247, "missing_1_long_screw": 245, "missing_1_short_screw": 244,
        "missing_1_nut": 243, "missing_1_washer": 241, "color": 238, "contamination": 237, "part_broken": 236,
    },
)  # fmt: skip

SPLICING = Product(
    "mvtec_loco", "splicing_connectors", "relation",
    "Two connectors with the same number of clamps, joined by one cable: two clamps yellow, three blue, five red.",
    splicing,
    logical={
        "wrong_connector_type": connector_type,
        "cable_too_short": without_wires(4),
        "missing_connector": no_connector,
        "missing_cable": without_wires(),
        "extra_cable": other_row(keep=True),
        "cable_color": cable_colour,
        "cable_cut": without_wires(2),
        "wrong_cable_location": other_row(keep=False),
    },
    structural={
        "broken_cable": blemish("broken", "wire"),
        "broken_connector": blemish("broken", "duo", "trio", "quint"),
        "contamination": blemish("stained"),
    },
    values={
        "wrong_connector_type": 255, "cable_too_short": 252, "missing_connector": 249, "missing_cable": 247,
        "extra_cable": 246, "cable_color": 245, "broken_cable": 244, "cable_cut": 243, "wrong_cable_location": 240,
        "broken_connector": 238, "contamination": 235,
    },
)  # fmt: skip

PRODUCTS = (BREAKFAST, JUICE, PUSHPINS, SCREW_BAG, SPLICING)

"""Toy MVTec LOCO AD: five categories with LOCO's rules and logical defects, in the toy alphabet.

Rules and defect names: MVTec LOCO AD (Bergmann et al., IJCV 2022, doi 10.1007/s11263-022-01578-9) and
the dataset's ``defects_config.json``, whose mask values are used. Departures: parts lie in cells;
a bag holds no plastic folds, a bottle one column of juice; of 89 defect types, 45 are drawn.
"""

from ladlib.toy.loco_scenes import (
    ALMOND,
    BANANA,
    CEREAL,
    NECTARINE,
    TANGERINE,
    bottom_label_misplaced,
    breakfast,
    cable_colour,
    connector_type,
    icon_missing,
    juice,
    labels_swapped,
    mirrored,
    more_pins,
    no_connector,
    no_separator,
    other_row,
    overfilled,
    pushpins,
    screw_bag,
    splicing,
    top_label_misplaced,
    without_juice,
    without_label,
    without_wires,
    wrong_juice,
)
from ladlib.toy.products import Product, add, blemish, recolour, remove, replace, then

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
        "fruit_damaged": blemish("broken", "disc"),
        "toppings_crushed": blemish("broken", "chips", "almonds"),
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
        "missing_top_label": without_label("tag"),
        "missing_bottom_label": without_label("band"),
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
        "damaged_label": blemish("broken", "tag", "band"),
        "label_text_incomplete": blemish("scratched", "band"),
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

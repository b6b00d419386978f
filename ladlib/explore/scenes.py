"""The scene editor: take a part out of a toy product, put one in, swap two, and hear what the model says now.

    scene_editor(judge, find_dataset(root, "mvtec_loco"))

The reference image shows the untouched scene. Both pictures are photographs of their own: light, noise and the exact
place of each part differ between them, as between any two pictures of the toy world.
"""

import random
from pathlib import Path

from PIL import Image

from ladlib.explore.judge import Judge, told
from ladlib.explore.view import Explorer, choice, explorer, note, picture, side_by_side
from ladlib.toy import loco
from ladlib.toy.products import at, with_parts
from ladlib.toy.scenes import Part, Scene, render
from ladlib.toy.truth import read_scenes, what_changed

WIDTH = 200  # pixels of the page that a picture takes
LEAVE, REMOVE, ADD, SWAP = "leave it", "take the part out", "put a part there", "swap with the second place"
RULES = {one.name: one for one in loco.PRODUCTS}


def scene_editor(judge: Judge, folder: Path) -> Explorer:
    """Menus for the product, a place, what to do there, and with what; the verdict follows.

    ``folder`` is a toy MVTec LOCO AD. Raises :class:`UserError` where it keeps no scenes.
    """
    scenes = normal_scenes(folder)
    product = choice("Product", list(scenes))
    action = choice("Do", [REMOVE, LEAVE, ADD, SWAP])
    place = choice("Place", places(scenes[product.value]))
    second = choice("Second place", places(scenes[product.value])[::-1], "Used where two places are swapped")
    kind = choice("Part", sorted({part.kind for one in scenes.values() for part in one.parts}), "Used to put one in")

    def follow(change: dict) -> None:
        place.options, second.options = places(scenes[change["new"]]), places(scenes[change["new"]])[::-1]

    def draw(product: str, action: str, place: str, second: str, kind: str) -> str:
        return _view(judge, product, scenes[product], edited(scenes[product], action, place, second, kind))

    product.observe(follow, names="value")
    controls = {"product": product, "action": action, "place": place, "second": second, "kind": kind}
    return explorer("Scene editor", draw, **controls)


def normal_scenes(folder: Path) -> dict[str, Scene]:
    """The scene of the first good test image of each category."""
    found: dict[str, Scene] = {}
    for path, truth in sorted(read_scenes(folder).items()):
        category, *rest = path.split("/")
        if rest[:2] == ["test", "good"]:
            found.setdefault(category, truth.scene)
    return found


def places(scene: Scene) -> list[tuple[str, str]]:
    """(what a menu shows, place) of every cell, those that hold a part first."""
    held = scene.at()
    named = [
        (f"{place}: {held[place].name}" if place in held else f"{place}: empty", place) for place in scene.places()
    ]
    return sorted(named, key=lambda one: one[1] not in held)


def edited(scene: Scene, action: str, place: str, second: str, kind: str) -> Scene:
    """``scene`` after one of the four actions; ``kind`` is "colour shape".

    What lay beneath a part that was taken out, such as the juice behind a label, comes to light. An action without
    an object changes nothing.
    """
    if place not in scene.places() or second not in scene.places():
        return scene  # a menu of another product that has not followed yet
    if action == REMOVE:
        return _without(scene, place)
    if action == ADD:
        colour, shape = kind.split()
        kept = _without(scene, place).parts
        return with_parts(
            scene, [*(one for one in kept if one.place != place), at(shape, colour, *_cell(scene, place))]
        )
    if action == SWAP:
        return with_parts(scene, [_moved(scene, one, place, second) for one in scene.parts])
    return scene


def photographs(normal: Scene, changed: Scene, looseness: int) -> tuple[Image.Image, Image.Image]:
    """(reference image of ``normal``, test image of ``changed``); the same scenes give the same pictures."""
    return render(normal, random.Random(0), looseness), render(changed, random.Random(1), looseness)


def _without(scene: Scene, place: str) -> Scene:
    bared = [one for one in scene.under if one.place == place]
    if place not in scene.at():
        return scene
    left = scene.model_copy(update={"under": tuple(one for one in scene.under if one.place != place)})
    return with_parts(left, [*(one for one in scene.parts if one.place != place), *bared])


def _moved(scene: Scene, part: Part, place: str, second: str) -> Part:
    to = {place: second, second: place}.get(part.place, part.place)
    row, col = _cell(scene, to)
    return part.model_copy(update={"row": row, "col": col})


def _cell(scene: Scene, place: str) -> tuple[int, int]:
    return divmod(scene.places().index(place), scene.cols)


def _view(judge: Judge, product: str, normal: Scene, changed: Scene) -> str:
    reference, test = photographs(normal, changed, RULES[product].looseness)
    (found,) = judge([(reference, test)])
    parts = [
        picture(image, f"{name} of a drawn {product}", WIDTH) + note(name)
        for name, image in (("reference image", reference), ("test image", test))
    ]
    return side_by_side(*parts, told(found) + note(_truth(product, normal, changed)))


def _truth(product: str, normal: Scene, changed: Scene) -> str:
    where = what_changed(normal, changed).places
    done = (
        f"In truth the two scenes differ at {', '.join(where)}." if where else "In truth the two scenes are the same."
    )
    return f"{done} The rule: {RULES[product].rule}"

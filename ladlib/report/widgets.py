"""What a notebook lets a reader try by hand: controls above a view that follows them. Nothing here writes a file.

    pair_browser(session)    rewards()    rollouts(session)    threshold(answers)    scene_editor(session)

A widget lives as long as its kernel, so each also displays its first view as HTML, which is hidden where the widget is.
"""

import random
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from PIL import Image

from ladlib.data.images import FACTOR, tokens, view
from ladlib.errors import UserError
from ladlib.metrics import measure, outcomes
from ladlib.parsing import parse, parse_answer
from ladlib.records import Answer, Pair
from ladlib.report import cards, tables
from ladlib.report.cards import GREY, defect_overlay, image_tag
from ladlib.rewards import accuracy_reward, explain_accuracy, explain_format, format_reward
from ladlib.sanitize import escape_html
from ladlib.toy import loco
from ladlib.toy.products import at, with_parts
from ladlib.toy.scenes import Scene, render
from ladlib.toy.truth import read_scenes, what_changed

REMOVE, KEEP, ADD = "take the part out", "leave it", "put another part there"
VERDICTS = {"yes": "anomalous", "no": "good", None: "unparsed answer"}
PRODUCTS = {product.name: product for product in loco.PRODUCTS}
HIDDEN_BESIDE_WIDGET = "<style>.jp-OutputArea:has(.widget-vbox) .ladlib-still{display:none}</style>"


class Explorer(ipywidgets.VBox):
    """Controls by name above the HTML that ``draw`` makes of their values, or the text of a :class:`UserError`."""

    def __init__(self, title: str, draw: Callable[..., str], **controls: ipywidgets.Widget) -> None:
        self.title, self.controls, self._draw = title, controls, draw
        self.view = ipywidgets.HTML(self._html())
        super().__init__([*controls.values(), self.view])
        for control in controls.values():
            control.layout = ipywidgets.Layout(width="32em", max_width="100%")
            control.style = {"description_width": "9em"}
            control.tooltip = control.tooltip or control.description
            control.observe(lambda _: setattr(self.view, "value", self._html()), names="value")

    def _repr_mimebundle_(self, **options: object) -> dict | tuple[dict, dict]:
        label = f"<small style='color:{GREY}'>{escape_html(self.title)}, snapshot. Run this cell to interact.</small>"
        figure = f"<figure class='ladlib-still'>{self.view.value}<figcaption>{label}</figcaption></figure>"
        display(HTML(HIDDEN_BESIDE_WIDGET + figure))
        return super()._repr_mimebundle_(**options)

    def _html(self) -> str:
        try:
            inside = self._draw(**{name: control.value for name, control in self.controls.items()})
        except UserError as error:
            inside = note(str(error))
        label = escape_html(self.title)
        return f"<div role='region' aria-live='polite' aria-label='{label}' style='line-height:1.4'>{inside}</div>"


def menu(description: str, options: Sequence) -> ipywidgets.Dropdown:
    """A menu with its first option chosen. Raises :class:`UserError` where there is none."""
    if not options:
        raise UserError(f"There is no {description.lower()} to choose from.", "Run the cells and notebooks before.")
    return ipywidgets.Dropdown(options=options, description=description)


def note(text: str) -> str:
    """A sentence in grey."""
    return f"<p style='color:{GREY};margin:0.4em 0;white-space:pre-line'>{escape_html(text)}</p>"


def table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> str:
    """A table of plain texts."""
    return tables.display(pd.DataFrame(rows, columns=headings)).to_html()


def picture(image: Image.Image, alt: str, text: str) -> str:
    """An image inside the page with a note below; ``alt`` is what a screen reader says of it."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return image_tag(file.getvalue(), alt, "width:240px;image-rendering:pixelated;") + note(text)


def side_by_side(*parts: str) -> str:
    """Parts in a row that wraps where the page is narrow."""
    boxes = "".join(f"<div>{part}</div>" for part in parts)
    return f"<div style='display:flex;flex-wrap:wrap;gap:1.2em;align-items:flex-start'>{boxes}</div>"


def pair_browser(session: Any) -> Explorer:
    """Any test pair of MVTec LOCO AD as the model sees it, with or without its mask and its label."""
    folder, data = session.folder(), session.profile.data
    pairs: dict[str, list[Pair]] = {}
    for pair in session.pairs():
        pairs.setdefault(pair.test.category, []).append(pair)
    category = menu("Category", sorted(pairs))
    first = next((index for index, pair in enumerate(pairs[category.value], 1) if pair.test.masks), 1)
    number = ipywidgets.IntSlider(first, min=1, max=len(pairs[category.value]), description="Pair")
    mask = ipywidgets.Checkbox(False, description="Show the mask", tooltip="Red: where the defect is")
    guess = ipywidgets.Checkbox(False, description="Let me guess", tooltip="Hides the label and the names of the files")

    def draw(category: str, number: int, mask: bool, guess: bool) -> str:
        pair, cells = pairs[category][min(number, len(pairs[category])) - 1], []  # the slider may be behind the menu
        test, labelled = pair.test, f"{pair.test.anomaly} {pair.test.defect}, label {pair.test.label}"
        for name, path in (("reference image", pair.reference), ("test image", test.image)):
            image = view(folder / path, data.min_pixels, data.max_pixels)
            size = f"{image.width} × {image.height} pixels, {tokens(image.size)} visual tokens"
            if mask and not guess and path == test.image and test.masks:
                image = Image.fromarray(defect_overlay(np.asarray(image), [folder / mask for mask in test.masks]))
            image = with_grid(image)
            image.thumbnail((640, 640))
            cells.append(picture(image, f"{name} of {category}", f"{name if guess else f'{name}: {path}'}\n{size}"))
        caption = "Normal or anomalous, and why?" if guess else labelled
        return note(caption.replace("_", " ")) + side_by_side(*cells)

    category.observe(lambda change: setattr(number, "max", len(pairs[change["new"]])), names="value")
    return Explorer("Pair browser", draw, category=category, number=number, mask=mask, guess=guess)


def with_grid(image: Image.Image, times: int = 3) -> Image.Image:
    """``image`` enlarged, cut by thin lines into patches (14 pixels) and by bold ones into visual tokens (28)."""
    pixels = np.asarray(image).repeat(times, 0).repeat(times, 1)
    for step, width in ((FACTOR // 2, 1), (FACTOR, 3)):
        for offset in range(width):
            pixels[offset :: step * times] = pixels[:, offset :: step * times] = 86, 180, 233  # sky blue
    return Image.fromarray(pixels)


def rewards() -> Explorer:
    """A box for a completion, and what the parser and both rewards make of it, with the reason."""
    text = "<think>Seven rings, and a purple elephant.</think><answer>yes</answer>"
    box = ipywidgets.Textarea(text, description="Completion", rows=3, tooltip="What the model might answer")
    return Explorer("Reward playground", _rewarded, completion=box, label=menu("Label", ["yes", "no"]))


def _rewarded(completion: str, label: Answer) -> str:
    parsed, values = parse(completion), (accuracy_reward(completion, label), format_reward(completion))
    rows = [
        ("thinking", "", "none found" if parsed.think is None else parsed.think),
        ("answer", "", parsed.answer or "–"),
        ("accuracy reward", f"{values[0]:.0f}", explain_accuracy(completion, label)),
        ("format reward", f"{values[1]:.0f}", explain_format(completion)),
    ]
    total = note(f"Total: {sum(values):.0f}. The rationale was not checked.")
    return table(rows, ["", "reward", "why"]) + total


def rollouts(session: Any, arm: str = "sft_grpo") -> Explorer:
    """The stored groups of a training in the order of its steps: completions, rewards and advantages."""
    groups = session.rollouts(arm)
    options = [(f"step {group['step']}: {group['id']}", index) for index, group in enumerate(groups)]
    return Explorer("Rollout explorer", lambda group: cards.rollout(groups[group]).data, group=menu("Group", options))


def threshold(answers: pd.DataFrame) -> Explorer:
    """A slider for the threshold on P(anomalous), with the confusion matrix and the scores that follow."""
    by_arm = dict(list(answers[answers["p_yes"].notna()].groupby("arm", sort=False)))
    arm = menu("Model", list(by_arm)[::-1])
    value = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.01, description="Threshold", tooltip="On P(anomalous)")
    return Explorer("Threshold on P(anomalous)", lambda arm, value: _scored(by_arm, arm, value), arm=arm, value=value)


def _scored(by_arm: dict[str, pd.DataFrame], arm: str, value: float) -> str:
    scores = measure(outcomes(by_arm[arm]).assign(called=by_arm[arm]["p_yes"] >= value))
    tn, fp, fn, tp = (f"{name.upper()} {scores[name]}" for name in ("tn", "fp", "fn", "tp"))
    matrix = table([("good", tn, fp), ("anomalous", fn, tp)], ["", "called good", "called anomalous"])
    names = ("accuracy", "f1", "recall", "specificity", "balanced_accuracy")
    shares = [[name, "–" if scores[name] is None else f"{scores[name]:.3f}"] for name in names]
    rule = f"{arm}, {len(by_arm[arm])} images: called anomalous from P = {value:.2f} on. "
    warning = "A threshold chosen with the labels of these images gives no honest score; F1-max is such a number."
    return side_by_side(matrix, table(shares, ["score", "value"])) + note(rule + warning)


def scene_editor(session: Any, arm: str = "sft_grpo") -> Explorer:
    """A part of a synthetic product taken out or exchanged, and what the model answers then; no real products."""
    truths = read_scenes(session.folder()).items()
    scenes = {path.split("/")[0]: truth.scene for path, truth in truths if "/test/good/" in path}
    product, action = menu("Product", sorted(scenes)), menu("Do", [REMOVE, KEEP, ADD])
    place = menu("Place", places(scenes[product.value]))
    kind = menu("Part", sorted({part.kind for scene in scenes.values() for part in scene.parts}))

    def draw(product: str, action: str, place: str, kind: str) -> str:
        normal, changed = scenes[product], edited(scenes[product], action, place, kind)
        rule, looseness = PRODUCTS[product].rule, PRODUCTS[product].looseness
        images = [render(scene, random.Random(seed), looseness) for seed, scene in enumerate((normal, changed))]
        (answer,) = session.answer([images], arm)
        differing = what_changed(normal, changed).places
        rows = [
            ("answer", f"{VERDICTS[parse_answer(answer.text)]}, P(anomalous) = {answer.p_yes:.2f}"),
            ("rationale", answer.text + (" (truncated at the token limit)" if answer.finish == "length" else "")),
            ("truth", f"the scenes differ at {', '.join(differing)}" if differing else "the two scenes are the same"),
            ("rule", rule),
        ]
        named = zip(images, ("reference image", "test image"), strict=True)
        pictures = [picture(image, f"{name} of a {product}", name) for image, name in named]
        return side_by_side(*pictures, table(rows, ["", "this pair"]))

    product.observe(lambda change: setattr(place, "options", places(scenes[change["new"]])), names="value")
    return Explorer("Scene editor", draw, product=product, action=action, place=place, kind=kind)


def places(scene: Scene) -> list[tuple[str, str]]:
    """(name in the menu, place) of every cell, those that hold a part first."""
    parts = scene.at()
    cells = [(f"{place}: {parts[place].name if place in parts else 'empty'}", place) for place in scene.places()]
    return sorted(cells, key=lambda cell: cell[1] not in parts)


def edited(scene: Scene, action: str, place: str, kind: str) -> Scene:
    """``scene`` after an action; what lies beneath a part, such as the juice behind a label, becomes visible."""
    if place not in scene.places() or action == KEEP:
        return scene  # a menu of another product may not have followed yet
    taken = [part for part in scene.parts if part.place != place]
    if action == ADD:
        colour, shape = kind.split()
        return with_parts(scene, [*taken, at(shape, colour, *divmod(scene.places().index(place), scene.cols))])
    bared = [part for part in scene.under if part.place == place and place in scene.at()]
    kept = tuple(part for part in scene.under if part not in bared)
    return with_parts(scene.model_copy(update={"under": kept}), taken + bared)

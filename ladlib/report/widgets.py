"""What a notebook lets a reader try by hand; nothing here writes a file. A session is a notebook's.

pair_browser(session)    rewards()    rollouts(session)    threshold(answers)    scene_editor(session)
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ladlib.data.images import open_image, tokens, view
from ladlib.data.pairing import pair_images
from ladlib.parsing import parse
from ladlib.records import Answer, Pair
from ladlib.report.interactive import (
    FULL,
    Explorer,
    answered,
    coloured,
    menu,
    note,
    picture,
    processed,
    side_by_side,
    table,
    with_grid,
    with_mask,
)  # fmt: skip
from ladlib.report.style import INK, RED, SKY, image_tag, panels, png_bytes, styled
from ladlib.rewards import accuracy_reward, explain_accuracy, explain_format, format_reward
from ladlib.sanitize import escape_html
from ladlib.toy import loco
from ladlib.toy.products import at, with_parts
from ladlib.toy.scenes import Scene, render
from ladlib.toy.truth import read_scenes, what_changed

EXAMPLE = "<think>Seven rings, and a purple elephant.</think><answer>yes</answer>"
AS_STORED, AS_SEEN = "as stored", "as the processor sees it, in patches"
BY_ADVANTAGE, BY_CHANGE = "the completion's advantage", "change of log-probability"
REMOVE, KEEP, ADD, SWAP = "take the part out", "leave it", "put a part there", "swap with the second place"
PRODUCTS = {product.name: product for product in loco.PRODUCTS}
Tokens = list[tuple[str, float]]  # each token's text and its value


def pair_browser(session: Any) -> Explorer:
    """Any test pair of MVTec LOCO AD as stored or as the model's processor sees it, with its mask; label on or off."""
    from ladlib.models import load_processor

    pairs, folder, data = session.pairs(), session.folder(), session.profile.data
    processor = load_processor(session.profile.model.base, data)
    category = menu("Category", sorted({pair.test.category for pair in pairs}))
    defect = menu("Defect", defects_of(pairs, category.value))
    number = ipywidgets.IntSlider(1, min=1, max=len(matching(pairs, category.value)), description="Pair")
    pixels = menu("Pixels", [AS_SEEN, AS_STORED])
    mask = ipywidgets.Checkbox(False, description="Show the mask", tooltip="Orange: where the defect is")
    guess = ipywidgets.Checkbox(False, description="Let me guess", tooltip="Hides the label and the names of the files")

    def draw(category: str, defect: str, number: int, pixels: str, mask: bool, guess: bool) -> str:
        chosen = matching(pairs, category, defect) or matching(pairs, category)  # one menu may be ahead of the other
        pair, cells = chosen[min(number, len(chosen)) - 1], []
        test, stored = pair.test, pixels == AS_STORED
        caption = "Normal or anomalous, and why?" if guess else f"{test.anomaly} {test.defect}, label {test.label}"
        for name, path in (("reference image", pair.reference), ("test image", test.image)):
            image = open_image(folder / path) if stored else view(folder / path, data.min_pixels, data.max_pixels)
            size = f"{image.width} × {image.height} pixels"
            size += "" if stored else f", {tokens(image.size)} visual tokens"
            image = image if stored else processed(image, processor)
            if mask and not guess and path == test.image:
                image = with_mask(image, [folder / file for file in test.masks])
            image = image if stored else with_grid(image)
            image.thumbnail((640, 640))
            cells.append(
                picture(image, f"{name} of {category}") + note(f"{name}{'' if guess else f': {path}'}\n{size}")
            )
        return note(caption.replace("_", " ")) + side_by_side(*cells)

    def follow(change: dict) -> None:
        if change["owner"] is category:
            defect.options = defects_of(pairs, category.value)
        number.max = max(1, len(matching(pairs, category.value, defect.value)))

    for control in (category, defect):
        control.observe(follow, names="value")
    menus, boxes = {"category": category, "defect": defect}, {"mask": mask, "guess": guess}
    return Explorer("Pair browser", draw, **menus, number=number, pixels=pixels, **boxes)


def defects_of(pairs: Sequence[Pair], category: str) -> list[str]:
    """The options of the menu of defects: all, good, and each defect of the category."""
    return ["all", *sorted({pair.test.defect or "good" for pair in pairs if pair.test.category == category})]


def matching(pairs: Sequence[Pair], category: str, defect: str = "all") -> list[Pair]:
    """The pairs of one category and one defect ("good" for none)."""
    own = [pair for pair in pairs if pair.test.category == category]
    return [pair for pair in own if defect in ("all", pair.test.defect or "good")]


def rewards(completion: str = EXAMPLE, label: Answer = "yes") -> Explorer:
    """A box for a completion, and what the parser and both rewards make of it, with the reason."""
    text = ipywidgets.Textarea(completion, description="Completion", rows=3, tooltip="What the model might answer")
    labels = [("anomalous (yes)", "yes"), ("good (no)", "no")]
    truth = ipywidgets.Dropdown(options=labels, value=label, description="Label")
    return Explorer("Reward playground", _rewarded, completion=text, label=truth)


def _rewarded(completion: str, label: Answer) -> str:
    parsed, values = parse(completion), (accuracy_reward(completion, label), format_reward(completion))
    blocks = f"thinking: {'none found' if parsed.think is None else parsed.think}\nanswer: {parsed.answer or '–'}"
    reasons = explain_accuracy(completion, label), explain_format(completion)
    rows = [["the completion", "", completion], ["the label", "", label], ["as parsed", "", blocks]]
    rows += [
        [f"{name} reward", f"{value:.0f}", reason]
        for name, value, reason in zip(("accuracy", "format"), values, reasons, strict=True)
    ]
    cells = [[name, f"<b>{value}</b>", escape_html(text)] for name, value, text in rows]
    return table(["", "reward", "why"], cells) + note(
        f"Total reward: {sum(values):.0f}. The rationale was not checked."
    )


def rollouts(session: Any, arm: str = "sft_grpo", changes: bool = False) -> Explorer:
    """The stored groups of a training by step, their tokens coloured by advantage.

    With ``changes`` also by log pi_after - log pi_before, each token given all before it: what became of its
    probability between SFT and the end of GRPO. Two checkpoints are loaded for that.
    """
    groups = session.rollouts(arm)
    steps = list(dict.fromkeys(group["step"] for group in groups))
    measure = token_changes(session, arm) if changes else None

    def options(step: int) -> list[tuple[str, int]]:
        return [(_group_name(group), index) for index, group in enumerate(groups) if group["step"] == step]

    chosen = menu("Group", options(steps[0]) if steps else [])
    step = ipywidgets.SelectionSlider(options=steps, description="Step", tooltip="Optimizer step")
    colour = menu("Colour by", [BY_CHANGE, BY_ADVANTAGE] if changes else [BY_ADVANTAGE])

    def draw(step: int, group: int, colour: str) -> str:
        completions = groups[group]["completions"]
        inherited = [[(one["text"], one["advantage"])] for one in completions]
        return _group_view(groups[group], measure(groups[group]) if colour == BY_CHANGE else inherited, colour)

    step.observe(lambda change: setattr(chosen, "options", options(change["new"])), names="value")
    return Explorer("Rollout explorer", draw, step=step, group=chosen, colour=colour)


def token_changes(session: Any, arm: str) -> Callable[[dict], list[Tokens]]:
    """A function from a group to its completions' tokens with their change of log-probability since SFT."""
    from ladlib import generate

    models = [generate.load(session.profile, session.model_name(name)) for name in ("sft", arm)]
    pairs = {pair.id: pair for pair in session.training_pairs()}

    def changes(group: dict) -> list[Tokens]:
        images = pair_images(pairs[group["id"]], session.data, session.profile.data)
        texts = [one["text"] for one in group["completions"]]
        before, after = (generate.token_log_probabilities(*model, images, texts) for model in models)
        return [
            [(token, late - early) for (token, early), (_, late) in zip(old, new, strict=True)]
            for old, new in zip(before, after, strict=True)
        ]

    return changes


def _group_name(group: dict) -> str:
    right = sum(one["accuracy"] for one in group["completions"])
    return f"{group['id']} ({right:.0f} of {len(group['completions'])} right)"


def _group_view(group: dict, tokens: Sequence[Tokens], colour: str) -> str:
    names = {"accuracy": ".0f", "format": ".0f", "reward": ".2f", "advantage": "+.2f"}
    rows = [
        ["".join(coloured(*token) for token in line), *(f"{one[name]:{spec}}" for name, spec in names.items())]
        for one, line in zip(group["completions"], tokens, strict=True)
    ]
    equal = len({one["reward"] for one in group["completions"]}) == 1
    legend = f"Colours: {colour}. Blue, underlined: up. Orange, dotted: down. Strongest from {FULL:g} on."
    legend += " All rewards are equal: a zero-variance group gives no gradient." if equal else ""
    caption = f"Step {group['step']}, {group['id']}: label {group['label']}"
    return table(["completion", *names], rows, caption) + note(legend)


def threshold(answers: pd.DataFrame) -> Explorer:
    """A slider for the threshold on P(anomalous), with the confusion matrix and the scores that follow."""
    known = answers[answers["p_yes"].notna()]
    arm = menu("Model", list(known["arm"].unique())[::-1])
    value = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.01, description="Threshold", tooltip="On P(anomalous)")
    by_arm = dict(list(known.groupby("arm")))
    return Explorer("Threshold on P(anomalous)", lambda arm, value: _scored(by_arm[arm], value), arm=arm, value=value)


def _scored(answers: pd.DataFrame, value: float) -> str:
    anomalous, called = answers["label"] == "yes", answers["p_yes"] >= value
    tp, fn = int((anomalous & called).sum()), int((anomalous & ~called).sum())
    fp, tn = int((~anomalous & called).sum()), int((~anomalous & ~called).sum())
    cells = [["good", f"TN <b>{tn}</b>", f"FP <b>{fp}</b>"], ["anomalous", f"FN <b>{fn}</b>", f"TP <b>{tp}</b>"]]
    matrix = table(["", "called good", "called anomalous"], cells, f"Anomalous from {value:.2f} on")
    ratios = {
        "accuracy": (tp + tn, len(answers)), "F1": (2 * tp, 2 * tp + fp + fn), "recall": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "balanced accuracy": (tp * (tn + fp) + tn * (tp + fn), 2 * (tp + fn) * (tn + fp)),
    }  # fmt: skip
    shares = [[name, f"{part / whole:.3f}" if whole else "–"] for name, (part, whole) in ratios.items()]
    alt = f"Histogram of P(anomalous) of good and of anomalous images, the threshold at {value:.2f}"
    histogram = image_tag(png_bytes(_histogram(answers, value)), alt)
    warning = "A threshold chosen with the labels of these images gives no honest score; F1-max is such a number."
    return side_by_side(histogram, matrix + table(["score", "value"], shares)) + note(warning)


@styled
def _histogram(answers: pd.DataFrame, value: float) -> Figure:
    """Good and anomalous images by P(anomalous), and the threshold."""
    figure, (axes,) = panels(1, 4.6, 2.6)
    for label, colour, name in (("no", SKY, "good"), ("yes", RED, "anomalous")):
        values = answers.loc[answers["label"] == label, "p_yes"]
        axes.hist(values, np.linspace(0, 1, 21), color=colour, alpha=0.6, label=name)
    axes.axvline(value, color=INK, linestyle="--")
    axes.set(xlabel="P(anomalous)", ylabel="images", xlim=(0, 1))
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.2))
    return figure


def scene_editor(session: Any, arm: str = "sft_grpo") -> Explorer:
    """A part of a synthetic product taken out, added or swapped, and what the model answers then.

    Both images are photographs of their own, which differ in light and noise. Raises :class:`UserError` on real data.
    """
    scenes = normal_scenes(session.folder())
    product, action = menu("Product", list(scenes)), menu("Do", [REMOVE, KEEP, ADD, SWAP])
    place = menu("Place", places(scenes[product.value]))
    second = menu("Second place", places(scenes[product.value])[::-1], "Used to swap two places")
    kind = menu("Part", sorted({part.kind for scene in scenes.values() for part in scene.parts}), "Used to put one in")

    def draw(product: str, action: str, place: str, second: str, kind: str) -> str:
        normal, changed = scenes[product], edited(scenes[product], action, place, second, kind)
        images = [
            render(scene, random.Random(seed), PRODUCTS[product].looseness)
            for seed, scene in enumerate((normal, changed))
        ]
        (completion,) = session.answer([images], arm)
        names = ("reference image", "test image")
        cells = [
            picture(image, f"{name} of a {product}") + note(name) for image, name in zip(images, names, strict=True)
        ]
        differing = what_changed(normal, changed).places
        truth = f"the scenes differ at {', '.join(differing)}." if differing else "the two scenes are the same."
        return side_by_side(
            *cells, answered(completion) + note(f"Ground truth: {truth} The rule: {PRODUCTS[product].rule}")
        )

    def follow(change: dict) -> None:
        place.options, second.options = places(scenes[change["new"]]), places(scenes[change["new"]])[::-1]

    product.observe(follow, names="value")
    return Explorer("Scene editor", draw, product=product, action=action, place=place, second=second, kind=kind)


def normal_scenes(folder: Path) -> dict[str, Scene]:
    """The scene of the first good test image of each category."""
    truths = sorted(read_scenes(folder).items(), reverse=True)
    return {path.split("/")[0]: truth.scene for path, truth in truths if path.split("/")[1:3] == ["test", "good"]}


def places(scene: Scene) -> list[tuple[str, str]]:
    """(name in the menu, place) of every cell, those that hold a part first."""
    parts = scene.at()
    cells = [(f"{place}: {parts[place].name if place in parts else 'empty'}", place) for place in scene.places()]
    return sorted(cells, key=lambda cell: cell[1] not in parts)


def edited(scene: Scene, action: str, place: str, second: str, kind: str) -> Scene:
    """``scene`` after one of the four actions; ``kind`` is "colour shape".

    What lies beneath a part that is taken out, such as the juice behind a label, becomes visible.
    """
    cells = {name: divmod(index, scene.cols) for index, name in enumerate(scene.places())}
    if not {place, second} <= set(cells):
        return scene  # a menu of another product that has not followed yet
    if action == SWAP:
        target = {place: second, second: place}
        moved = [(part, *cells[target.get(part.place, part.place)]) for part in scene.parts]
        return with_parts(scene, [part.model_copy(update={"row": row, "col": col}) for part, row, col in moved])
    if action == REMOVE and place in scene.at():
        under = tuple(part for part in scene.under if part.place != place)
        bared = [part for part in scene.under if part.place == place]
        scene = scene.model_copy(update={"under": under})
        return with_parts(scene, [*(part for part in scene.parts if part.place != place), *bared])
    if action == ADD:
        colour, shape = kind.split()
        without = edited(scene, REMOVE, place, second, kind)
        return with_parts(without, [*(p for p in without.parts if p.place != place), at(shape, colour, *cells[place])])
    return scene

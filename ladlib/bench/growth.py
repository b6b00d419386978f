"""How the arithmetic of stage 2 and of the evaluation grows, on paper: :mod:`ladlib.bench.cost` in pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ladlib.bench.cost import Step, judging_operations, step_of, step_operations
from ladlib.config import Profile
from ladlib.report.style import BLUE, GREY, canvas, styled
from ladlib.sizes import Sizes, sizes_of

DOUBLED = (2, 4, 8, 16, 32)  # completions of a prompt, and pairs beside a reference image
SCALED = (0.25, 0.5, 1, 2, 4)  # times the profile's lengths
MODELS = {
    "toy-base": "toy-base",
    "toy-large": "toy-large",
    "3B": "Qwen/Qwen2.5-VL-3B-Instruct",
    "72B": "Qwen/Qwen2.5-VL-72B-Instruct",
}


def a_completion(cases: Mapping[object, tuple[Sizes, Step]]) -> pd.DataFrame:
    """Billions of operations for each completion of a step: a row a case, columns ``stock`` and ``here``."""
    rows = {}
    for case, (sizes, step) in cases.items():
        costs = step_operations(sizes, step)
        rows[case] = {name: sum(parts.values()) / step.prompts / step.group / 1e9 for name, parts in costs.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def by_group(sizes: Sizes, step: Step) -> pd.DataFrame:
    """As the group grows."""
    return a_completion({group: (sizes, replace(step, group=group)) for group in DOUBLED})


def by_images(sizes: Sizes, step: Step) -> pd.DataFrame:
    """As the two images grow, by their tokens."""
    tokens, words = step.patches // sizes.merge**2, step.prompt - step.patches // sizes.merge**2
    grown = [round(tokens * times) for times in SCALED]
    return a_completion(
        {count: (sizes, replace(step, prompt=words + count, patches=count * sizes.merge**2)) for count in grown}
    )


def by_completion(sizes: Sizes, step: Step) -> pd.DataFrame:
    """As completions grow, by their tokens."""
    grown = [round(step.completion * times) for times in SCALED]
    return a_completion({count: (sizes, replace(step, completion=count)) for count in grown})


def by_model(profile: Profile, completion: float) -> pd.DataFrame:
    """As the model grows, on the profile's images."""
    every = {name: sizes_of(model) for name, model in MODELS.items()}
    return a_completion({name: (one, step_of(profile, one, completion)) for name, one in every.items()})


def by_pairs(sizes: Sizes, step: Step) -> pd.DataFrame:
    """Billions of operations of a judgement as more pairs of a batch have the same reference image."""
    costs = {pairs: judging_operations(sizes, step, pairs) for pairs in (1, *DOUBLED)}
    return pd.DataFrame.from_dict(costs, orient="index") / 1e9


@styled
def of_a_step(profile: Profile, completion: float) -> Figure:
    """What a completion of so many tokens costs as its group, its images, itself and the model grow."""
    sizes = sizes_of(profile.model.base)
    step, figure = step_of(profile, sizes, completion), canvas(8, 5)
    panels = {
        "completions of a prompt, G": by_group(sizes, step),
        "tokens of the two images": by_images(sizes, step),
        "tokens of a completion": by_completion(sizes, step),
        "model": by_model(profile, completion),
    }
    for axes, (label, frame) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        _draw(axes, label, frame, ("stock TRL", "one reading of the prompt"))
    axes.set(yscale="log", ylim=(frame["here"].min() / 2, frame["stock"].max() * 2))  # models of all sizes
    axes.yaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle("Arithmetic of one completion")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def of_a_judgement(profile: Profile, completion: float) -> Figure:
    """What a judgement with an answer of so many tokens costs as more pairs share their reference image."""
    sizes, figure = sizes_of(profile.model.base), canvas(6.5, 3)
    axes = figure.subplots()
    frame = by_pairs(sizes, step_of(profile, sizes, completion))
    _draw(axes, "pairs with the same reference image", frame, ("plain generate", "nothing read twice"))
    axes.set(title="Arithmetic of one judgement")
    axes.legend()
    return figure


def _draw(axes: Axes, label: str, frame: pd.DataFrame, ways: Sequence[str]) -> None:
    styles = (dict(color=GREY, marker="o", linestyle="--"), dict(color=BLUE, marker="s"))
    for column, way, style in zip(("stock", "here"), ways, styles, strict=True):
        axes.plot(range(len(frame)), frame[column], label=way, **style)
    axes.set_xticks(range(len(frame)), [str(value) for value in frame.index])
    axes.set(xlabel=label, ylabel="GFLOP", ylim=(0, 1.1 * frame["stock"].max()))

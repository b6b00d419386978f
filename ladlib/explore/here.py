"""The strip at the top of a notebook: the whole pipeline and where the reader stands; and what to run first.

you_are_here("03_grpo")
"""

from IPython.display import HTML

from ladlib.explore.order import mind_the_order
from ladlib.explore.view import quoted
from ladlib.report.style import BLUE, GREY, INK
from ladlib.runs import RELEASED, RunFolder

STRIP = {
    "01_data_exploration": ("Data", "pairs of images"),
    "02_sft": ("SFT", "learning to look"),
    "03_grpo": ("GRPO", "learning to judge"),
    "04_evaluation": ("Evaluation", "three models judged"),
    "05_compare_72b": ("Comparison", "with the 72B"),
}
WIDE, HIGH, GAP = 150, 62, 24  # of a box, in pixels


def you_are_here(name: str) -> HTML:
    """The pipeline as a strip of boxes, the notebook ``name`` marked, its measured toy time below.

    From now on a cell that was run too early says which cell makes what it lacks.
    """
    mind_the_order(name)
    times = measured()
    told = f"<p>{quoted(_time(times[name]))}</p>" if name in times else ""
    return HTML(_strip(name, times) + told)


def measured() -> dict[str, float]:
    """Seconds of each notebook in the released toy run; nothing where the package came without it."""
    run = RunFolder(RELEASED / "toy")
    return {stage.name: stage.seconds for stage in run.read().stages} if run.run_json.is_file() else {}


def _time(seconds: float) -> str:
    hardware = RunFolder(RELEASED / "toy").read().hardware
    return f"On the toy profile it took {_minutes(seconds)} when it was measured, with {hardware['cores']} CPU cores."


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _strip(name: str, times: dict[str, float]) -> str:
    titles = [title for title, _ in STRIP.values()]
    alt = f"The pipeline: {', then '.join(titles)}. You are at {STRIP[name][0]}."
    boxes = "".join(_box(place, one, one == name, times.get(one)) for place, one in enumerate(STRIP))
    width = len(STRIP) * (WIDE + GAP) - GAP
    return (
        f"<svg role='img' aria-label='{alt}' viewBox='0 0 {width} {HIGH + 20}' style='max-width:{width}px;width:100%' "
        f"font-family='sans-serif' text-anchor='middle'><title>{alt}</title>{boxes}</svg>"
    )


def _box(place: int, name: str, here: bool, seconds: float | None) -> str:
    title, what = STRIP[name]
    left = place * (WIDE + GAP)
    middle = left + WIDE / 2
    fill, ink, edge = (BLUE, "white", BLUE) if here else ("white", INK, GREY)
    arrow = f"<text x='{left - GAP / 2}' y='{HIGH / 2 + 5}' font-size='16' fill='{INK}'>→</text>" if place else ""
    time = f" · {_minutes(seconds)}" if seconds else ""
    mark = f"<text x='{middle}' y='{HIGH + 16}' font-size='11' fill='{INK}'>you are here</text>" if here else ""
    return (
        f"{arrow}<rect x='{left + 1}' y='1' width='{WIDE - 2}' height='{HIGH - 2}' rx='7' fill='{fill}' "
        f"stroke='{edge}' stroke-width='2'/><text x='{middle}' y='25' font-size='14' font-weight='bold' fill='{ink}'>"
        f"{name[:2]} {title}</text><text x='{middle}' y='45' font-size='11' fill='{ink}'>{what}{time}</text>{mark}"
    )

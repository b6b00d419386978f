"""What makes a toy model: its size, its schedule, its curriculum."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum: until which step, how many parts at most, which lessons how often.

    ``shown`` is the weight of naming what each image token shows, beside the loss on the answers.
    """

    until: int
    most: int
    shown: float
    lessons: dict[str, int]


@dataclass(frozen=True)
class Recipe:
    """All that makes a toy model, beside the code."""

    hidden: int
    layers: int
    heads: int
    vision_hidden: int
    vision_layers: int
    steps: int
    batch: int
    learning_rate: float
    warmup: int
    decay: int  # the last steps, over which the learning rate falls to zero
    phases: tuple[Phase, ...]
    seed: int = 0

    def phase(self, step: int) -> Phase:
        """The part of the curriculum that ``step`` belongs to."""
        return next(phase for phase in self.phases if step < phase.until)


SINGLE = {"at": 7, "list": 3}
PAIRS = {
    "at": 1,
    "list": 3,
    "list_of_pair": 2,
    "count": 1,
    "tally": 2,
    "compare_at": 5,
    "compare_places": 2,
    "compare_kinds": 1,
}
ALL = {
    "list": 2, "list_of_pair": 1, "at": 1, "compare_at": 1, "count": 1, "tally": 2, "compare_places": 2,
    "compare_kinds": 3, "present": 3, "name_in_tags": 7, "judge_places": 4, "judge_kinds": 4, "judge_open": 5,
}  # fmt: skip

BASE = Recipe(
    hidden=192, layers=4, heads=4, vision_hidden=128, vision_layers=2, steps=3400, batch=32, learning_rate=1.2e-3,
    warmup=200, decay=600,
    phases=(Phase(900, 7, 5.0, SINGLE), Phase(1700, 9, 2.0, PAIRS), Phase(3400, 12, 1.0, ALL)),
)  # fmt: skip
RECIPES = {"base": BASE}

"""What makes a toy model: its size, its schedule, its curriculum."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum: until which step, how many parts at most, which lessons how often.

    Without lessons the vision tower learns alone, to name what each image token shows. ``shown`` is the weight
    of that beside the loss on the answers.
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
    vision_heads: int
    steps: int
    batch: int
    learning_rate: float  # of the matrices, by Muon
    other_rate: float  # of embeddings, norms and biases, by AdamW
    warmup: int
    settle: int  # the last steps of looking alone, over which the tower's rates fall to a tenth; there they stay
    decay: int  # the last steps, over which the learning rate falls to zero
    phases: tuple[Phase, ...]
    seed: int = 0
    grown_from: str = ""  # the shipped toy model whose weights it begins with, "" for random ones

    def phase(self, step: int) -> Phase:
        """The part of the curriculum that ``step`` belongs to."""
        return next(phase for phase in self.phases if step < phase.until)


LOOK: dict[str, int] = {}
SINGLE = {"at": 4, "list": 4, "tally": 3, "count": 1, "name_in_tags": 1}
PAIRS = {
    "at": 1, "list": 1, "list_of_pair": 2, "tally": 4, "count": 1, "compare_at": 2, "compare_places": 4,
    "compare_kinds": 6, "name_in_tags": 2,
}  # fmt: skip
ALL = {
    "list": 1, "list_of_pair": 1, "at": 1, "compare_at": 1, "count": 1, "tally": 1, "compare_places": 1,
    "compare_kinds": 2, "present": 2, "name_in_tags": 2, "judge_places": 3, "judge_kinds": 4, "judge_open": 6,
}  # fmt: skip
COUNTING = {
    "list_of_pair": 1, "at": 1, "compare_at": 1, "count": 1, "tally": 3, "compare_places": 1, "compare_kinds": 5,
    "present": 1, "name_in_tags": 1, "judge_places": 2, "judge_kinds": 5, "judge_open": 5,
}  # fmt: skip

BASE = Recipe(
    hidden=192, layers=4, heads=4, vision_hidden=128, vision_layers=2, vision_heads=4, steps=11300, batch=32,
    learning_rate=2e-3, other_rate=1e-3, warmup=50, settle=600, decay=1200,
    phases=(Phase(1500, 16, 1.0, LOOK), Phase(2000, 8, 0.5, SINGLE), Phase(2800, 12, 0.4, PAIRS),
            Phase(3400, 16, 0.3, ALL), Phase(6200, 16, 0.3, COUNTING),
            Phase(7700, 16, 1.0, LOOK), Phase(11300, 16, 0.3, COUNTING)),
)  # fmt: skip
LARGE = replace(
    BASE, hidden=384, layers=5, heads=8, vision_hidden=256, vision_heads=8, steps=150, learning_rate=5e-4,
    other_rate=2.5e-4, warmup=10, decay=150, phases=(Phase(150, 16, 0.3, COUNTING),), seed=1, grown_from="toy-base",
)  # fmt: skip
RECIPES = {"base": BASE, "large": LARGE}

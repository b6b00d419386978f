"""The arms of the study, one line each: what is trained, from where, and which values of the profile it changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ladlib.config import Profile
from ladlib.errors import UserError


@dataclass(frozen=True)
class Arm:
    """One arm. ``start`` is "" (the profile's base), "large" (its large model) or another arm of the same seed."""

    name: str
    stage: Literal["none", "sft", "grpo"]
    start: str = ""
    overrides: Mapping[str, object] = field(default_factory=dict)  # section.field: value in place of the profile's
    factors: Mapping[str, float] = field(default_factory=dict)  # section.field: times the profile's
    anomalous_share: float = 0.5  # of the labels that GRPO sees
    judged: bool = True  # False: trained for its curves only, with the first seed

    def profile(self, profile: Profile) -> Profile:
        """``profile`` with this arm's values."""
        values = profile.model_dump()
        for dotted, value in self.overrides.items():
            section, name = dotted.split(".")
            values[section][name] = value
        for dotted, factor in self.factors.items():
            section, name = dotted.split(".")
            values[section][name] *= factor
        return Profile.model_validate(values)


SFT_LONG_STEPS = 520  # about 530 s, as long as GRPO takes with stock TRL (one core, toy profile)

ARMS = (
    Arm("base", "none"),
    Arm("sft", "sft"),
    Arm("grpo_only", "grpo"),
    Arm("sft_grpo", "grpo", "sft"),
    Arm("sft_long", "sft", "sft", {"sft.steps": SFT_LONG_STEPS}),
    Arm("accuracy_only", "grpo", "sft", {"grpo.format_weight": 0.0}),
    Arm("format_only", "grpo", "sft", {"grpo.accuracy_weight": 0.0}),
    Arm("large", "none", "large"),
    # Collapses that users of GRPO meet, for a figure of their curves.
    Arm("high_rate", "grpo", "sft", {"grpo.beta": 0.0}, {"grpo.learning_rate": 3.0}, judged=False),
    Arm("unbalanced", "grpo", "sft", anomalous_share=0.9, judged=False),
)


def find_arms(names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms called ``names`` in the table's order; all where none is named. Raises :class:`UserError`."""
    known = [arm.name for arm in ARMS]
    for name in names:
        if name not in known:
            raise UserError(f"There is no arm {name!r}.", f"Use some of {', '.join(known)}.")
    return tuple(arm for arm in ARMS if not names or arm.name in names)


def with_starts(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """``arms`` and all whose checkpoints they start from, in the table's order."""
    needed = {arm.name for arm in arms}
    for arm in reversed(ARMS):  # an arm stands below the one it starts from
        if arm.name in needed:
            needed.add(arm.start)
    return tuple(arm for arm in ARMS if arm.name in needed)

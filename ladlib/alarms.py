"""Signs that a training learns nothing or has failed, read from its log. No torch.

>>> alarms_of([{"yes_rate": 0.0}] * ALARM_STEPS)
['all answers are no; lower the learning rate or raise beta']
"""

import math
import warnings
from collections.abc import Callable, Sequence
from statistics import median

ALARM_STEPS = 5  # consecutive steps before a rule raises an alarm
EXPLODING = 10.0  # times the median gradient norm of earlier steps
WARM_UP = 10  # steps before a gradient norm has a usual size

RULES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("frac_reward_zero_std", lambda share: share > 0.8, "in more than 80 % of the groups all rewards are equal, so "
     "there is nothing to learn from; raise the temperature or choose other pairs"),
    ("clipped_share", lambda share: share > 0.5, "more than half of the answers are truncated; raise max_new_tokens"),
    ("yes_rate", lambda rate: rate == 0, "all answers are no; lower the learning rate or raise beta"),
    ("yes_rate", lambda rate: rate == 1, "all answers are yes; lower the learning rate or raise beta"),
)  # fmt: skip
"""Column of the log, when it is suspicious, message. Stage 1 has none of these columns."""
NOT_FINITE = "the {} is not finite, so the weights are corrupted; lower the learning rate"  # raised at once
EXPLODED = f"the gradient norm is more than {EXPLODING:g} times its usual size; lower the learning rate, and check the last batches"  # noqa: E501


class Stopped(Exception):
    """A training that is to stop on an alarm raised this one."""


class Alarms:
    """Warns once for each rule; ``stop`` says whether an alarm is to end the training."""

    def __init__(self, title: str = "GRPO", stop: bool = False) -> None:
        self.title, self.stop = title, stop
        self._norms: list[float] = []  # of steps of usual size
        self._streaks: dict[str, int] = {}  # message: consecutive steps
        self._raised: set[str] = set()

    def __call__(self, row: dict) -> list[str]:
        """The alarms that ``row``, the next of the log, raises for the first time, each also as a warning."""
        new = self.update(row)
        for message in new:
            warnings.warn(f"{self.title}, step {row['step']}: {message}", stacklevel=2)
        return new

    def update(self, row: dict) -> list[str]:
        """The alarms that ``row`` raises for the first time."""
        lost = [name for name in ("loss", "grad_norm", "reward") if not math.isfinite(row.get(name) or 0.0)]
        signs = [message for name, is_bad, message in RULES if row.get(name) is not None and is_bad(row[name])]
        signs += [EXPLODED] if self._explodes(row.get("grad_norm") or 0.0) else []
        self._streaks = {sign: self._streaks.get(sign, 0) + 1 for sign in signs}
        self._streaks |= {NOT_FINITE.format(name): ALARM_STEPS for name in lost}
        due = [sign for sign, steps in self._streaks.items() if steps >= ALARM_STEPS]
        new = [sign for sign in due if sign not in self._raised]
        self._raised.update(new)
        return new

    @property
    def is_good(self) -> bool:
        """Whether the last row breaks no rule: the state of such a step is worth keeping."""
        return not self._streaks

    def _explodes(self, norm: float) -> bool:
        if not math.isfinite(norm):
            return False
        if len(self._norms) >= WARM_UP and norm > EXPLODING * median(self._norms):
            return True
        self._norms.append(norm)
        return False


def alarms_of(rows: Sequence[dict]) -> list[str]:
    """The alarms that a whole log raises."""
    alarms = Alarms()
    return [message for row in rows for message in alarms.update(row)]


def one_answer(rows: Sequence[dict]) -> float | None:
    """The yes-rate, 0 or 1, where it is the same in every one of ``rows``."""
    rates = {row.get("yes_rate") for row in rows}
    return rates.pop() if rates in ({0.0}, {1.0}) else None

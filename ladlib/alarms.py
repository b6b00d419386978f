"""Signs that a training learns nothing or has gone wrong, read off its log. No torch.

>>> found([{"yes_rate": 0.0}] * ALARM_STEPS)
['no answer is yes any more; lower the learning rate or raise beta']
"""

import math
import warnings
from collections.abc import Callable, Sequence
from statistics import median

ALARM_STEPS = 5  # an alarm needs so many steps in a row, except where a number is none
EXPLODING = 10.0  # times the median of the steps before
USUAL = 10  # steps that a usual gradient norm is told from


class Stopped(Exception):
    """A training that was told to stop on an alarm has one; ``str`` of it says which."""


class Alarms:
    """Warns once for each sign, seen in several steps in a row; with ``stop`` it raises :class:`Stopped` too."""

    def __init__(self, title: str = "GRPO", stop: bool = False) -> None:
        self.title, self.stop = title, stop
        self.rows: list[dict] = []
        self.norms: list[float] = []
        self.said: set[str] = set()

    def __call__(self, row: dict) -> list[str]:
        """The alarms that ``row``, the next of the log, raises for the first time."""
        self.rows = [*self.rows[1 - ALARM_STEPS :], row]
        self.norms.append(row.get("grad_norm") or 0.0)
        told = [*broken(row), *exploding(self.norms)]
        told += found(self.rows) if len(self.rows) == ALARM_STEPS else []
        new = [text for text in told if text not in self.said]
        self.said.update(new)
        for text in new:
            warnings.warn(f"{self.title}, step {row['step']}: {text}", stacklevel=2)
        return new

    def halt(self, new: Sequence[str], step: int) -> None:
        """Raise :class:`Stopped` where training is to stop and ``new`` alarms were raised."""
        if self.stop and new:
            raise Stopped(f"{self.title} stopped at step {step}: {new[0]}")

    def is_good(self, row: dict) -> bool:
        """Whether ``row`` alone shows no sign: such a step's state is worth going back to."""
        return not (broken(row) or found([row]) or _is_high(self.norms))


def broken(row: dict) -> list[str]:
    """What of ``row`` is no number any more."""
    lost = [name for name in ("loss", "grad_norm", "reward") if not math.isfinite(row.get(name) or 0.0)]
    return [f"the {name} is no number any more, and the weights are lost; lower the learning rate" for name in lost]


def exploding(norms: Sequence[float]) -> list[str]:
    """Whether the last gradient norms of all are each far above the usual one."""
    ends = range(len(norms) - ALARM_STEPS + 1, len(norms) + 1)
    if len(norms) < USUAL + ALARM_STEPS or not all(_is_high(norms[:end], len(norms) - ALARM_STEPS) for end in ends):
        return []
    told = f"the gradient norm is more than {EXPLODING:g} times its usual size"
    return [f"{told}; lower the learning rate, and look at the last batches"]


def _is_high(norms: Sequence[float], before: int | None = None) -> bool:
    usual = [one for one in norms[: len(norms) - 1 if before is None else before] if math.isfinite(one)]
    return len(usual) >= USUAL and norms[-1] > EXPLODING * median(usual)


def found(rows: list[dict]) -> list[str]:
    """What is wrong in every one of ``rows`` (log rows), in plain words; [] if nothing."""
    signs = []
    if _all(rows, "frac_reward_zero_std", lambda share: share > 0.8):
        signs.append(
            "in more than 80 % of the groups all answers earn the same, so there is nothing to learn from; "
            "raise the temperature or choose other pairs"
        )
    if _all(rows, "clipped_share", lambda share: share > 0.5):
        signs.append("more than half of the answers are cut off; raise max_completion_tokens")
    rate = one_answer(rows)
    if rate is not None:
        word = "anything but yes" if rate else "yes"
        signs.append(f"no answer is {word} any more; lower the learning rate or raise beta")
    return signs


def _all(rows: list[dict], column: str, is_bad: Callable[[float], bool]) -> bool:
    """Stage 1 has not all columns of stage 2."""
    return all(row.get(column) is not None and is_bad(row[column]) for row in rows)


def one_answer(rows: list[dict]) -> float | None:
    """The yes-rate, 0 or 1, where it is the same in every one of ``rows`` (log rows)."""
    rates = {row.get("yes_rate") for row in rows}
    return rates.pop() if rates in ({0.0}, {1.0}) else None

"""Signs that GRPO learns nothing, read off its log. No torch."""

import warnings

ALARM_STEPS = 5  # an alarm needs so many steps in a row


class Alarms:
    """Warns once for each sign that nothing is being learned, seen in several steps in a row."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.said: set[str] = set()

    def __call__(self, row: dict) -> None:
        self.rows = [*self.rows[1 - ALARM_STEPS :], row]
        for text in found(self.rows) if len(self.rows) == ALARM_STEPS else []:
            if text not in self.said:
                self.said.add(text)
                warnings.warn(f"GRPO, step {row['step']}: {text}", stacklevel=2)


def found(rows: list[dict]) -> list[str]:
    """What is wrong in every one of ``rows`` (log rows), in plain words; [] if nothing."""
    signs = []
    if all(row["frac_reward_zero_std"] > 0.8 for row in rows):
        signs.append(
            "in more than 80 % of the groups all answers earn the same, so there is nothing to learn from; "
            "raise the temperature or choose other pairs"
        )
    if all(row["clipped_share"] > 0.5 for row in rows):
        signs.append("more than half of the answers are cut off; raise max_completion_tokens")
    rate = one_answer(rows)
    if rate is not None:
        word = "anything but yes" if rate else "yes"
        signs.append(f"no answer is {word} any more; lower the learning rate or raise beta")
    return signs


def one_answer(rows: list[dict]) -> float | None:
    """The yes-rate, 0 or 1, where it is the same in every one of ``rows`` (log rows)."""
    rates = {row["yes_rate"] for row in rows}
    return rates.pop() if rates in ({0.0}, {1.0}) else None

"""One claim about a run and what became of it."""

from typing import Literal

from ladlib.metrics import SUBSETS
from ladlib.records import Generation, Record
from ladlib.report.stored import Key


class Claim(Record):
    """``failed`` makes the command fail; ``skipped`` could not be looked at; ``note`` only informs."""

    verdict: Literal["held", "failed", "skipped", "note"]
    subject: str
    found: str  # the measured value, or why the claim was skipped
    expected: str = ""  # the band, with the tolerance in it

    @property
    def line(self) -> str:
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{self.verdict:<7} {self.subject}: {self.found}{expected}"


def skipped(subject: str, reason: str) -> Claim:
    return Claim(verdict="skipped", subject=subject, found=reason)


def verdict(subject: str, faults: list[str], whole: str, expected: str = "") -> Claim:
    """Failed with the first of ``faults``, else held with ``whole``."""
    if not faults:
        return Claim(verdict="held", subject=subject, found=whole, expected=expected)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Claim(verdict="failed", subject=subject, found=faults[0] + more, expected=expected)


def within(subject: str, value: float, low: float, high: float, basis: str) -> Claim:
    """The claim that a share lies in [low, high]; all are shares in 0..1, printed x 100."""
    low, high = max(0.0, low), min(1.0, high)
    side = "" if low <= value <= high else " (below)" if value < low else " (above)"
    return Claim(
        verdict="failed" if side else "held",
        subject=subject,
        found=f"{100 * value:.1f}{side}",
        expected=f"{100 * low:.1f} to {100 * high:.1f} ({basis})",
    )


def arms_of(generations: list[Generation]) -> dict[Key, list[Generation]]:
    """The generations of each (arm, seed), in the order they are stored."""
    arms: dict[Key, list[Generation]] = {}
    for one in generations:
        arms.setdefault((one.arm, one.seed), []).append(one)
    return arms


def protocol(generations: list[Generation]) -> list[Generation]:
    """Those on good and logical images: the paper's protocol."""
    return [one for one in generations if one.anomaly in SUBSETS["logical"]]


def pooled(rows: list[dict], arm: str, seed: int | None = None) -> list[dict]:
    """The pooled good + logical rows of ``arm`` among those of metrics.json, of one seed or of all."""
    place = (arm, "logical", "pooled")
    found = [row for row in rows if (row["arm"], row["subset"], row["category"]) == place]
    return [row for row in found if seed is None or row["seed"] == seed]

"""Progress for people, as plain lines: carriage returns would fill logs and executed notebooks."""

import time

EVERY = 10.0  # seconds between two lines


class Progress:
    """Counts ``total`` units, "step" or "batch", and prints how far it is and how long it will take.

    ``begun`` of them were done before, and say nothing about the speed.

    >>> Progress("sft", "step", 2).tell(2)  # doctest: +ELLIPSIS
    sft · step 2/2 · ... left
    """

    def __init__(self, title: str, unit: str, total: int, begun: int = 0) -> None:
        self.title, self.unit, self.total, self.begun = title, unit, total, begun
        self.started, self.printed = time.monotonic(), -EVERY

    def tell(self, done: int, note: str = "") -> None:
        """Print that ``done`` units are done, with a ``note`` of what they brought, unless a line is just out."""
        elapsed = time.monotonic() - self.started
        if done < self.total and elapsed - self.printed < EVERY:
            return
        self.printed = elapsed
        left = clock(elapsed / (done - self.begun) * (self.total - done)) if done > self.begun else "?"
        parts = [self.title, f"{self.unit} {done}/{self.total}", note, f"about {left} left"]
        print(" · ".join(filter(None, parts)), flush=True)


def clock(seconds: float) -> str:
    """``0:41``, ``12:05`` or ``3:00:10``.

    >>> clock(41.3), clock(3661)
    ('0:41', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

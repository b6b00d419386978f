"""Progress for people: one line rewritten in place on a terminal, now and then a plain line elsewhere."""

import sys
import time

PLAIN_EVERY = 10.0  # seconds between two plain lines


class Progress:
    """Counts ``total`` units, "step" or "batch", and tells how far it is and how long it will take.

    ``begun`` of them were done before, and say nothing about the speed.

    >>> Progress("sft", "step", 2).tell(2)  # doctest: +ELLIPSIS
    sft · step 2/2 · ... left
    """

    def __init__(self, title: str, unit: str, total: int, begun: int = 0) -> None:
        self.title, self.unit, self.total, self.begun = title, unit, total, begun
        self.started, self.told = time.monotonic(), -PLAIN_EVERY

    def tell(self, done: int, note: str = "") -> None:
        """Say that ``done`` units are done, with a ``note`` of what they brought."""
        elapsed, terminal = time.monotonic() - self.started, sys.stdout.isatty()
        if not terminal and done < self.total and elapsed - self.told < PLAIN_EVERY:
            return
        self.told = elapsed
        fresh = done - self.begun
        left = clock(elapsed / fresh * (self.total - done)) if fresh else "?"
        parts = [self.title, f"{self.unit} {done}/{self.total}", *([note] if note else []), f"about {left} left"]
        line = " · ".join(parts)
        end = "" if terminal and done < self.total else "\n"
        print(f"\r\x1b[K{line}" if terminal else line, end=end, flush=True)


def clock(seconds: float) -> str:
    """``0:41``, ``12:05`` or ``3:00:10``.

    >>> clock(41.3), clock(3661)
    ('0:41', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

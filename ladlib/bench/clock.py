"""Seconds of the parts of a computation, each second told once.

clock = Clock()
with clock.on([(trainer, "_generate_single_turn", "generate"), (tower, "forward", "vision")]):
    trainer.train()
clock.spent    # {"vision": 0.4, "generate": 1.1}, where the tower's seconds within generate are vision's alone
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from ladlib.bench.timing import wait

Label = str | Callable[..., str]  # a part's name, or what tells it from the call's arguments
Timed = tuple[object, str, Label]  # an owner, the name of one of its functions, and the part that this is


@dataclass
class Clock:
    """Which part is being computed, and the seconds that each has taken."""

    spent: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    @property
    def part(self) -> str:
        """The innermost part that is being computed; "" outside all of them."""
        return self._open[-1] if self._open else ""

    @contextmanager
    def on(self, parts: Sequence[Timed]) -> Iterator[None]:
        """Time the functions of ``parts`` wherever they are called; a call labelled "" belongs to its caller's part."""
        with ExitStack() as patches:
            for owner, name, label in parts:
                patches.enter_context(patch.object(owner, name, self._timed(getattr(owner, name), label)))
            yield

    def _timed(self, function: Callable, label: Label) -> Callable:
        def timed(*args, **kwargs):
            part = (label if isinstance(label, str) else label(*args, **kwargs)) or self.part
            self._turn(lambda: self._open.append(part))
            try:
                return function(*args, **kwargs)
            finally:
                self._turn(self._open.pop)

        return timed

    def _turn(self, change: Callable[[], object]) -> None:
        """Book the seconds since the last turn to the part that had them."""
        wait()
        now = time.perf_counter()
        if self.part:
            self.spent[self.part] = self.spent.get(self.part, 0.0) + now - self._since
        self._since = now
        change()

"""Two or more ways of doing the same work, run in turn, so that a slow minute of the machine is all of theirs.

seconds = alternate({"ours": ours, "stock": stock}, repeats=3)
show(seconds, {"ours": {"tokens": 17_000}, "stock": {"tokens": 40_000}})
print_result({"what": "eval", "ratio": median(seconds["stock"]) / median(seconds["ours"])})
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch


def alternate(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds that each of ``ways`` takes, ``repeats`` times, one after the other in each round.

    What the accelerator was asked for is done before a clock is read.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            wait()
            start = time.perf_counter()
            way()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def show(seconds: Mapping[str, Sequence[float]], beside: Mapping[str, Mapping[str, object]]) -> None:
    """Print a line a way: the median of its seconds, the lowest and the highest, and what stands ``beside``."""
    width = max(map(len, seconds))
    for name, values in seconds.items():
        facts = ", ".join(f"{value} {what}" for what, value in beside.get(name, {}).items())
        spread = f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
        print(f"{name:{width}}  {spread}  {facts}".rstrip())


def print_result(result: Mapping[str, object]) -> None:
    """Print ``result`` as one JSON object: the last line, for programs."""
    print(json.dumps(result))


def wait() -> None:
    """Until the accelerator has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()

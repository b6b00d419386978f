"""What claims are measured by that published figures alone can decide. Analysis of others' figures, marked as ours.

The confusion tables behind the printed values are recovered on 561 anomalous and 575 good images
(:mod:`ladlib.implied`); where rounding leaves several, the least favourable one counts. Points (x 100), or p.
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import product

import numpy as np

from ladlib import implied
from ladlib.report import published
from ladlib.report.arithmetic import released_counts
from ladlib.report.study_quantities import Measured

TRAINED, BASE, LARGE, ALWAYS = "LAD-Reasoner 3B", "Qwen2.5-VL-3B (base)", "Qwen2.5-VL-72B", "always anomalous"
DRAWS = 10_000


@cache
def _tables(method: str) -> tuple[implied.Table, ...]:
    row = published.read("lad_reasoner").set_index("method").loc[method]
    good, anomalous = released_counts()[["good", "logical"]].sum()
    return tuple(implied.consistent(int(anomalous), int(good), accuracy=row["accuracy"], f1=row["f1"]))


def _gain(measure: str, first: str, second: str) -> Measured:
    """``second`` minus ``first`` in points, images drawn anew for each: nobody published which answers were right."""
    found = [_difference(measure, *two) for two in product(_tables(first), _tables(second))]
    return min(found, key=lambda one: one.low)


def _difference(measure: str, first: implied.Table, second: implied.Table) -> Measured:
    spread = implied.drawn(measure, second, DRAWS, seed=1) - implied.drawn(measure, first, DRAWS, seed=0)
    value = implied.MEASURES[measure](*second) - implied.MEASURES[measure](*first)
    low, high = np.quantile(spread, [0.025, 0.975])
    return Measured(100 * value, 100 * low, 100 * high, "images, unpaired")


def _p(first: str, second: str) -> Measured:
    """Two-sided p of equal accuracies, unpaired; the interval is what a paired test could have given."""
    tables = _tables(first), _tables(second)
    fewest = implied.over_tables(implied.paired_p, *tables)
    most = implied.over_tables(partial(implied.paired_p, most=True), *tables)
    return Measured(max(implied.over_tables(implied.unpaired_p, *tables)), fewest[0], most[-1], "paired tests, bounds")


QUANTITIES: dict[str, Callable[[], Measured]] = {
    "p of the gain in accuracy": partial(_p, BASE, TRAINED),
    "gain in F1": partial(_gain, "f1", BASE, TRAINED),
    "gain in balanced accuracy": partial(_gain, "balanced_accuracy", BASE, TRAINED),
    "F1 over always anomalous": partial(_gain, "f1", ALWAYS, TRAINED),
    "accuracy beside the 72B": partial(_gain, "accuracy", LARGE, TRAINED),
    "F1 beside the 72B": partial(_gain, "f1", LARGE, TRAINED),
}

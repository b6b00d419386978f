"""The figures that notebooks and the report share. Each function returns a matplotlib Figure.

Figures that only one notebook shows lie in modules of their own: ``lesson`` and ``groups`` (03), ``answers`` (04),
``arithmetic`` (05).

>>> figure = loss_curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
>>> save(figure, RunFolder("results/runs/toy"), "sft-loss")  # doctest: +SKIP
"""

from ladlib.report.curves import grpo_curves, loss_curve, reward_curve
from ladlib.report.judged import category_bars, confusion, counts_bars, defect_bars, roc
from ladlib.report.pictures import gallery, generation_cards
from ladlib.report.rollouts import rollout_frame, rollout_table
from ladlib.report.style import save

__all__ = [
    "category_bars", "confusion", "counts_bars", "defect_bars", "gallery", "generation_cards", "grpo_curves",
    "loss_curve", "reward_curve", "roc", "rollout_frame", "rollout_table", "save",
]  # fmt: skip

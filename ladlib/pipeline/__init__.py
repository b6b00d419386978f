"""The five notebooks as one run: strict parameters, skipped where nothing changed, told line by line.

>>> from ladlib.pipeline import reproduce
>>> folder = reproduce("smoke", run="results/runs/smoke")  # doctest: +SKIP
"""

from ladlib.pipeline.run import reproduce
from ladlib.pipeline.stages import STAGES, Stage, StageFailed

__all__ = ["STAGES", "Stage", "StageFailed", "reproduce"]

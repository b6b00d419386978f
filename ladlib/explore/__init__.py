"""What a notebook lets a reader try by hand: each an ipywidget, with a still beside it for pages without a kernel.

    from ladlib import explore

    explore.reward_playground()

Nothing here is needed to get a result: no stage imports it, and it writes no file.
"""

from ladlib.explore.judge import Judge, load_judge
from ladlib.explore.pairs import pair_browser
from ladlib.explore.playground import reward_playground
from ladlib.explore.rollouts import changes_between, rollout_explorer
from ladlib.explore.scenes import scene_editor
from ladlib.explore.threshold import threshold_slider

__all__ = [
    "Judge", "changes_between", "load_judge", "pair_browser", "reward_playground", "rollout_explorer", "scene_editor",
    "threshold_slider",
]  # fmt: skip

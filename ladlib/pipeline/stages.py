"""The stages of a run: one notebook each, and the paths below the run folder that it writes."""

from dataclasses import dataclass
from pathlib import Path

from ladlib.errors import UserError

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Stage:
    """One notebook. ``outputs`` are files or folders below the run folder; ``{seed}`` is filled in."""

    name: str
    outputs: tuple[str, ...]

    @property
    def number(self) -> str:
        return self.name.split("_")[0]

    def paths(self, seed: int) -> tuple[str, ...]:
        """What the stage may write, relative to the run folder."""
        return tuple(path.format(seed=seed) for path in self.outputs)

    def notebook(self, folder: Path) -> Path:
        return folder / f"{self.name}.ipynb"


STAGES = (
    Stage("01_data_exploration", ("data",)),
    Stage("02_sft", ("checkpoints/sft-seed{seed}", "logs/sft-seed{seed}.jsonl", "manifests/sft-seed{seed}.csv")),
    Stage(
        "03_grpo",
        (
            "checkpoints/sft_grpo-seed{seed}",
            "logs/sft_grpo-seed{seed}.jsonl",
            "logs/sft_grpo-seed{seed}-rollouts.jsonl",
            "manifests/sft_grpo-seed{seed}.csv",
        ),
    ),
    Stage(
        "04_evaluation",
        (
            "generations/base-seed{seed}.jsonl",
            "generations/sft-seed{seed}.jsonl",
            "generations/sft_grpo-seed{seed}.jsonl",
            "sensitivity/sft_grpo-seed{seed}.jsonl",
            "baselines/neighbours.jsonl",
        ),
    ),
    # The large model's generations are no output: outputs are cleared when inputs change, and these may be paid for.
    Stage("05_compare_72b", ("metrics.json", "tables", "figures", "report.html")),
)


class StageFailed(Exception):
    """A notebook stopped in a cell. ``str`` of it fits on one screen and tells where and why."""


def notebooks_folder() -> Path:
    """Where the notebooks lie: beside the package in a checkout, inside it when installed from a wheel."""
    installed, checkout = PACKAGE / "notebooks", PACKAGE.parent / "notebooks"
    return installed if installed.is_dir() else checkout


def find_stage(given: str, stages: tuple[Stage, ...] = STAGES) -> Stage:
    """The stage called ``given``: its number (``3``, ``03``) or its name (``03_grpo``)."""
    for stage in stages:
        if given == stage.name or given.zfill(2) == stage.number:
            return stage
    raise UserError(f"There is no stage {given!r}.", f"Use one of {', '.join(s.name for s in stages)}.")

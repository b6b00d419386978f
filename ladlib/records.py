"""The records that pass from stage to stage, one for each stage. A field never changes its meaning."""

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Dataset = Literal["mvtec_ad", "visa", "mvtec_loco"]
Split = Literal["train", "validation", "test"]
Anomaly = Literal["good", "logical", "structural"]
Answer = Literal["yes", "no"]  # yes = anomalous: the positive class everywhere
Finish = Literal["stop", "length"]

Seen = Literal["reference", "test"]
Factor = Literal["none", "blind", "swapped", "reference", "wording", "order", "batch", "dtype"]

ARMS = ("base", "sft", "grpo_only", "sft_grpo", "sft_long", "accuracy_only", "format_only", "large")
TRIVIAL_ARMS = ("always_yes", "always_no", "base_rate")
NEIGHBOURS = "neighbours"  # the detector beside them, which is no language model


class Record(BaseModel):
    """A frozen record that refuses unknown keys, and numbers that are none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def leads_outside(path: str) -> bool:
    """Whether a relative path could name anything but a file below the folder it is relative to."""
    parts = PurePosixPath(path.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or bool(PureWindowsPath(path).drive) or "\0" in path


def _inside(path: str) -> str:
    if leads_outside(path):
        raise ValueError(f"the path {path!r} leads outside its folder")
    if any(len(part.encode()) > 255 for part in path.split("/")):  # the limit of every common file system
        raise ValueError(f"no file can have the name {path[:40]!r}...")
    return path


Inside = Annotated[str, AfterValidator(_inside)]
"""A path that stays below the folder it is relative to."""


def label_of(anomaly: Anomaly) -> Answer:
    """The right answer to a pair whose test image is of this kind: ``yes`` for anything but good."""
    return "no" if anomaly == "good" else "yes"


class Sample(Record):
    """One image of a dataset, whatever the layout it came from.

    Paths are POSIX and relative to the dataset folder (the folder that holds the categories).
    """

    id: str  # the image path without its ending, unique within a dataset
    dataset: Dataset
    category: str
    split: Split
    anomaly: Anomaly
    defect: str = ""  # defect names joined by " + "; "" for a good image
    image: Inside
    masks: tuple[Inside, ...] = ()

    @property
    def label(self) -> Answer:
        """``yes`` for an anomalous image."""
        return label_of(self.anomaly)


class Pair(Record):
    """A test image beside the normal reference image it is judged against."""

    test: Sample
    reference: Inside  # path of a training-set normal, relative to the same dataset folder

    @property
    def id(self) -> str:
        """The test image's id: a run judges each test image once."""
        return self.test.id


class Conversation(Record):
    """One question about a pair and its answer; a row of stage 1."""

    pair: Pair
    kind: str  # MMAD's type of question, or "Caption"
    question: str
    answer: str


@dataclass(frozen=True)
class Completion:
    """What a model answered to one pair."""

    text: str
    finish: Finish
    p_yes: float | None  # None: whoever serves the model does not report it
    prompt_tokens: int
    completion_tokens: int  # the end of the turn included
    refused: bool = False
    reasoning: str = ""  # what a server sent in a field of its own


class Generation(Record):
    """One answered pair: a line of ``generations/<arm>-seed<k>.jsonl``."""

    id: str
    arm: str
    seed: int
    dataset: Dataset
    category: str
    anomaly: Anomaly
    defect: str
    label: Answer
    reference: Inside
    test: Inside
    text: str  # raw completion
    answer: Answer | None  # strict parse; None = unparsed, counted as wrong
    # P(yes) / (P(yes) + P(no)) after the model's own rationale and "<answer>"; None where a server does not report it
    p_yes: Annotated[float, Field(ge=0, le=1)] | None
    prompt_sha256: str  # of the prompt in the chat template; of the question alone where a server adds the template
    images_sha256: tuple[str, str]  # reference, test: of the files' bytes
    pixels: tuple[tuple[int, int], tuple[int, int]]  # (width, height) as the model sees them
    finish: Finish
    prompt_tokens: int  # 0 where an endpoint does not tell
    completion_tokens: int
    seconds: float  # wall time of the batch divided by its rows, or of the request
    served: str = ""  # model, quantisation and engine behind an endpoint; "" = weights loaded here
    refused: bool = False  # the model or a filter declined; ``text`` is what it said, and counts as an answer
    reasoning: str = ""  # what a server sent in a field of its own; before the rest of ``text`` where that fits


class Variation(Generation):
    """One pair judged under one condition: a line of ``sensitivity/<arm>-seed<k>.jsonl``."""

    factor: Factor  # what was changed; nothing but that
    level: str  # to what; "" = as evaluation has it
    shown: tuple[Seen, Seen]  # which image stood first and which second


class Detection(Record):
    """What the nearest-neighbour detector says of one test image: a line of ``baselines/neighbours.jsonl``."""

    id: str
    dataset: Dataset
    category: str
    anomaly: Anomaly
    defect: str
    label: Answer
    test: str
    image_sha256: str  # of the test image's bytes
    nearest: str  # the training image it is nearest to
    distance: float  # to that one, in the space of features
    threshold: float  # of its category, from training images alone
    trained_on: int  # good training images of its category
    answer: Answer  # yes where the distance is above the threshold


class StageRecord(Record):
    """What ``run.json`` keeps of one finished stage."""

    name: str
    started: str  # ISO 8601, UTC
    seconds: float
    inputs_sha256: str
    outputs: tuple[str, ...]  # paths relative to the run folder


class RunRecord(Record):
    """``run.json``: everything needed to tell where a number came from."""

    profile: str
    parameters: dict[str, str | int | float | bool] = {}
    seed: int
    versions: dict[str, str] = {}
    commit: str = ""
    hardware: dict[str, str | int | float] = {}
    stages: tuple[StageRecord, ...] = ()
    departures: tuple[dict[str, str], ...] = ()  # rows of :func:`ladlib.report.tables.departures`
    sha256: str = ""  # of all the other fields


class Check(Record):
    """One line of ``ladlib verify``: ``failed`` makes it fail, ``skipped`` is not examined, ``note`` only informs."""

    verdict: Literal["passed", "failed", "skipped", "note"]
    subject: str
    found: str  # the measured value, or why the check was skipped
    expected: str = ""  # the band, with the tolerance in it

    @property
    def line(self) -> str:
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{self.verdict:<7} {self.subject}: {self.found}{expected}"

    @classmethod
    def skipped(cls, subject: str, reason: str) -> "Check":
        return cls(verdict="skipped", subject=subject, found=reason)

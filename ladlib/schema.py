"""The records that pass from stage to stage, one for each stage. A field never changes its meaning."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Dataset = Literal["mvtec_ad", "visa", "mvtec_loco"]
Split = Literal["train", "validation", "test"]
Anomaly = Literal["good", "logical", "structural"]
Answer = Literal["yes", "no"]  # yes = anomalous: the positive class everywhere
Finish = Literal["stop", "length"]

ARMS = ("base", "sft", "grpo_only", "sft_grpo", "sft_long", "accuracy_only", "format_only", "large")
TRIVIAL_ARMS = ("always_yes", "always_no", "base_rate")


class Record(BaseModel):
    """A frozen record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    image: str
    masks: tuple[str, ...] = ()

    @property
    def label(self) -> Answer:
        """``yes`` for an anomalous image."""
        return label_of(self.anomaly)


class Pair(Record):
    """A test image beside the normal reference image it is judged against."""

    test: Sample
    reference: str  # path of a training-set normal, relative to the same dataset folder

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


class Prior(Record):
    """What the annotations alone say: the question and the answer made from them by rule."""

    question: str
    answer: str


class Written(Conversation):
    """A conversation with where it comes from: a line of a file that ``ladlib data sft`` builds."""

    id: str  # of the pair and the words as they were written, before any review
    writer: str  # "template", or the model behind an endpoint
    prior: Prior
    prompt_sha256: str  # of the words sent to the endpoint; "" by template
    images_sha256: tuple[str, str]  # reference, test: of the files' bytes
    reviewed: Literal["", "accept", "edit"] = ""  # what a person decided; "" = nothing yet


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
    reference: str
    test: str
    text: str  # raw completion
    answer: Answer | None  # strict parse; None = unparsed, counted as wrong
    p_yes: float | None  # P(yes) / (P(yes) + P(no)) after the model's own rationale and "<answer>"; None = not told
    prompt_sha256: str  # of the prompt in the chat template; of the question alone where a server adds the template
    images_sha256: tuple[str, str]  # reference, test: of the files' bytes
    pixels: tuple[tuple[int, int], tuple[int, int]]  # (width, height) as the model sees them
    finish: Finish
    prompt_tokens: int  # 0 where an endpoint does not tell
    completion_tokens: int
    seconds: float  # wall time of the batch divided by its rows, or of the request
    served: str = ""  # model, quantisation and engine behind an endpoint; "" = weights loaded here
    refused: bool = False  # the model or a filter declined; ``text`` is what it said, and counts as an answer


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

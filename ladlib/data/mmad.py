"""Reader of MMAD: multiple-choice questions about images of other datasets, and domain knowledge.

``mmad.json``, by the query image's path below the MMAD folder::

    {"DS-MVTec/bottle/image/broken_large/000.png": {
       "conversation": [{"Question": "Is there any defect in the object?", "Answer": "A",
                         "Options": {"A": "Yes.", "B": "No."}, "type": "Anomaly Detection"}]}}

``domain_knowledge.json`` is dataset -> object -> defect -> text. As the evaluators in jam-cc/MMAD, this takes any key
that begins with "conversation"; MMAD's templates are not read, the reference image is :mod:`ladlib.data.pairing`'s.
``errata.csv`` lists known mistakes by issue of jam-cc/MMAD; whether the release still has them is not known.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from ladlib.data.layout import find_dataset, is_drawn, published_categories, read_table
from ladlib.errors import UserError, first_problem, read_json
from ladlib.records import Dataset, Inside, Record, Sample

HINT = "Copy it from the release again."
SOURCES = dict.fromkeys(("ds-mvtec", "mvtec-ad", "mvtec"), "mvtec_ad")  # MMAD's names, however they are capitalised
SOURCES |= {"visa": "visa", "mvtec-loco": "mvtec_loco", "goodsad": "goodsad"}

Text = Annotated[str, BeforeValidator(str)]  # numbers are written as such


class Question(Record):
    """One question of ``mmad.json``."""

    model_config = Record.model_config | {"extra": "ignore"}

    image: Inside  # relative to the MMAD folder
    question: str
    options: dict[str, Text]  # by letter
    answer: Annotated[str, BeforeValidator(lambda value: str(value).strip())] = ""  # a letter of the options
    type: Text = ""  # "Anomaly Detection", "Defect Classification", ...

    @property
    def source(self) -> str:
        """The dataset the image comes from; "" where its name is unknown."""
        return split(self.image)[0]


def read_questions(root: Path | str) -> list[Question]:
    """All questions of ``mmad.json`` below ``root``, in file order. UserError for a missing or malformed file.

    Questions without an answer among their options are left out with a warning: MMAD's README counts two questions
    more than a loader of it does, and which two is not known.
    """
    path = find_dataset(root, "mmad") / "mmad.json"
    entries = _validated(path, "the file", dict[str, dict[str, Any]], read_json(path, HINT))
    questions = []
    for image, entry in entries.items():
        turns = next((entry[key] for key in entry if key.startswith("conversation")), None)
        for turn in _validated(path, image, list[dict[str, Any]], turns):
            values = {key.lower(): value for key, value in turn.items()} | {"image": image}
            questions.append(_validated(path, image, Question, values))
    valid = [question for question in questions if question.answer in question.options]
    if not valid:
        raise UserError(f"{path} holds no question with an answer among its options.", HINT)
    if invalid := len(questions) - len(valid):
        warnings.warn(f"{path}: {invalid} of {len(questions)} questions have no valid answer", stacklevel=2)
    return valid


def read_knowledge(root: Path | str) -> dict[str, dict[str, dict[str, str]]]:
    """``domain_knowledge.json``: dataset -> object -> defect (or "good") -> text. UserError where it is not that."""
    path = find_dataset(root, "mmad") / "domain_knowledge.json"
    return _validated(path, "the file", dict[str, dict[str, dict[str, str]]], read_json(path, HINT))


def _validated(path: Path, place: str, kind: Any, value: object) -> Any:
    """``value`` as a ``kind``; a UserError names its ``place`` in the file."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{path}, {place}: {first_problem(error, 'its form')}.", HINT) from error


def split(name: str) -> tuple[str, list[str]]:
    """The dataset that a name of MMAD begins with, after any folders such as ALL_DATA, and what comes below it."""
    parts = name.split("/")
    at = next((at for at, part in enumerate(parts) if part.lower() in SOURCES), None)
    return ("", parts) if at is None else (SOURCES[parts[at].lower()], parts[at + 1 :])


def locate(image: str) -> tuple[str, str] | None:
    """(dataset, sample id) of an MMAD query image; None for datasets without a reader (GoodsAD).

    MMAD keeps MVTec AD's test images as ``DS-MVTec/<category>/image/<defect>/000.png`` and VisA's in the layout of
    its ``prepare_data.py``, ``VisA/<object>/test/{good,bad}/000.JPG``.
    """
    dataset, parts = split(image.rsplit(".", 1)[0])
    if len(parts) != 4 or dataset in ("", "goodsad"):
        return None
    category, part, kind, name = parts
    if dataset == "visa":
        return "visa", f"{category}/Data/Images/{'Normal' if kind == 'good' else 'Anomaly'}/{name}"
    return dataset, f"{category}/{'test' if part == 'image' else part}/{kind}/{name}"


def compare(
    questions: Iterable[Question], samples: Sequence[Sample], root: Path | str
) -> Iterator[tuple[Question, Sample | None, str]]:
    """Each question, its sample (None where that is not there), and why it is not to be trusted, or ""."""
    by_id = {(sample.dataset, sample.id): sample for sample in samples}
    defects: dict[tuple[str, str], set[str]] = {}
    for sample in samples:
        defects.setdefault((sample.dataset, sample.category), set()).update(_defects(sample))
    for question in questions:
        sample = by_id.get(locate(question.image))
        doubt = erratum(sample, question.type, root) if sample else ""
        if sample and not doubt and _contradicts(question, sample, defects[sample.dataset, sample.category]):
            doubt = f"{question.image}, {question.type}: {question.options[question.answer]}"
        yield question, sample, doubt


def named(doubts: Counter[str]) -> str:
    """The reasons of :func:`compare` in words, the first ten with their numbers of questions."""
    names = ", ".join(f"{doubt} ({number})" for doubt, number in doubts.most_common(10))
    return f"contradict their image or are known mistakes: {names}"


def erratum(sample: Sample, kind: str, root: Path | str) -> str:
    """The issue that reports a mistake in MMAD's question of this type, or caption, of the image; "" without one."""
    folder, _, name = sample.id.rpartition("/")
    for row in read_table("errata.csv"):
        is_of_it = (row["dataset"], row["folder"]) == (sample.dataset, folder) and row["first"] <= name <= row["last"]
        if is_of_it and row["type"] in ("", kind) and not is_drawn(find_dataset(root, "mmad")):
            return f"jam-cc/MMAD#{row['issue']}"
    return ""


def _contradicts(question: Question, sample: Sample, defects: set[str]) -> bool:
    """Whether the answer names another label, category, or defect of the category than the image's own."""
    answer, own = _plain(question.options[question.answer]), _defects(sample)
    match question.type:
        case "Anomaly Detection":
            return answer.split("_")[0] in {"yes", "no"} - {sample.label}
        case "Object Classification":  # a pipe_fryum is a fryum too
            is_product = any(answer in published_categories(dataset) for dataset in get_args(Dataset))
            return is_product and answer not in sample.category and sample.category not in answer
        case "Defect Classification":
            return answer in defects - own and not own & {"combined", "unknown"}
    return False


def _defects(sample: Sample) -> set[str]:
    return {_plain(name) for name in sample.defect.split(" + ") if name}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")

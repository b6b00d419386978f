"""Reader of MMAD: multiple-choice questions about images of other datasets, and domain knowledge.

``mmad.json``, by the query image's path below the MMAD folder::

    {"DS-MVTec/bottle/image/broken_large/000.png": {
       "conversation": [{"Question": "Is there any defect in the object?", "Answer": "A",
                         "Options": {"A": "Yes.", "B": "No."}, "type": "Anomaly Detection"}]}}

``domain_knowledge.json`` is dataset -> object -> defect -> text. As the evaluators in jam-cc/MMAD, this takes any key
that begins with "conversation"; MMAD's templates are not read, the reference image is :mod:`ladlib.data.pairing`'s.
"""

import warnings
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from ladlib.data.layout import find_dataset
from ladlib.errors import UserError, first_problem, read_json
from ladlib.records import Dataset, Inside, Record

HINT = "Copy it from the release again."
SOURCES: dict[str, Dataset] = {"DS-MVTec": "mvtec_ad", "VisA": "visa", "MVTec-LOCO": "mvtec_loco"}

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
        """MMAD's name of the dataset the image comes from."""
        return self.image.split("/")[0]


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


def locate(image: str) -> tuple[Dataset, str] | None:
    """(dataset, sample id) of an MMAD query image; None for datasets without a reader (GoodsAD).

    MMAD keeps MVTec AD's test images as ``DS-MVTec/<category>/image/<defect>/000.png`` and VisA's in the layout of
    its ``prepare_data.py``, ``VisA/<object>/test/{good,bad}/000.JPG``.
    """
    parts = image.rsplit(".", 1)[0].split("/")
    if len(parts) != 5 or parts[0] not in SOURCES:
        return None
    source, category, split, kind, name = parts
    if source == "VisA":
        return "visa", f"{category}/Data/Images/{'Normal' if kind == 'good' else 'Anomaly'}/{name}"
    return SOURCES[source], f"{category}/{'test' if split == 'image' else split}/{kind}/{name}"

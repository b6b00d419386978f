"""Reader of MMAD: multiple-choice questions about images of other datasets, and domain knowledge.

``mmad.json`` is one object keyed by the query image's path below the MMAD folder::

    {"DS-MVTec/bottle/image/broken_large/000.png": {
       "mask_path": "rbg_mask/broken_large/000_rbg_mask.png",
       "conversation": [{"Question": "Is there any defect in the object?", "Answer": "A",
                         "Options": {"A": "Yes.", "B": "No."}, "type": "Anomaly Detection"}],
       "similar_templates": ["MVTec-AD/bottle/train/good/001.png"], "random_templates": ["..."]}}

``domain_knowledge.json`` is dataset -> object -> defect -> text. As the evaluators in jam-cc/MMAD, this takes any key
that begins with "conversation"; templates are not read, the reference image is chosen by :mod:`ladlib.data.pairing`.
"""

import warnings
from pathlib import Path, PurePosixPath
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
    questions = []
    for image, entry in _validate(path, read_json(path, HINT), dict[str, dict[str, Any]], "the file").items():
        turns = next((entry[key] for key in entry if key.startswith("conversation")), None)
        for turn in _validate(path, turns, list[dict[str, Any]], image):
            values = {key.lower(): value for key, value in turn.items()} | {"image": image}
            questions.append(_validate(path, values, Question, image))
    valid = [question for question in questions if question.answer in question.options]
    if not valid:
        raise UserError(f"{path} holds no question with an answer among its options.", HINT)
    if len(valid) < len(questions):
        count = len(questions) - len(valid)
        warnings.warn(f"{path}: {count} of {len(questions)} questions have no valid answer", stacklevel=2)
    return valid


def read_knowledge(root: Path | str) -> dict[str, dict[str, dict[str, str]]]:
    """``domain_knowledge.json``: dataset -> object -> defect (or "good") -> text. UserError where it is not that."""
    path = find_dataset(root, "mmad") / "domain_knowledge.json"
    return _validate(path, read_json(path, HINT), dict[str, dict[str, dict[str, str]]], "the file")


def locate(image: str) -> tuple[Dataset, str] | None:
    """(dataset, sample id) of an MMAD query image; None for datasets without a reader (GoodsAD).

    MMAD keeps MVTec AD's test images as ``DS-MVTec/<category>/image/<defect>/000.png`` and VisA's in the layout of
    its ``prepare_data.py``, ``VisA/<object>/test/{good,bad}/000.JPG``.
    """
    parts = PurePosixPath(image.rsplit(".", 1)[0]).parts
    if len(parts) != 5 or parts[0] not in SOURCES:
        return None
    source, category, split, kind, name = parts
    if source == "VisA":
        return "visa", f"{category}/Data/Images/{'Normal' if kind == 'good' else 'Anomaly'}/{name}"
    return SOURCES[source], f"{category}/{'test' if split == 'image' else split}/{kind}/{name}"


def _validate(path: Path, value: object, kind: Any, place: str) -> Any:
    """``value`` as a ``kind``; a UserError names its ``place`` in the file."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{path}, {place}: {first_problem(error, 'its form')}.", HINT) from error

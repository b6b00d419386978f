"""Reader of MMAD: multiple-choice questions about images of other datasets, and domain knowledge.

``mmad.json`` is one object keyed by the query image's path below the MMAD folder::

    {"DS-MVTec/bottle/image/broken_large/000.png": {
       "mask_path": "rbg_mask/broken_large/000_rbg_mask.png",
       "conversation": [{"Question": "Is there any defect in the object?", "Answer": "A",
                         "Options": {"A": "Yes.", "B": "No."}, "type": "Anomaly Detection"}],
       "similar_templates": ["MVTec-AD/bottle/train/good/001.png"], "random_templates": ["..."]}}

``domain_knowledge.json`` is dataset -> object -> defect -> text. The forms accepted are those of the evaluators in
jam-cc/MMAD, which take any key that begins with "conversation" and treat missing templates as none.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ladlib.data.layout import find_dataset
from ladlib.errors import UserError, read_json
from ladlib.records import Dataset, Record, leads_outside

Kind = TypeVar("Kind")

HINT = "Copy it from the release again."
SOURCES: dict[str, Dataset] = {"DS-MVTec": "mvtec_ad", "VisA": "visa", "MVTec-LOCO": "mvtec_loco"}


class Question(Record):
    """One question of ``mmad.json``; paths relative to the MMAD folder."""

    image: str
    question: str
    options: dict[str, str]  # by letter
    answer: str  # a letter of the options
    type: str  # "Anomaly Detection", "Defect Classification", ...; "" where not given
    similar_templates: tuple[str, ...] = ()  # normals of the same object
    random_templates: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """MMAD's name of the dataset the image comes from."""
        return self.image.split("/")[0]


def read_questions(root: Path | str) -> list[Question]:
    """All questions of ``mmad.json`` below ``root``, in file order.

    Questions without an answer among their options are left out with a warning: MMAD's README counts two questions
    more than a loader of it does, and which two is not known. Raises :class:`UserError` for a missing or malformed
    file.
    """
    path = find_dataset(root, "mmad") / "mmad.json"
    entries = _checked(path, "the file", read_json(path, HINT), dict)
    questions = [question for image, entry in entries.items() for question in _questions(path, image, entry)]
    valid = [question for question in questions if question.answer in question.options]
    if not valid:
        raise UserError(f"{path} holds no question with an answer among its options.", HINT)
    if len(valid) < len(questions):
        count = len(questions) - len(valid)
        warnings.warn(f"{path}: {count} of {len(questions)} questions have no valid answer", stacklevel=2)
    return valid


def read_knowledge(root: Path | str) -> dict[str, dict[str, dict[str, str]]]:
    """``domain_knowledge.json`` below ``root``: dataset -> object -> defect (or "good") -> text.

    Raises :class:`UserError` for a missing or malformed file.
    """
    path = find_dataset(root, "mmad") / "domain_knowledge.json"
    knowledge = _checked(path, "the file", read_json(path, HINT), dict)
    for dataset, objects in knowledge.items():
        for name, texts in _checked(path, dataset, objects, dict).items():
            for defect, text in _checked(path, f"{dataset}/{name}", texts, dict).items():
                _checked(path, f"{dataset}/{name}/{defect}", text, str)
    return knowledge


def locate(image: str) -> tuple[Dataset, str] | None:
    """(dataset, sample id) of an MMAD query image; None for datasets without a reader (GoodsAD).

    MMAD keeps MVTec AD's test images as ``DS-MVTec/<category>/image/<defect>/000.png`` and VisA's in the layout of
    its ``prepare_data.py``, ``VisA/<object>/test/{good,bad}/000.JPG``.
    """
    parts = PurePosixPath(image.rsplit(".", 1)[0]).parts
    dataset = SOURCES.get(parts[0])
    if dataset is None or len(parts) != 5:
        return None
    _, category, split, kind, name = parts
    if dataset == "visa":
        return dataset, f"{category}/Data/Images/{'Normal' if kind == 'good' else 'Anomaly'}/{name}"
    return dataset, f"{category}/{'test' if split == 'image' else split}/{kind}/{name}"


def _checked(path: Path, place: str, value: object, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise UserError(f"{path}: {place} is no {kind.__name__}.", HINT)
    return value


def _questions(path: Path, image: str, entry: object) -> Iterator[Question]:
    entry = _checked(path, image, entry, dict)
    if image.count("/") < 2:
        raise UserError(f"{path}: {image} is no image path of dataset, object and name.", HINT)
    templates = {
        f"{kind}_templates": tuple(
            _checked(path, f"{image}: {kind}_templates", name, str)
            for name in _checked(path, f"{image}: {kind}_templates", entry.get(f"{kind}_templates", []), list)
        )
        for kind in ("similar", "random")
    }
    for name in (image, *templates["similar_templates"], *templates["random_templates"]):
        if leads_outside(name):
            raise UserError(f"{path}: {name!r} leads outside of the dataset.", HINT)
    turns = next((entry[key] for key in entry if key.startswith("conversation")), None)
    for turn in _checked(path, f"{image}: conversation", turns, list):
        values = {key.lower(): value for key, value in _checked(path, f"{image}: question", turn, dict).items()}
        place = f"{image}: {values.get('type', 'question')}"
        options = _checked(path, f"{place}: Options", values.get("options"), dict)
        yield Question(
            image=image,
            question=_checked(path, f"{place}: Question", values.get("question"), str),
            options={letter: str(text) for letter, text in options.items()},
            answer=str(values.get("answer", "")).strip(),
            type=str(values.get("type", "")),
            **templates,
        )

"""Toy MMAD: questions, captions and domain knowledge about the toy training images, in MMAD's form.

The truth of every answer comes from the scene. A caption (a ``.txt`` beside each image, as in MMAD's
release) lists the parts in the toy language; the questions have MMAD's types and wording style.
"""

import json
import random
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ladlib.runs import write_text
from ladlib.toy import loco, training
from ladlib.toy.language import compare_places
from ladlib.toy.scenes import Scene, describe

if TYPE_CHECKING:
    from ladlib.toy.write import Picture

LETTERS = "ABCDE"


def write_mmad(folder: Path, asked: list[tuple[str, "Picture"]], seed: int) -> None:
    """``mmad.json``, ``domain_knowledge.json`` and the captions for the pictures ``asked`` about."""
    entries = {}
    for name, picture in asked:
        rng = random.Random(f"{seed}/{name}")
        entries[name] = {"conversation": _conversation(picture, rng), "similar_templates": [], "random_templates": []}
        write_text(folder / PurePosixPath(name).with_suffix(".txt"), describe(picture.scene) + "\n")
    write_text(folder / "mmad.json", json.dumps(entries, indent=1) + "\n")
    write_text(folder / "domain_knowledge.json", json.dumps(_knowledge(), indent=1) + "\n")


def _conversation(picture: "Picture", rng: random.Random) -> list[dict]:
    product, scene = picture.product, picture.scene
    questions = [
        _ask(
            "Anomaly Detection",
            "Is there any defect in the object?",
            "Yes." if scene.defect else "No.",
            ["Yes.", "No."],
        ),
        _ask_options(
            rng, "Object Classification", "What product is this?", product.name, [p.name for p in training.PRODUCTS]
        ),
        _ask_options(
            rng, "Object Details", "Which parts does the object show?", describe(scene), _other_scenes(picture, rng)
        ),
    ]
    if scene.defect:
        names = [*product.logical, *product.structural]
        places = sorted(_changed_places(picture.normal, scene))
        wrong = [place for place in scene.places() if place not in places]
        questions += [
            _ask_options(rng, "Defect Classification", "What is the type of the defect?", scene.defect, names),
            _ask_options(rng, "Defect Localization", "Where is the defect?", places[0], wrong, keep=3),
            _ask_options(rng, "Defect Description", "What does the defect look like?",
                         _sentence(picture.normal, scene, places),
                         [_sentence(scene, picture.normal, places), "none ."]),
        ]  # fmt: skip
    return questions


def _ask(kind: str, question: str, right: str, options: list[str]) -> dict:
    letters = dict(zip(LETTERS, options, strict=False))
    answer = next(letter for letter, text in letters.items() if text == right)
    return {"Question": question, "Answer": answer, "Options": letters, "type": kind, "annotation": True}


def _ask_options(rng: random.Random, kind: str, question: str, right: str, others: list[str], keep: int = 3) -> dict:
    wrong = sorted({other for other in others if other != right})
    options = [right, *rng.sample(wrong, min(keep, len(wrong)))]
    rng.shuffle(options)
    return _ask(kind, question, right, options)


def _other_scenes(picture: "Picture", rng: random.Random) -> list[str]:
    drawn = [picture.product.draw("structural", k, rng)[1] for k in range(2)]
    return [describe(scene) for scene in (picture.normal, *drawn)]


def _changed_places(normal: Scene, scene: Scene) -> set[str]:
    old, new = normal.at(), scene.at()
    return {place for place in set(old) | set(new) if old.get(place) != new.get(place)}


def _sentence(first: Scene, second: Scene, places: list[str]) -> str:
    pieces, _ = compare_places(first, second, places)
    return "".join(text for text, _ in pieces).strip()


def _knowledge() -> dict[str, dict[str, dict[str, str]]]:
    sources = {"mvtec_ad": "MVTec", "visa": "VisA", "mvtec_loco": "MVTec-LOCO"}
    knowledge: dict[str, dict[str, dict[str, str]]] = {}
    for product in (*training.PRODUCTS, *loco.PRODUCTS):
        texts = {"good": product.rule}
        if product.dataset != "mvtec_loco":
            texts |= {
                name: f"{name}: not as it should be. {product.rule}" for name in (*product.logical, *product.structural)
            }
        knowledge.setdefault(sources[product.dataset], {})[product.name] = texts
    return knowledge

"""The four toy datasets (MVTec AD, VisA, MVTec LOCO AD, MMAD) in the real on-disk layouts.

Each but MMAD also holds ``scenes.jsonl``: the scene behind each image and what its defect changed
(:mod:`ladlib.toy.truth`). An image depends on the seed and its own name alone, so more images never change the ones
before, and two machines write the same bytes. MMAD's answers and captions are made from the scenes.
"""

import csv
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from PIL import Image, ImageDraw

from ladlib.config import Toy
from ladlib.data import FOLDERS
from ladlib.data.layout import TOY_MARKER
from ladlib.errors import UserError
from ladlib.records import Anomaly, Split
from ladlib.runs import write_text
from ladlib.toy import loco
from ladlib.toy import products as training
from ladlib.toy.parts import CELL
from ladlib.toy.products import Product
from ladlib.toy.scenes import Scene, describe, render
from ladlib.toy.statements import compare_places
from ladlib.toy.truth import SCENES, Truth, what_changed

WORLD = 2  # raised when the same sizes and seed give other pictures, so that old ones are not taken for new


@dataclass(frozen=True)
class Picture:
    """One toy image before it is written."""

    product: Product
    split: Split
    anomaly: Anomaly
    normal: Scene
    scene: Scene
    image: Image.Image


def write_datasets(out: Path, sizes: Toy) -> None:
    """Draw toy MVTec AD, VisA, MVTec LOCO AD and MMAD into the new folder ``out``, whole or not at all.

    Nothing is done where ``out`` already holds just these; raises :class:`UserError` where it holds anything else.
    """
    values = {name: getattr(sizes, name) for name in ("train", "validation", "good", "logical", "structural", "seed")}
    marker = json.dumps({"world": WORLD} | values, indent=2) + "\n"
    if (out / TOY_MARKER).is_file() and (out / TOY_MARKER).read_bytes() == marker.encode():
        return
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        problem = "holds other files, or toy datasets of other sizes, of another seed or of an earlier version"
        raise UserError(f"{out} {problem}.", "Name a new or empty folder.")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    asked = []
    for product in training.PRODUCTS:
        write = _write_ad if product.dataset == "mvtec_ad" else _write_visa
        asked += write(partial / FOLDERS[product.dataset], product, sizes)
    write_loco(partial, sizes)
    _write_mmad(partial / FOLDERS["mmad"], asked, sizes.seed)
    write_text(partial / TOY_MARKER, marker)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def write_loco(out: Path, sizes: Toy) -> None:
    """Draw toy MVTec LOCO AD alone, the dataset that models are tested on, below the new folder ``out``."""
    for product in loco.PRODUCTS:
        _write_loco(out / FOLDERS["mvtec_loco"], product, sizes)


def pictures(product: Product, split: Split, anomaly: Anomaly, count: int, seed: int) -> Iterator[Picture]:
    """``count`` pictures of one kind, each from its own seed."""
    for index in range(count):
        rng = random.Random(f"{seed}/{product.dataset}/{product.name}/{split}/{anomaly}/{index}")
        normal, scene = product.draw(anomaly, index, rng)
        yield Picture(product, split, anomaly, normal, scene, render(scene, rng, product.looseness))


def _test_pictures(product: Product, sizes: Toy) -> Iterator[Picture]:
    for anomaly in ("good", "logical", "structural"):
        if anomaly != "logical" or product.logical:
            yield from pictures(product, "test", anomaly, getattr(sizes, anomaly), sizes.seed)


def _write_normals(folder: Path, product: Product, split: Split, sizes: Toy) -> None:
    for index, picture in enumerate(pictures(product, split, "good", getattr(sizes, split), sizes.seed)):
        _save(folder, f"{product.name}/{split}/good/{index:03}.png", picture)


def _write_ad(folder: Path, product: Product, sizes: Toy) -> Iterator[tuple[str, Picture]]:
    """MVTec AD's layout; gives the test pictures with their names in MMAD."""
    _write_normals(folder, product, "train", sizes)
    written: Counter[str] = Counter()
    for picture in _test_pictures(product, sizes):
        defect = picture.scene.defect or "good"
        stem = f"{written[defect]:03}"
        written[defect] += 1
        mask = "" if defect == "good" else f"{product.name}/ground_truth/{defect}/{stem}_mask.png"
        _save(folder, f"{product.name}/test/{defect}/{stem}.png", picture, mask)
        yield f"DS-MVTec/{product.name}/image/{defect}/{stem}.png", picture


def _write_visa(folder: Path, product: Product, sizes: Toy) -> Iterator[tuple[str, Picture]]:
    """VisA's raw layout of one object, with ``image_anno.csv`` and its rows of ``split_csv/1cls.csv``."""
    annotations, splits, written = [], [], Counter()
    training_pictures = pictures(product, "train", "good", sizes.train, sizes.seed)
    for picture in chain(training_pictures, _test_pictures(product, sizes)):
        is_good = picture.anomaly == "good"
        kind = "Normal" if is_good else "Anomaly"
        stem = f"{written[kind]:0{4 if is_good else 3}}"
        written[kind] += 1
        image = f"{product.name}/Data/Images/{kind}/{stem}.JPG"
        mask = "" if is_good else f"{product.name}/Data/Masks/Anomaly/{stem}.png"
        _save(folder, image, picture, mask)
        annotations.append([image, picture.scene.defect or "normal", mask])
        splits.append([product.name, picture.split, "normal" if is_good else "anomaly", image, mask])
        if picture.split == "test":
            yield f"VisA/{product.name}/test/{'good' if is_good else 'bad'}/{stem}.JPG", picture
    _append_csv(folder / product.name / "image_anno.csv", ["image", "label", "mask"], annotations)
    _append_csv(folder / "split_csv" / "1cls.csv", ["object", "split", "label", "image", "mask"], splits)


def _write_loco(folder: Path, product: Product, sizes: Toy) -> None:
    """MVTec LOCO AD's layout of one category, masks by pixel value; nothing of it goes into MMAD."""
    entries = [
        {"defect_name": name, "pixel_value": value, "saturation_threshold": 1.0, "relative_saturation": True}
        for name, value in product.values.items()
    ]
    write_text(folder / product.name / "defects_config.json", json.dumps(entries, indent=4) + "\n")
    _write_normals(folder, product, "train", sizes)
    _write_normals(folder, product, "validation", sizes)
    written: Counter[str] = Counter()
    for picture in _test_pictures(product, sizes):
        kind = "good" if picture.anomaly == "good" else f"{picture.anomaly}_anomalies"
        stem = f"{written[kind]:03}"
        written[kind] += 1
        mask = "" if kind == "good" else f"{product.name}/ground_truth/{kind}/{stem}/000.png"
        _save(folder, f"{product.name}/test/{kind}/{stem}.png", picture, mask)


def _save(folder: Path, name: str, picture: Picture, mask: str = "") -> None:
    """Write the image, its mask where ``mask`` names a file for it, and its line of ``scenes.jsonl``."""
    for file in filter(None, (name, mask)):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    picture.image.save(folder / name, quality=92)
    if mask:
        _mask(picture).save(folder / mask)
    truth = Truth(image=name, scene=picture.scene, changed=what_changed(picture.normal, picture.scene))
    with (folder / SCENES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(truth.model_dump()) + "\n")


def _mask(picture: Picture) -> Image.Image:
    """A grey image with the defect's value (255 but for LOCO) in every cell where the scene is not the normal one."""
    value = picture.product.values.get(picture.scene.defect, 255)
    mask = Image.new("L", picture.image.size, 0)
    draw = ImageDraw.Draw(mask)
    old, new = Counter(picture.normal.parts), Counter(picture.scene.parts)
    changed = (old - new) + (new - old)
    for part in changed:
        left, top = part.col * CELL, part.row * CELL
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=value)
    if not changed:  # the missing separator: the end of the third wall
        draw.rectangle((3 * CELL - 3, mask.height - CELL, 3 * CELL + 2, mask.height - 1), fill=value)
    return mask


def _append_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows] if is_new else rows)


def _write_mmad(folder: Path, asked: list[tuple[str, Picture]], seed: int) -> None:
    """``mmad.json``, ``domain_knowledge.json`` and the captions of the pictures ``asked`` about."""
    entries = {}
    for name, picture in asked:
        conversation = _conversation(picture, random.Random(f"{seed}/{name}"))
        entries[name] = {"conversation": conversation, "similar_templates": [], "random_templates": []}
        write_text(folder / PurePosixPath(name).with_suffix(".txt"), describe(picture.scene) + "\n")
    write_text(folder / "mmad.json", json.dumps(entries, indent=1) + "\n")
    write_text(folder / "domain_knowledge.json", json.dumps(_knowledge(), indent=1) + "\n")


def _conversation(picture: Picture, rng: random.Random) -> list[dict]:
    product, normal, scene = picture.product, picture.normal, picture.scene
    other_products = [other.name for other in training.PRODUCTS]
    verdict = "Yes." if scene.defect else "No."
    questions = [
        _question("Anomaly Detection", "Is there any defect in the object?", verdict, ["Yes.", "No."]),
        _shuffled(rng, "Object Classification", "What product is this?", product.name, other_products),
    ]
    other_scenes = [describe(other) for other in (normal, *(product.draw("structural", k, rng)[1] for k in range(2)))]
    question = "Which parts does the object show?"
    questions.append(_shuffled(rng, "Object Details", question, describe(scene), other_scenes))
    if scene.defect:
        defects = [*product.logical, *product.structural]
        places = list(what_changed(normal, scene).places)
        unchanged = [place for place in scene.places() if place not in places]
        descriptions = [_sentence(normal, scene, places), _sentence(scene, normal, places), "none ."]
        questions += [
            _shuffled(rng, "Defect Classification", "What is the type of the defect?", scene.defect, defects),
            _shuffled(rng, "Defect Localization", "Where is the defect?", places[0], unchanged),
            _shuffled(rng, "Defect Description", "What does the defect look like?", descriptions[0], descriptions),
        ]
    return questions


def _shuffled(rng: random.Random, kind: str, question: str, right: str, others: list[str]) -> dict:
    """A question with three of the ``others`` as wrong options, in random order."""
    wrong = sorted({other for other in others if other != right})
    options = [right, *rng.sample(wrong, min(3, len(wrong)))]
    rng.shuffle(options)
    return _question(kind, question, right, options)


def _question(kind: str, question: str, right: str, options: list[str]) -> dict:
    letters, answer = dict(zip("ABCDE", options, strict=False)), "ABCDE"[options.index(right)]
    return {"Question": question, "Answer": answer, "Options": letters, "type": kind, "annotation": True}


def _sentence(first: Scene, second: Scene, places: list[str]) -> str:
    return "".join(text for text, _ in compare_places(first, second, places)[0]).strip()


def _knowledge() -> dict[str, dict[str, dict[str, str]]]:
    sources = {"mvtec_ad": "MVTec", "visa": "VisA", "mvtec_loco": "MVTec-LOCO"}
    knowledge: dict[str, dict[str, dict[str, str]]] = {}
    for product in (*training.PRODUCTS, *loco.PRODUCTS):
        defects = () if product.dataset == "mvtec_loco" else (*product.logical, *product.structural)
        texts = {name: f"{name}: not as it should be. {product.rule}" for name in defects}
        knowledge.setdefault(sources[product.dataset], {})[product.name] = {"good": product.rule} | texts
    return knowledge

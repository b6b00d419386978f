"""The four toy datasets (MVTec AD, VisA, MVTec LOCO AD, MMAD) in the real on-disk layouts.

    write_datasets(Path("data"), sizes)

Every dataset folder also holds ``scenes.jsonl``: the scene behind each image and what its defect changed
(:mod:`ladlib.toy.truth`). An image depends on the seed and its own name alone, so more images never change the ones
before, and two machines write the same bytes. MMAD's answers and captions are made from the scenes.
"""

import csv
import io
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
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

    Nothing is done where ``out`` already holds just these. Raises :class:`UserError` where it holds
    anything else, also toy datasets of other sizes or another seed, or from before :data:`WORLD` was raised.
    """
    values = {name: getattr(sizes, name) for name in ("train", "validation", "good", "logical", "structural", "seed")}
    marker = json.dumps({"world": WORLD} | values, indent=2) + "\n"
    if (out / TOY_MARKER).is_file():
        if (out / TOY_MARKER).read_bytes() == marker.encode():
            return
        raise UserError(
            f"{out} holds toy datasets of other sizes or seed, or an earlier version.", "Delete it or name another."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} holds something other than these toy datasets.", "Name a new or empty folder.")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _draw_all(partial, sizes)
    write_text(partial / TOY_MARKER, marker)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _draw_all(out: Path, sizes: Toy) -> None:
    questions = []
    products = (*training.PRODUCTS, *loco.PRODUCTS)
    for product in products:
        questions += WRITERS[product.dataset](out / FOLDERS[product.dataset], product, sizes)
    _write_split(out / FOLDERS["visa"], sizes)
    write_mmad(out / FOLDERS["mmad"], questions, sizes.seed)


def write_loco(out: Path, sizes: Toy) -> None:
    """Draw toy MVTec LOCO AD alone, the dataset that is judged, below the new folder ``out``."""
    for product in loco.PRODUCTS:
        _write_loco(out / FOLDERS["mvtec_loco"], product, sizes)


def pictures(product: Product, split: Split, anomaly: Anomaly, count: int, seed: int) -> Iterator[Picture]:
    """``count`` pictures of one kind, each from its own seed."""
    for index in range(count):
        rng = random.Random(f"{seed}/{product.dataset}/{product.name}/{split}/{anomaly}/{index}")
        normal, scene = product.draw(anomaly, index, rng)
        yield Picture(product, split, anomaly, normal, scene, render(scene, rng, product.looseness))


def _kinds(product: Product, sizes: Toy) -> list[tuple[Anomaly, int]]:
    kinds: list[tuple[Anomaly, int]] = [
        ("good", sizes.good),
        ("logical", sizes.logical),
        ("structural", sizes.structural),
    ]
    return [(kind, count) for kind, count in kinds if kind != "logical" or product.logical]


def _write_ad(folder: Path, product: Product, sizes: Toy) -> list[tuple[str, Picture]]:
    """MVTec AD's layout; gives the test pictures with their names in MMAD."""
    asked = []
    for index, picture in enumerate(pictures(product, "train", "good", sizes.train, sizes.seed)):
        _save(folder, f"{product.name}/train/good/{index:03}.png", picture)
    for anomaly, count in _kinds(product, sizes):
        numbers: dict[str, int] = {}
        for picture in pictures(product, "test", anomaly, count, sizes.seed):
            kind = picture.scene.defect or "good"
            number = numbers[kind] = numbers.get(kind, -1) + 1
            _save(folder, f"{product.name}/test/{kind}/{number:03}.png", picture)
            if kind != "good":
                _save_mask(folder / product.name / "ground_truth" / kind / f"{number:03}_mask.png", picture, 255)
            asked.append((f"DS-MVTec/{product.name}/image/{kind}/{number:03}.png", picture))
    return asked


def _write_visa(folder: Path, product: Product, sizes: Toy) -> list[tuple[str, Picture]]:
    """VisA's raw layout of one object, with its ``image_anno.csv``."""
    rows, asked, numbers = [["image", "label", "mask"]], [], {"Normal": 0, "Anomaly": 0}
    runs = [("train", "good", sizes.train), *(("test", kind, count) for kind, count in _kinds(product, sizes))]
    for split, anomaly, count in runs:
        kind = "Normal" if anomaly == "good" else "Anomaly"
        for picture in pictures(product, split, anomaly, count, sizes.seed):
            stem = f"{numbers[kind]:0{4 if kind == 'Normal' else 3}}"
            numbers[kind] += 1
            image = f"{product.name}/Data/Images/{kind}/{stem}.JPG"
            mask = f"{product.name}/Data/Masks/Anomaly/{stem}.png" if kind == "Anomaly" else ""
            _save(folder, image, picture)
            if mask:
                _save_mask(folder / mask, picture, 255)
            rows.append([image, picture.scene.defect or "normal", mask])
            if split == "test":
                asked.append((f"VisA/{product.name}/test/{'good' if anomaly == 'good' else 'bad'}/{stem}.JPG", picture))
    _write_csv(folder / product.name / "image_anno.csv", rows)
    return asked


def _write_split(folder: Path, sizes: Toy) -> None:
    """``split_csv/1cls.csv`` of all toy VisA objects; the first normals are the training split."""
    rows = [["object", "split", "label", "image", "mask"]]
    for product in (product for product in training.PRODUCTS if product.dataset == "visa"):
        with (folder / product.name / "image_anno.csv").open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file)):
                split = "train" if number < sizes.train else "test"
                label = "normal" if row["label"] == "normal" else "anomaly"
                rows.append([product.name, split, label, row["image"], row["mask"]])
    _write_csv(folder / "split_csv" / "1cls.csv", rows)


def _write_loco(folder: Path, product: Product, sizes: Toy) -> list[tuple[str, Picture]]:
    """MVTec LOCO AD's layout of one category, masks by pixel value; nothing of it goes into MMAD."""
    entries = [
        {"defect_name": name, "pixel_value": value, "saturation_threshold": 1.0, "relative_saturation": True}
        for name, value in product.values.items()
    ]
    write_text(folder / product.name / "defects_config.json", json.dumps(entries, indent=4) + "\n")
    for split, count in (("train", sizes.train), ("validation", sizes.validation)):
        for index, picture in enumerate(pictures(product, split, "good", count, sizes.seed)):
            _save(folder, f"{product.name}/{split}/good/{index:03}.png", picture)
    for anomaly, count in _kinds(product, sizes):
        kind = "good" if anomaly == "good" else f"{anomaly}_anomalies"
        for index, picture in enumerate(pictures(product, "test", anomaly, count, sizes.seed)):
            _save(folder, f"{product.name}/test/{kind}/{index:03}.png", picture)
            if anomaly != "good":
                mask = folder / product.name / "ground_truth" / kind / f"{index:03}" / "000.png"
                _save_mask(mask, picture, product.values[picture.scene.defect])
    return []


def _save(folder: Path, name: str, picture: Picture) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.image.save(path, quality=92)
    truth = Truth(image=name, scene=picture.scene, changed=what_changed(picture.normal, picture.scene))
    with (folder / SCENES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(truth.model_dump()) + "\n")


def _save_mask(path: Path, picture: Picture, value: int) -> None:
    """A grey image with ``value`` in every cell where the scene is not the normal one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", picture.image.size, 0)
    draw = ImageDraw.Draw(mask)
    changed = set(picture.normal.parts) ^ set(picture.scene.parts) or _repeated(picture.scene)
    for part in changed:
        left, top = part.col * CELL, part.row * CELL
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=value)
    if not changed:  # the missing separator: the end of the third wall
        draw.rectangle((3 * CELL - 3, mask.height - CELL, 3 * CELL + 2, mask.height - 1), fill=value)
    mask.save(path)


def _repeated(scene: Scene) -> set:
    """The parts that stand twice in the scene: an additional pushpin in a compartment."""
    return {part for part in scene.parts if scene.parts.count(part) > 1}


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


WRITERS = {"mvtec_ad": _write_ad, "visa": _write_visa, "mvtec_loco": _write_loco}

"""Tiny folders in the datasets' real layouts, for the tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

LOCO_DEFECTS = {255: "missing_top_label", 254: "missing_bottom_label", 238: "contamination"}


def write_image(path: Path, value: int = 100, mode: str = "L", size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def write_mask(path: Path, *values: int) -> Path:
    """An 8x8 mask with one pixel of each value, 0 elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", (8, 8), 0)
    for x, value in enumerate(values):
        mask.putpixel((x, 0), value)
    mask.save(path)
    return path


def write_config(category: Path, defects: Mapping[int, str] = LOCO_DEFECTS, **changes: object) -> Path:
    """``defects_config.json``; ``changes`` go into its first entry."""
    entries = [
        {"defect_name": name, "pixel_value": value, "saturation_threshold": 1.0, "relative_saturation": True}
        for value, name in defects.items()
    ]
    entries[0] |= changes
    category.mkdir(parents=True, exist_ok=True)
    path = category / "defects_config.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def write_loco(
    folder: Path,
    category: str = "juice_bottle",
    normals: Mapping[str, int] = {"train": 3, "validation": 1, "test": 2},
    logical: Sequence[Sequence[Sequence[int]]] = (((255,),), ((254,), (255,))),
    structural: Sequence[Sequence[Sequence[int]]] = (((238,),),),
) -> Path:
    """A category of MVTec LOCO AD; ``logical`` holds, for each image, the values in each of its masks."""
    root = folder / category
    write_config(root)
    for split, count in normals.items():
        for number in range(count):
            write_image(root / split / "good" / f"{number:03d}.png", value=number)
    for kind, images in (("logical_anomalies", logical), ("structural_anomalies", structural)):
        for number, masks in enumerate(images):
            write_image(root / "test" / kind / f"{number:03d}.png", value=number)
            for index, values in enumerate(masks):
                write_mask(root / "ground_truth" / kind / f"{number:03d}" / f"{index:03d}.png", *values)
    return root


def write_pairs(root, good, logical):
    """One category of MVTec LOCO AD, no two images alike."""
    folder = root / "mvtec_loco_anomaly_detection"
    counts = {"train": 3, "validation": 1, "test": good}
    write_loco(folder, normals=counts, logical=[[(255,)]] * logical, structural=())
    images = [path for path in sorted(folder.rglob("*.png")) if "ground_truth" not in path.parts]
    for number, path in enumerate(images):
        size = (56, 28) if number % 2 else (30, 30)
        Image.new("RGB", size, (number % 256, number // 256, number * 7 % 256)).save(path)
    return root


def write_ad(
    folder: Path,
    category: str = "cable",
    normals: Mapping[str, int] = {"train": 2, "test": 1},
    defects: Mapping[str, int] = {"missing_cable": 1, "bent_wire": 2},
) -> Path:
    """A category of MVTec AD; ``defects`` holds the number of images of each."""
    root = folder / category
    for split, count in normals.items():
        for number in range(count):
            write_image(root / split / "good" / f"{number:03d}.png", value=number)
    for defect, count in defects.items():
        for number in range(count):
            write_image(root / "test" / defect / f"{number:03d}.png", value=number)
            write_mask(root / "ground_truth" / defect / f"{number:03d}_mask.png", 255)
    return root


def write_visa(
    folder: Path,
    name: str = "pcb4",
    train: int = 2,
    test: int = 1,
    labels: Sequence[str] = ("scratch", "missing,dirt"),
    line_end: str = "\r\n",
) -> Path:
    """An object of VisA with its rows of ``1cls.csv``; ``labels`` are those of its anomalous images."""
    normals = [f"{name}/Data/Images/Normal/{number:04d}.JPG" for number in range(train + test)]
    split = [f"{name},{'test' if number >= train else 'train'},normal,{image}," for number, image in enumerate(normals)]
    annotation = [f"{image},normal," for image in normals]
    for number, image in enumerate(normals):
        write_image(folder / image, value=number)
    for number, label in enumerate(labels):
        image, mask = (f"{name}/Data/{kind}/Anomaly/{number:03d}" for kind in ("Images", "Masks"))
        write_image(folder / f"{image}.JPG", value=number)
        write_mask(folder / f"{mask}.png", 1)
        split.append(f"{name},test,anomaly,{image}.JPG,{mask}.png")
        annotation.append(f'{image}.JPG,"{label}",{mask}.png')
    (folder / "split_csv").mkdir(parents=True, exist_ok=True)
    for file, lines in (
        (folder / "split_csv" / "1cls.csv", ["object,split,label,image,mask", *split]),
        (folder / name / "image_anno.csv", ["image,label,mask", *annotation]),
    ):
        file.write_bytes((line_end.join(lines) + line_end).encode())
    return folder / name


def mmad_entry(answer: str = "A", **turn: object) -> dict:
    """One image's entry of ``mmad.json`` with one question."""
    question = {"Question": "Is there any defect in the object?", "Answer": answer, "type": "Anomaly Detection"}
    return {"conversation": [question | {"Options": {"A": "Yes.", "B": "No."}, "annotation": True} | turn]}


def write_mmad(folder: Path, entries: object, knowledge: object = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mmad.json").write_text(json.dumps(entries), encoding="utf-8")
    knowledge = {"MVTec": {"bottle": {"good": "A bottle."}}} if knowledge is None else knowledge
    (folder / "domain_knowledge.json").write_text(json.dumps(knowledge), encoding="utf-8")
    return folder

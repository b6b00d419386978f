"""MVTec AD, VisA, MVTec LOCO AD and MMAD with every published file, each image of 8 by 8 pixels."""

import os
from pathlib import Path

from layouts import mmad_entry, write_config, write_image, write_mask, write_mmad, write_visa

from ladlib.data.layout import FOLDERS, LOCO_FOLDERS, published, published_categories, published_images


def write_skeleton(root: Path) -> Path:
    """The four datasets below ``root``, with the counts of their releases."""
    for dataset, write in (("mvtec_ad", _ad), ("mvtec_loco", _loco), ("visa", _visa), ("mmad", _mmad)):
        write(root / FOLDERS[dataset])
    return root


def _ad(folder: Path) -> None:
    image, mask = write_image(folder.parent / "ad.png"), write_mask(folder.parent / "ad-mask.png", 255)
    for (_, split, kind), names in published_images("mvtec_ad").items():
        for name in names:
            _link(image, folder / name)
            if split == "test" and kind != "good":
                truth = folder / name.replace("/test/", "/ground_truth/")
                _link(mask, truth.with_name(f"{truth.stem}_mask.png"))


def _loco(folder: Path) -> None:
    image, mask = write_image(folder.parent / "loco.png"), write_mask(folder.parent / "loco-mask.png", 255)
    for category in published_categories("mvtec_loco"):
        number = published("mvtec_loco")[category, "config", "defects"][0]
        write_config(folder / category, {255 - one: f"defect_{one}" for one in range(number)})
    for (category, split, kind), names in published_images("mvtec_loco").items():
        for name in names:
            _link(image, folder / name)
            if split == "test" and kind != "good":
                _link(mask, folder / category / "ground_truth" / LOCO_FOLDERS[kind] / Path(name).stem / "000.png")


def _visa(folder: Path) -> None:
    counts, rows = published("visa"), []
    for name in published_categories("visa"):
        train, good = counts[name, "train", "good"][0], counts[name, "test", "good"][0]
        write_visa(folder, name, train, good, ["scratch"] * counts[name, "test", "anomalous"][0])
        rows += (folder / "split_csv" / "1cls.csv").read_text().splitlines()[1:]
    (folder / "split_csv" / "1cls.csv").write_text("\n".join(["object,split,label,image,mask", *rows]) + "\n")


def _mmad(folder: Path) -> None:
    counts = {kind: published("mmad")["all", "json", kind][0] for kind in ("images", "questions")}
    entries = {f"DS-MVTec/bottle/image/good/{number:04d}.png": mmad_entry() for number in range(counts["images"])}
    for number, entry in enumerate(entries.values()):
        entry["conversation"] *= len(range(number, counts["questions"], counts["images"]))
    kinds = published("mmad")["all", "knowledge", "categories"][0]
    write_mmad(folder, entries, {"MVTec": {f"object_{number}": {"good": "Whole."} for number in range(kinds)}})


def _link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, path)

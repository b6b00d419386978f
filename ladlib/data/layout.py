"""Where datasets lie, how their folders are listed, and the published numbers of images (``counts.csv``)."""

import csv
from functools import cache
from importlib import resources
from pathlib import Path

from ladlib.errors import UserError

FOLDERS = {
    "mvtec_ad": "mvtec_anomaly_detection",
    "visa": "visa",
    "mvtec_loco": "mvtec_loco_anomaly_detection",
    "mmad": "mmad",
}
PATTERNS = {  # one of which the folder of a dataset holds
    "mvtec_ad": ("*/train/good", "*/test/good"),
    "visa": ("split_csv/1cls.csv",),
    "mvtec_loco": ("*/defects_config.json", "*/test/logical_anomalies"),
    "mmad": ("mmad.json", "domain_knowledge.json"),
}
TOY_MARKER = "toy.json"  # in the folder of synthetic datasets: the world and the sizes they were made with
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
LOCO_FOLDERS = {"good": "good", "logical": "logical_anomalies", "structural": "structural_anomalies"}
SPLITS = ("train", "validation", "test", "Data/Images")  # in a category, each with a folder for each kind of image

Key = tuple[str, str, str]  # category, split, kind


def find_dataset(root: Path | str, dataset: str) -> Path:
    """``root/<FOLDERS[dataset]>``, or ``root`` where it is that dataset by its content; UserError where neither is."""
    if dataset not in FOLDERS:
        raise UserError(f"There is no dataset {dataset!r}.", f"Use one of {', '.join(FOLDERS)}.")
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.", "Give the folder that holds the datasets with --data.")
    inside = root / FOLDERS[dataset]
    if inside.is_dir() or is_dataset(root, dataset):
        return inside if inside.is_dir() else root
    raise UserError(f"{root} holds no {dataset} dataset.", f"Unpack it as {inside}, or give the dataset's own folder.")


def is_drawn(folder: Path) -> bool:
    """Whether ``folder`` is one of the synthetic datasets, or holds them."""
    return any((path / TOY_MARKER).is_file() for path in (folder, folder.parent))


def is_dataset(folder: Path, dataset: str) -> bool:
    """Whether ``folder`` is ``dataset`` by its content."""
    if dataset == "mvtec_ad" and is_dataset(folder, "mvtec_loco"):
        return False
    return any(next(folder.glob(pattern), None) for pattern in PATTERNS[dataset])


def category_folders(folder: Path) -> list[Path]:
    """The categories of a dataset: folders that hold images of a split or a defects_config.json."""
    names = (*SPLITS, "defects_config.json")
    return [path for path in subfolders(folder) if any((path / name).exists() for name in names)]


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted by name, hidden ones left out; [] where it does not exist."""
    return [path for path in _children(folder) if path.is_dir()]


def list_images(folder: Path) -> list[Path]:
    """The image files in ``folder``, sorted by name, hidden ones left out; [] where it does not exist."""
    return [path for path in _children(folder) if path.suffix.lower() in ENDINGS and path.is_file()]


def _children(folder: Path) -> list[Path]:
    """Without hidden ones, such as the "._000.png" of a macOS archive."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in paths:
        if (name := str(path).encode(errors="backslashreplace").decode()) != str(path):  # no record could hold it
            raise UserError(f"{name} has a name that is not UTF-8.", "Rename it.")
    return [path for path in paths if not path.name.startswith(".")]


@cache
def read_table(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file that is part of this package."""
    text = (resources.files("ladlib.data") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def published(dataset: str) -> dict[Key, tuple[int, ...]]:
    """The published counts of ``dataset``; where two are in use, the release's and then the journal article's."""
    counts: dict[Key, tuple[int, ...]] = {}
    for row in read_table("counts.csv"):
        if row["dataset"] == dataset:
            key = row["category"], row["split"], row["kind"]
            counts[key] = (*counts.get(key, ()), int(row["count"]))
    return counts


def published_categories(dataset: str) -> list[str]:
    """The categories of ``dataset``, sorted."""
    return sorted({category for category, _, _ in published(dataset)})


def published_images(dataset: str, edition: int = 0) -> dict[Key, list[str]]:
    """The image paths of MVTec AD or MVTec LOCO AD, numbered from 000.png; edition -1 is the journal article's."""
    return {
        (category, split, kind): [
            f"{category}/{split}/{LOCO_FOLDERS.get(kind, kind)}/{number:03d}.png" for number in range(counts[edition])
        ]
        for (category, split, kind), counts in published(dataset).items()
        if split in SPLITS and kind != "anomalous"
    }

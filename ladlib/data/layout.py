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

Key = tuple[str, str, str]  # category, split, kind


def find_dataset(root: Path | str, dataset: str) -> Path:
    """``root/<FOLDERS[dataset]>``, or ``root`` itself where it is that dataset by its content.

    Raises :class:`UserError` for an unknown dataset and where neither exists.
    """
    if dataset not in FOLDERS:
        raise UserError(f"There is no dataset {dataset!r}.", f"Use one of {', '.join(FOLDERS)}.")
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.", "Give the folder that holds the datasets with --data.")
    inside = root / FOLDERS[dataset]
    if inside.is_dir():
        return inside
    if is_dataset(root, dataset):
        return root
    raise UserError(f"{root} holds no {dataset} dataset.", f"Unpack it as {inside}, or give the dataset's own folder.")


def is_dataset(folder: Path, dataset: str) -> bool:
    """Whether ``folder`` is ``dataset`` by its content."""
    if dataset == "mvtec_ad" and is_dataset(folder, "mvtec_loco"):
        return False
    return any(next(folder.glob(pattern), None) for pattern in PATTERNS[dataset])


def category_folders(folder: Path) -> list[Path]:
    """The categories of an MVTec dataset: folders that hold a split or a defects_config.json."""
    names = ("train", "test", "validation", "defects_config.json")
    return [path for path in subfolders(folder) if any((path / name).exists() for name in names)]


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted by name, hidden ones left out; [] where it does not exist."""
    return [path for path in _children(folder) if path.is_dir() and not path.name.startswith(".")]


def list_images(folder: Path) -> list[Path]:
    """The image files in ``folder``, sorted by name, hidden ones left out; [] where it does not exist."""
    return [path for path in _children(folder) if is_image(path)]


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file; "._000.png" of a macOS archive is not one."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def _children(folder: Path) -> list[Path]:
    """What is in ``folder``, sorted. Raises :class:`UserError` for a name that no record could hold."""
    if not folder.is_dir():
        return []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}.", "Check its permissions.") from error
    for path in paths:
        if path.name.encode(errors="replace").decode() != path.name:
            raise UserError(f"{path} has a name that is not UTF-8.", "Rename it.")
    return paths


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file that is part of this package."""
    text = (resources.files("ladlib.data") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def published(dataset: str) -> dict[Key, tuple[int, ...]]:
    """The published counts of ``dataset`` by (category, split, kind); where two are in use, the release's is first."""
    counts: dict[Key, tuple[int, ...]] = {}
    for row in read_table("counts.csv"):
        if row["dataset"] == dataset:
            key = row["category"], row["split"], row["kind"]
            counts[key] = (*counts.get(key, ()), int(row["count"]))
    return counts


def published_categories(dataset: str) -> list[str]:
    """The categories of ``dataset``, sorted."""
    return sorted({category for category, _, _ in published(dataset)})


def published_images(dataset: str) -> dict[Key, list[str]]:
    """The image paths of MVTec LOCO AD or MVTec AD by (category, split, kind); files are numbered from 000.png."""
    return {
        key: [f"{key[0]}/{key[1]}/{LOCO_FOLDERS.get(key[2], key[2])}/{number:03d}.png" for number in range(counts[0])]
        for key, counts in published(dataset).items()
        if key[1] in ("train", "validation", "test") and key[2] != "anomalous"
    }

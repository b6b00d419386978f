"""Where a dataset lies, and how its folders are listed."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ladlib.errors import UserError

FOLDERS = {
    "mvtec_ad": "mvtec_anomaly_detection",
    "visa": "visa",
    "mvtec_loco": "mvtec_loco_anomaly_detection",
    "mmad": "mmad",
}
DRAWN = "toy.json"  # in the folder of drawn toy datasets: the world and the sizes they were drawn with
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
UNKNOWN = "unknown"  # the defect of an anomalous image whose annotation does not tell


def _is_loco(folder: Path) -> bool:
    return _holds(folder, "*/defects_config.json") or _holds(folder, "*/test/logical_anomalies")


def _is_mvtec_ad(folder: Path) -> bool:
    return not _is_loco(folder) and (_holds(folder, "*/train/good") or _holds(folder, "*/test/good"))


def _is_visa(folder: Path) -> bool:
    return (folder / "split_csv" / "1cls.csv").is_file()


def _is_mmad(folder: Path) -> bool:
    return (folder / "mmad.json").is_file() or (folder / "domain_knowledge.json").is_file()


def _holds(folder: Path, pattern: str) -> bool:
    return next(folder.glob(pattern), None) is not None


RECOGNISE: dict[str, Callable[[Path], bool]] = {
    "mvtec_ad": _is_mvtec_ad,
    "visa": _is_visa,
    "mvtec_loco": _is_loco,
    "mmad": _is_mmad,
}


def find_dataset(root: Path | str, dataset: str) -> Path:
    """``root/<FOLDERS[dataset]>``, or ``root`` itself where it is that dataset by its content.

    Raises :class:`UserError` for an unknown dataset and where neither is there.
    """
    if dataset not in FOLDERS:
        raise UserError(f"There is no dataset {dataset!r}.", f"Use one of {', '.join(FOLDERS)}.")
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.", "Give the folder that holds the datasets with --data.")
    inside = root / FOLDERS[dataset]
    if inside.is_dir():
        return inside
    if RECOGNISE[dataset](root):
        return root
    raise UserError(
        f"{root} holds no {dataset} dataset.",
        f"Unpack it as {inside}, or give the dataset's own folder.",
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted by name, hidden ones left out; [] where it does not exist."""
    return [one for one in _children(folder) if one.is_dir() and not one.name.startswith(".")]


def list_images(folder: Path) -> list[Path]:
    """The image files in ``folder``, sorted by name, hidden ones left out; [] where it does not exist."""
    return [one for one in _children(folder) if is_image(one)]


def _children(folder: Path) -> list[Path]:
    """What is in ``folder``, sorted. Raises :class:`UserError` for a name that no record could hold."""
    if not folder.is_dir():
        return []
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}.", "Check its permissions.") from error
    for one in found:
        if not one.name.isascii() and one.name.encode(errors="replace").decode() != one.name:
            raise UserError(f"{one} has a name that is not UTF-8.", "Rename it.")
    return found


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file; "._000.png" of a macOS archive is not one."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def relative(path: Path, folder: Path) -> str:
    """``path`` below ``folder`` as records keep it: POSIX."""
    return path.relative_to(folder).as_posix()


def without_ending(image: str) -> str:
    """A sample's id: its image path without the ending."""
    return image.rsplit(".", 1)[0]


def categories(folder: Path) -> Iterator[Path]:
    """The category folders of an MVTec dataset: those that hold a split or a defects_config.json."""
    for one in subfolders(folder):
        if any((one / name).exists() for name in ("train", "test", "validation", "defects_config.json")):
            yield one

"""A dataset folder held against the published layout and counts: what is missing, what is extra."""

from collections.abc import Callable
from pathlib import Path

from ladlib.data.check_ad import check_mvtec_ad
from ladlib.data.check_loco import check_mvtec_loco
from ladlib.data.check_mmad import check_mmad
from ladlib.data.check_visa import check_visa
from ladlib.data.finding import Finding
from ladlib.data.layout import DRAWN, FOLDERS, RECOGNISE
from ladlib.errors import UserError

__all__ = ["Finding", "check"]

CHECKS: dict[str, Callable[[Path, bool], list[Finding]]] = {
    "mvtec_ad": check_mvtec_ad,
    "visa": check_visa,
    "mvtec_loco": check_mvtec_loco,
    "mmad": check_mmad,
}


def check(root: Path | str, decode: bool = False) -> list[Finding]:
    """Findings about every dataset in ``root``, or about ``root`` where it is a dataset itself.

    Opens the header of every image and looks at its end; with ``decode`` all of every image and mask (slow). Raises
    :class:`UserError` where ``root`` holds nothing that can be recognised.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.", "Give the folder that holds the datasets.")
    inside = {name: root / folder for name, folder in FOLDERS.items() if (root / folder).is_dir()}
    itself = {name: root for name, recognise in RECOGNISE.items() if not inside and recognise(root)}
    if not inside and not itself:
        names = ", ".join(FOLDERS.values())
        raise UserError(f"{root} holds none of {names}.", "Give the folder that holds them, or one of them.")
    absent = [] if itself else [_absent(root, name) for name in FOLDERS if name not in inside]
    found = [one for name, folder in (inside or itself).items() for one in CHECKS[name](folder, decode)]
    return [*_drawn(root), *found, *absent]


def _absent(root: Path, dataset: str) -> Finding:
    return Finding(
        severity="warning",
        dataset=dataset,
        category="",
        message="the dataset is missing.",
        hint=f"Unpack it as {root / FOLDERS[dataset]} where it is needed, or run ladlib data download.",
    )


def _drawn(root: Path) -> list[Finding]:
    if not any((folder / DRAWN).is_file() for folder in (root, root.parent)):
        return []
    message = "these are drawn toy datasets: in their layouts as published, and smaller on purpose."
    hint = "Every difference from the published ones is in --json."
    return [Finding(severity="warning", dataset="toy", category="", message=message, hint=hint)]

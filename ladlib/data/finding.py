"""What a check finds, and how file names are held against published ones."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from ladlib.data.images import has_end, open_image, read_size
from ladlib.errors import UserError
from ladlib.records import Record


class Finding(Record):
    """One line of a check. ``error``: unusable or incomplete; ``warning``: usable, not as published."""

    severity: Literal["error", "warning", "ok"]
    dataset: str
    category: str  # "" for the dataset as a whole
    message: str
    hint: str = ""


class Findings:
    """Collects the findings of one category."""

    def __init__(self, dataset: str, category: str = "") -> None:
        self.dataset, self.category = dataset, category
        self.rows: list[Finding] = []

    def error(self, message: str, hint: str) -> None:
        self._add("error", message, hint)

    def warning(self, message: str, hint: str) -> None:
        self._add("warning", message, hint)

    def ok(self, message: str) -> None:
        self._add("ok", message, "")

    def _add(self, severity: Literal["error", "warning", "ok"], message: str, hint: str) -> None:
        finding = Finding(severity=severity, dataset=self.dataset, category=self.category, message=message, hint=hint)
        self.rows.append(finding)

    def attempt(self, read: Callable[[], object]) -> bool:
        """Whether ``read`` succeeds; its :class:`UserError` becomes an error finding."""
        try:
            read()
        except UserError as error:
            self.error(error.what, error.hint)
            return False
        return True

    def compare(self, place: str, found: Iterable[str], expected: Iterable[str], what: str = "images") -> None:
        """Say which of the file names ``expected`` in ``place`` are missing and which are extra."""
        found, expected = set(found), set(expected)
        missing, extra = expected - found, found - expected
        if missing:
            names = f"missing {spans(missing)}" if found else "all missing"
            self.error(
                f"{place}: {len(found & expected)} of {len(expected)} {what}, {names}.",
                "Copy the missing ones.",
            )
        if extra:
            self.warning(f"{place}: {len(extra)} {what} that were not published: {spans(extra)}.", "Remove them.")

    def unreadable(self, images: Sequence[Path], decode: bool) -> None:
        """Look at every image's beginning and end, or with ``decode`` at all of it, and name those that fail."""
        bad = [path for path in images if not _opens(path, decode)]
        if bad:
            names = ", ".join("/".join(path.parts[-3:]) for path in bad)
            self.error(
                f"{len(bad)} images do not decode: {names}.",
                "Copy them again.",
            )

    def other_sizes(self, masks: Iterable[tuple[Path, Path]]) -> None:
        """Name the masks that are not of the size of their image, of pairs (image, mask); headers alone are read."""
        bad = [mask for image, mask in masks if not _fits(image, mask)]
        if bad:
            names = ", ".join("/".join(path.parts[-2:]) for path in bad)
            self.error(f"{len(bad)} masks are of another size than their images: {names}.", "Copy both again.")


def _fits(image: Path, mask: Path) -> bool:
    """Whether the sizes are one; what cannot be opened is told elsewhere."""
    try:
        return read_size(image) == read_size(mask)
    except UserError:
        return True


def _opens(path: Path, decode: bool) -> bool:
    try:
        read_size(path)
        if decode or not has_end(path):
            open_image(path)
    except UserError:
        return False
    return True


def spans(names: Iterable[str]) -> str:
    """File names in short: endings dropped and consecutive numbers joined, other names after them.

    >>> spans(["000.png", "001.png", "002.png", "007.png", "odd.png"])
    '000-002, 007, odd.png'
    """
    names = set(names)
    numbers = sorted({Path(name).stem for name in names if Path(name).stem.isdecimal()}, key=int)
    # Within a run of consecutive numbers the number and its place in the list grow in step.
    runs = groupby(enumerate(numbers), key=lambda one: (int(one[1]) - one[0], len(one[1])))
    joined = []
    for _, group in runs:
        run = [number for _, number in group]
        joined.append(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ", ".join(joined + sorted(name for name in names if not Path(name).stem.isdecimal()))

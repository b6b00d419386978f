"""What the checks of both MVTec datasets begin with: which categories there are, and which ought to be."""

from collections.abc import Callable
from pathlib import Path

from ladlib.data.counts import published_categories
from ladlib.data.finding import Finding, Findings
from ladlib.data.layout import categories


def check_each(
    dataset: str,
    title: str,
    folder: Path,
    check_one: Callable[[Path, Findings], None],
) -> list[Finding]:
    """Findings for every published category of ``dataset`` and every other one in ``folder``.

    ``check_one`` adds its findings about a published category that is there.
    """
    known = published_categories(dataset)
    rows = []
    for name in sorted({*known, *(one.name for one in categories(folder))}):
        findings = Findings(dataset, name)
        if name not in known:
            findings.warning(f"is no category of {title}.", "Rename or remove the folder.")
        elif not (folder / name).is_dir():
            findings.error("the category is missing.", f"Copy it to {folder / name}.")
        else:
            check_one(folder / name, findings)
        rows += findings.rows
    return rows

"""MVTec AD held against its release."""

from pathlib import Path

from ladlib.data.check_each import check_each
from ladlib.data.counts import published_images
from ladlib.data.finding import Finding, Findings
from ladlib.data.layout import list_images, subfolders
from ladlib.data.mvtec_ad import mask_of

DATASET = "mvtec_ad"


def check_mvtec_ad(folder: Path, decode: bool) -> list[Finding]:
    """Findings for every published category, and for those that were not published."""
    return check_each(DATASET, "MVTec AD", folder, lambda one, findings: _check_category(one, findings, decode))


def _check_category(category: Path, findings: Findings, decode: bool) -> None:
    anomalous = [path for one in _defects(category) for path in list_images(one)]
    normals = [path for split in ("train", "test") for path in list_images(category / split / "good")]
    _check_counts(category, findings)
    _check_masks(anomalous, findings)
    findings.unreadable(normals + anomalous, decode)
    if not findings.rows:
        findings.ok(f"{len(normals) + len(anomalous)} images and their masks as released.")


def _defects(category: Path) -> list[Path]:
    return [one for one in subfolders(category / "test") if one.name != "good"]


def _check_counts(category: Path, findings: Findings) -> None:
    """Every folder of every split, the published ones and those that are there."""
    expected = {
        f"{split}/{kind}": [Path(one).name for one in images]
        for (name, split, kind), images in published_images(DATASET).items()
        if name == category.name
    }
    for place in sorted({*expected, *(f"test/{one.name}" for one in _defects(category))}):
        found = [path.name for path in list_images(category / place)]
        findings.compare(place, found, expected.get(place, []))


def _check_masks(anomalous: list[Path], findings: Findings) -> None:
    bare = [path for path in anomalous if not mask_of(path).is_file()]
    if bare:
        names = ", ".join(f"{path.parent.name}/{path.name}" for path in bare)
        findings.error(f"ground_truth: no masks for {len(bare)} images: {names}.", "Copy ground_truth too.")
    findings.other_sizes((path, mask_of(path)) for path in anomalous)

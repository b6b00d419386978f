"""MVTec AD held against its release."""

from pathlib import Path

from ladlib.data.check_each import check_each
from ladlib.data.counts import published, published_images
from ladlib.data.finding import Finding, Findings
from ladlib.data.layout import list_images, subfolders
from ladlib.data.mvtec_ad import mask_of

DATASET = "mvtec_ad"


def check_mvtec_ad(folder: Path, decode: bool) -> list[Finding]:
    """Findings for every published category, and for those that were not published."""
    return check_each(DATASET, "MVTec AD", folder, lambda one, findings: _check_category(one, findings, decode))


def _check_category(category: Path, findings: Findings, decode: bool) -> None:
    defects = [one for one in subfolders(category / "test") if one.name != "good"]
    anomalous = [path for one in defects for path in list_images(one)]
    normals = [path for split in ("train", "test") for path in list_images(category / split / "good")]
    _check_numbered(category, findings)
    _check_anomalous(category.name, defects, findings)
    _check_masks(anomalous, findings)
    findings.unreadable(normals + anomalous, decode)
    if not findings.rows:
        findings.ok(f"{len(normals) + len(anomalous)} images and their masks as released.")


def _check_numbered(category: Path, findings: Findings) -> None:
    """The folders whose own count is published: the normals, and the defects of metal_nut."""
    for (name, split, kind), images in published_images(DATASET).items():
        if name == category.name:
            found = [path.name for path in list_images(category / split / kind)]
            findings.compare(f"{split}/{kind}", found, [Path(one).name for one in images])


def _check_anomalous(category: str, defects: list[Path], findings: Findings) -> None:
    """Of the other defects only the sum is published."""
    expected = published(DATASET)[category, "test", "anomalous"][0]
    found = {one.name: len(list_images(one)) for one in defects}
    total = sum(found.values())
    listed = ", ".join(f"{name} {number}" for name, number in found.items()) or "none"
    if total < expected:
        findings.error(
            f"test: {total} of {expected} anomalous images ({listed}), {expected - total} missing.",
            "Copy the missing ones.",
        )
    if total > expected:
        findings.warning(
            f"test: {total} anomalous images ({listed}), {total - expected} more than were published.",
            "Remove what is not of the dataset.",
        )


def _check_masks(anomalous: list[Path], findings: Findings) -> None:
    bare = [path for path in anomalous if not mask_of(path).is_file()]
    if bare:
        names = ", ".join(f"{path.parent.name}/{path.name}" for path in bare)
        findings.error(f"ground_truth: no masks for {len(bare)} images: {names}.", "Copy ground_truth too.")

"""MVTec LOCO AD held against its release."""

from pathlib import Path

from ladlib.data.check_each import check_each
from ladlib.data.counts import LOCO_FOLDERS, published, published_images
from ladlib.data.finding import Finding, Findings, spans
from ladlib.data.layout import list_images, subfolders
from ladlib.data.mvtec_loco import defects_of, flattened_mask_of, masks_of, read_defects

DATASET = "mvtec_loco"


def check_mvtec_loco(folder: Path, decode: bool) -> list[Finding]:
    """Findings for every published category, and for those that were not published."""
    return check_each(DATASET, "MVTec LOCO AD", folder, lambda one, findings: _check_category(one, findings, decode))


def _check_category(category: Path, findings: Findings, decode: bool) -> None:
    named = findings.attempt(lambda: _check_defects(category, findings))
    images = [path for place in _places(category) for path in list_images(category / place)]
    if not images:
        findings.error("has no images at all.", f"Copy them to {category}.")
        return
    _check_counts(category, findings)
    _check_masks(category, findings)
    findings.unreadable(images, decode)
    if decode and named:
        _check_mask_values(category, findings)
    if all(row.severity == "ok" for row in findings.rows):
        findings.ok(f"{len(images)} images, their masks and defects_config.json as released.")


def _check_defects(category: Path, findings: Findings) -> None:
    found, expected = len(read_defects(category)), published(DATASET)[category.name, "config", "defects"][0]
    if found != expected:
        findings.error(f"defects_config.json names {found} defects, not {expected}.", "Copy the file again.")


def _places(category: Path) -> list[str]:
    found = {f"{split}/{one.name}" for split in ("train", "validation", "test") for one in subfolders(category / split)}
    return sorted(found | set(_expected(category.name)))


def _expected(category: str) -> dict[str, tuple[list[str], tuple[int, ...]]]:
    """By place ("test/good"): the released file names, and the numbers of images known, the release's first."""
    counts = published(DATASET)
    return {
        f"{key[1]}/{LOCO_FOLDERS[key[2]]}": ([Path(one).name for one in images], counts[key])
        for key, images in published_images(DATASET).items()
        if key[0] == category
    }


def _check_counts(category: Path, findings: Findings) -> None:
    expected = _expected(category.name)
    found = {place: [path.name for path in list_images(category / place)] for place in _places(category)}
    if _is_as_printed(found, expected):
        printed = ", ".join(f"{place} {len(found[place])}" for place in _twofold(expected))
        findings.ok(f"as the IJCV paper prints it ({printed}); the release has a few images more.")
        expected = expected | {place: (found[place], ()) for place in _twofold(expected)}
    for place, names in found.items():
        findings.compare(place, names, expected.get(place, ([], ()))[0])


def _is_as_printed(found: dict[str, list[str]], expected: dict[str, tuple[list[str], tuple[int, ...]]]) -> bool:
    """Whether every folder with two known numbers has the second one: the two never mix in one copy."""
    twofold = _twofold(expected)
    cut = {place: expected[place][0][: expected[place][1][1]] for place in twofold}
    return bool(twofold) and all(found[place] == cut[place] for place in twofold)


def _twofold(expected: dict[str, tuple[list[str], tuple[int, ...]]]) -> list[str]:
    return [place for place, (_, accepted) in expected.items() if len(accepted) > 1]


def _check_masks(category: Path, findings: Findings) -> None:
    for kind in ("logical_anomalies", "structural_anomalies"):
        images = list_images(category / "test" / kind)
        without = [path for path in images if not masks_of(path)]
        flattened = [path for path in without if flattened_mask_of(path).is_file()]
        _report_masks(kind, len(images), without, flattened, findings)
        findings.other_sizes((path, mask) for path in images for mask in masks_of(path))
        orphans = {one.name for one in subfolders(category / "ground_truth" / kind)} - {one.stem for one in images}
        if orphans:
            findings.warning(f"ground_truth/{kind}: masks of absent images: {spans(orphans)}.", "Copy the images.")


def _report_masks(kind: str, images: int, without: list[Path], flattened: list[Path], findings: Findings) -> None:
    if flattened:
        findings.warning(
            f"ground_truth/{kind}: {len(flattened)} of {images} masks are flattened by a third party "
            "(one file an image, all defects 255); their defects are unknown.",
            "Copy the masks of the official archive.",
        )
    bare = sorted(set(without) - set(flattened))
    if bare:
        findings.error(
            f"ground_truth/{kind}: no masks for {len(bare)} of {images} images: {spans(path.name for path in bare)}.",
            "Copy ground_truth too.",
        )


def _check_mask_values(category: Path, findings: Findings) -> None:
    names = read_defects(category)
    for kind in ("logical_anomalies", "structural_anomalies"):
        for image in list_images(category / "test" / kind):
            masks = masks_of(image)
            findings.attempt(lambda masks=masks: defects_of(masks, names))

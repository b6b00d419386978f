"""Nothing that a run has stored, and no image that it judged, was changed since."""

from pathlib import Path

from ladlib import checksums
from ladlib.data import find_dataset
from ladlib.data.images import sha256
from ladlib.errors import UserError
from ladlib.report.stored import Stored
from ladlib.runs import RunFolder
from ladlib.verify.claim import Claim, skipped, verdict


def claims(run: RunFolder, stored: Stored) -> list[Claim]:
    """The checksums of the stored files, and the images where the datasets are at hand."""
    return [*_checksums(run), _images(run, stored)]


def _checksums(run: RunFolder) -> list[Claim]:
    count, missing = len(checksums.read(run)), checksums.missing(run)
    if not count:
        return [skipped("checksums", "this run has none")]
    whole = verdict("checksums", checksums.verify(run), f"{count} stored files are as they were made")
    return [whole, *([skipped("checksums", f"none for {', '.join(missing)}")] if missing else [])]


def _images(run: RunFolder, stored: Stored) -> Claim:
    """Each judged image has the bytes that were judged."""
    subject, root = "image files", Path(str(stored.record.parameters.get("data") or run.data))
    judged = {
        (one.dataset, path): digest
        for one in stored.generations
        for path, digest in zip((one.reference, one.test), one.images_sha256, strict=True)
    }
    folders = {name: folder for name in {name for name, _ in judged} if (folder := _folder(root, name))}
    here = {folders[name] / path: digest for (name, path), digest in judged.items() if name in folders}
    if not here:
        return skipped(subject, "the datasets are not at hand")
    faults = [fault for path, digest in here.items() if (fault := _fault(path, digest))]
    return verdict(subject, faults, f"{len(here)} have the bytes that were judged")


def _folder(root: Path, dataset: str) -> Path | None:
    try:
        return find_dataset(root, dataset)
    except UserError:
        return None


def _fault(path: Path, digest: str) -> str:
    if not path.is_file():
        return f"{path} is missing"
    return "" if sha256(path) == digest else f"{path} is not the file that was judged"

"""Predictions that were stored elsewhere, taken over into a run: the 72B's row without the 72B.

    replay(load_profile("paper"), Path("data"), RunFolder("results/runs/paper"), 0, Path("large-seed0.jsonl"))

Only what answers the very same questions is taken: the run's own pairs, the same image bytes, the same size as
seen. The answers are read from the stored texts again.
"""

from pathlib import Path

from ladlib.config import Profile
from ladlib.data.images import sha256, view_size
from ladlib.errors import UserError
from ladlib.generations import Generations, holds
from ladlib.parsing import parse_answer
from ladlib.records import Generation, Pair
from ladlib.report.stored import read_records
from ladlib.runs import RunFolder


def replay(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, file: Path | str, *, arm: str = "large",
    limit: int | None = None,
) -> Path:  # fmt: skip
    """Take the records of ``arm`` in ``file`` (a generations jsonl) over into ``run``; the generations' file there.

    ``limit`` as in :func:`ladlib.evaluate.evaluate`; records of other pairs are left out. Raises
    :class:`UserError`, before anything is written, where a pair has no record or one of other images.
    """
    stored = _read(Path(file), arm)
    kept = Generations.open(profile, data_root, run, seed, arm=arm, inputs={"replay": sha256(file)}, limit=limit)
    absent = [one.id for one in kept.left if one.id not in stored]
    if absent:
        raise UserError(
            f"{file} lacks {len(absent)} of {len(kept.pairs)} pairs, first {absent[0]}.",
            "Give predictions for all pairs that this run judges.",
        )
    records = [_fitting(kept, one, stored[one.id], Path(file)) for one in kept.left]
    for record in records:
        kept.keep(record.model_copy(update={"seed": seed, "answer": parse_answer(record.text)}))
    if records:
        print(f"{arm}: {len(records)} stored answers taken over from {Path(file).name}")
    return kept.path


def _read(file: Path, arm: str) -> dict[str, Generation]:
    """The records of ``file`` by id."""
    if not file.is_file():
        raise UserError(f"There is no file {file}.", "Give a generations jsonl with stored predictions.")
    records = read_records(file)
    other = {one.arm for one in records} - {arm}
    if other:
        raise UserError(f"{file} holds answers of the arm {min(other)}, not of {arm}.", "Give the file of that arm.")
    found = {one.id: one for one in records}
    if len(found) < len(records):
        raise UserError(f"{file} answers {len(records) - len(found)} pairs twice.", "Keep one line for each pair.")
    return found


def _fitting(kept: Generations, one: Pair, record: Generation, file: Path) -> Generation:
    """``record``; raises :class:`UserError` where it is not of what this run would ask."""
    if not holds(record.model_dump(mode="json"), one, kept.folder):
        raise UserError(f"{file}: {one.id} was judged from other images.", "Give the datasets it was made from.")
    data = kept.profile.data
    paths = (kept.folder / path for path in (one.reference, one.test.image))
    sizes = tuple(view_size(path, data.min_pixels, data.max_pixels) for path in paths)
    if record.pixels != sizes:
        raise UserError(
            f"{file}: {one.id} was seen at {record.pixels}, this run sees it at {sizes}.",
            "Set data.min_pixels and max_pixels to those it was made with.",
        )
    if record.p_yes is None and not record.served:
        raise UserError(f"{file}: {one.id} says neither p_yes nor what served it.", "Name the model there as `served`.")
    return record

"""How far answers hang on what should not matter: some test pairs judged again, one thing changed at a time.

    vary(load_profile("toy"), Path("data"), run, seed=0, arm="sft_grpo", model=str(run.checkpoint("sft_grpo", 0)))

Greedy and batched as :mod:`ladlib.evaluate` does it, with transformers whatever the profile's engine. The answers
are stored; what follows from them is counted by :mod:`ladlib.report.varied` without a model.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ladlib import evaluate
from ladlib.conditions import REFERENCES, Condition, conditions, subsample
from ladlib.config import Profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.pairing import pair, ranked, training_normals
from ladlib.generations import Generations, holds, inputs_of, resume
from ladlib.progress import Progress
from ladlib.records import Pair, Variation
from ladlib.runs import RunFolder

Task = tuple[Condition, Pair]
Key = tuple[str, str, str]  # id, factor, level


def vary(profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, arm: str, model: str) -> Path | None:
    """Let ``model`` judge ``evaluate.sensitivity`` pairs under every condition; the file, or None where that is 0.

    Records that the same model made of the same images before are kept. Raises :class:`UserError` for data or a
    model that is not there.
    """
    if not profile.evaluate.sensitivity:
        return None
    folder, path = find_dataset(data_root, "mvtec_loco"), run.sensitivity(arm, seed)
    planned = tasks(profile, data_root)
    known = {_name(condition, one): one for condition, one in planned}
    inputs = evaluate.model_inputs(profile, model) | inputs_of(profile)
    inputs["conditions"] = [str(one) for one in dict.fromkeys(condition for condition, _ in planned)]
    kept = resume(path, inputs, lambda row: _key(row) in known and holds(row, known[_key(row)], folder))
    done = {_key(row) for row in kept}
    files = Generations(profile, arm, seed, path, folder, tuple(one for _, one in planned), ())
    progress = Progress(f"sensitivity of {arm}", "answer", len(planned), len(done))
    for number, record in enumerate(_judged(files, model, planned, done), len(done) + 1):
        files.keep(record)
        progress.tell(number, f"{record.factor} {record.level}".strip())
    return path


def tasks(profile: Profile, data_root: Path | str) -> list[Task]:
    """Every condition with every pair of the subsample, its reference image that of the condition.

    A category with few training normals lowers the number of other reference images for all, so that every pair
    is judged under the same conditions.
    """
    samples, seed = read_dataset(data_root, "mvtec_loco"), profile.data.reference_seed
    chosen, normals = subsample(pair(samples, seed), profile.evaluate.sensitivity), training_normals(samples)
    lines = [
        ranked(one.test.image, normals[one.test.dataset, one.test.category], seed, 1 + REFERENCES) for one in chosen
    ]
    fewest = min(map(len, lines), default=1)
    return [
        (condition, Pair(test=one.test, reference=line[condition.reference]))
        for condition in conditions(profile, fewest - 1)
        for one, line in zip(chosen, lines, strict=True)
    ]


def _judged(files: Generations, model: str, planned: Sequence[Task], done: Collection[Key]) -> Iterator[Variation]:
    """The records of ``planned`` that are not ``done``; tasks come by condition, and so by numeric type."""
    for dtype, of_dtype in groupby(planned, key=lambda task: task[0].dtype):
        of_type = list(of_dtype)
        if not all(_name(*task) in done for task in of_type):
            yield from _in(dtype, files, model, of_type, done)


def _in(
    dtype: str, files: Generations, model: str, planned: Iterable[Task], done: Collection[Key]
) -> Iterator[Variation]:
    """Those of one numeric type; the model is let go at the end, before it is loaded in another."""
    settings = files.profile.model.model_copy(update={"dtype": dtype})
    judge, processor = evaluate.load(files.profile.model_copy(update={"model": settings}), model)
    for condition, of_condition in groupby(planned, key=lambda task: task[0]):
        pairs = [one for _, one in of_condition]
        left = {one.id for one in pairs if _name(condition, one) not in done}
        for batch in evaluate.make_batches(pairs, left, files.folder, files.profile.data, condition.batch_size):
            answered = _answered(files, judge, processor, condition, batch)
            yield from (record for record in answered if record.id in left)


def _answered(files: Generations, judge, processor, condition: Condition, batch: Sequence[Pair]) -> Iterator[Variation]:
    start = time.perf_counter()
    views = [dict(zip(("reference", "test"), files.views(one), strict=True)) for one in batch]
    images = [[two[place] for place in condition.shown] for two in views]
    settings = files.profile.evaluate
    completions = evaluate.answer(
        judge, processor, images, settings.max_new_tokens, condition.question, shared_prefix=settings.shared_prefix
    )
    prompt = evaluate.render_prompt(processor, condition.question)
    seconds = (time.perf_counter() - start) / len(batch)
    changed = {"factor": condition.factor, "level": condition.level, "shown": condition.shown}
    for one, two, found in zip(batch, views, completions, strict=True):
        record = files.record(one, list(two.values()), prompt, found, seconds)
        yield Variation(**record.model_dump(), **changed)


def _name(condition: Condition, one: Pair) -> Key:
    return one.id, condition.factor, condition.level


def _key(row: dict) -> Key:
    return row["id"], row["factor"], row["level"]

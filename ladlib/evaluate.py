"""Evaluation: one greedy answer to every test pair of MVTec LOCO AD, one record for each, appended as it is made.

    evaluate(load_profile("toy"), Path("data"), RunFolder("results/runs/toy"), 0, arm="base", model="toy-base")

The answers come from a model on this machine, a server, or a file; pairs, images, records and the rules of resuming
are the same (:mod:`ladlib.generations`). The paper does not say how it decodes or which normal image stands beside a
test image: here decoding is greedy and the pairing is fixed. No torch at module level: a server needs none.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import yaml

from ladlib import launch, prompts
from ladlib.checksums import sha256
from ladlib.config import Profile, load_profile
from ladlib.data.images import view, view_size
from ladlib.errors import UserError
from ladlib.generations import Answers, Task, matches, plan
from ladlib.parsing import parse_answer
from ladlib.progress import Progress
from ladlib.records import Answer, Completion, Generation
from ladlib.runs import RunFolder, find, read_jsonl, write_text


@dataclass(frozen=True)
class Verdict:
    """What ``ladlib inspect`` says of one pair."""

    answer: Answer | None
    p_yes: float
    text: str
    seconds: float  # loading the model included


def inspect(reference: Path, test: Path, model: str = "", profile: str | Profile = "toy") -> Verdict:
    """The verdict on one image of any size and format. Raises :class:`UserError` for a bad image."""
    from ladlib import generate

    start, profile = time.perf_counter(), load_profile(profile) if isinstance(profile, str) else profile
    images = [view(Path(path), profile.data.min_pixels, profile.data.max_pixels) for path in (reference, test)]
    (found,) = generate.answer(*generate.load(profile, model), [images], profile.model.max_new_tokens)
    return Verdict(parse_answer(found.text), found.p_yes, found.text, time.perf_counter() - start)


def evaluate(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, arm: str, model: str = "",
    variant: str = "", stored: Path | str = "", endpoint: bool = False, limit: int | None = None,
) -> Path | None:  # fmt: skip
    """Judge the test pairs of MVTec LOCO AD below ``data_root``; the file of the records, which resumes.

    The answers are those of ``model`` (the profile's base where ""), of the profile's endpoint, or of ``stored``, a
    file of generations that must fit in every pair, image and size. ``limit`` test images for each category and kind
    of anomaly (the profile's where None; 0 = all). With ``variant`` (one of generations.VARIANTS, or "all") the file
    is ``run.sensitivity``, with evaluation's own answers to the same pairs; None where the profile wants none of it.
    Raises :class:`UserError` for data or a model that are not there, and as :class:`Answers`.
    """
    if variant and not profile.evaluate.variants:
        return None
    if endpoint and not profile.endpoint.url:
        raise UserError("The profile names no endpoint.", "Give its address as endpoint.url, or large_endpoint=URL.")
    path = run.sensitivity(arm, seed) if variant else run.generations(arm, seed)
    records, inputs = _read_stored(Path(stored), arm) if stored else {}, _inputs(profile, model, stored, endpoint)
    with _process_state().main_process_first() if _is_distributed() else nullcontext():
        answers = Answers(profile, data_root, path, arm, seed, plan(profile, data_root, variant, limit), inputs)
    if answers.pending and stored:
        _replay(answers, records, Path(stored))
    elif answers.pending and endpoint:
        _ask(answers, inputs["model"])
    elif answers.pending and not _is_distributed() and launch.count_processes(profile.parallel) > 1:
        # The same call in several processes, each with a copy of the model on a device of its own
        file, given = run.root / "profile.yaml", {"arm": arm, "model": model, "variant": variant, "limit": limit}
        write_text(file, yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False))
        where = [str(file), str(data_root), str(run.root), seed]
        launch.start("ladlib.evaluate", [json.dumps([where, given])], profile.parallel, "evaluation")
    elif answers.pending:
        _generate(answers, model)
    return path


def _inputs(profile: Profile, model: str, stored: Path | str, endpoint: bool) -> dict:
    """What every answer depends on beside the images."""
    values = {"question": prompts.QUESTION, "max_new_tokens": profile.model.max_new_tokens}
    values |= profile.data.model_dump(include={"min_pixels", "max_pixels"})
    if stored:
        return {"replay": sha256(find(Path(stored)))} | values
    if endpoint:
        named = profile.endpoint
        return {"model": named.model or profile.model.large, "label": named.label, "extra": named.extra} | values
    from ladlib.models import fingerprint

    return {"model": fingerprint(model or profile.model.base), "dtype": profile.model.dtype} | values


# A model on this machine


def _generate(answers: Answers, model: str) -> None:
    """Of several processes each answers some batches, and the first of them writes all."""
    from ladlib import generate

    rank, ranks, gather = 0, 1, list
    if _is_distributed():
        from accelerate.utils import gather_object as gather

        rank, ranks = _process_state().process_index, _process_state().num_processes
    batches, loaded = make_batches(answers), generate.load(answers.profile, model)
    pending, done = {task.key for task in answers.pending}, len(answers.tasks) - len(answers.pending)
    progress, rounds = Progress(answers.arm, "batch", len(batches)), -(-len(batches) // ranks)
    own = [*batches[rank::ranks], [], []][: rounds + 1]  # every process takes part in every gathering
    with ThreadPoolExecutor(1) as pool:  # opens the images of a batch while the one before it is answered
        upcoming = pool.submit(_open, answers, own[0])
        for number in range(rounds):
            images, upcoming = upcoming.result(), pool.submit(_open, answers, own[number + 1])
            for task, record in gather(_answer_batch(answers, *loaded, own[number], images)):
                if rank == 0 and task.key in pending:
                    answers.append(record)
                    done += 1
            progress.tell(min((number + 1) * ranks, len(batches)), f"{done} of {len(answers.tasks)} pairs")


def make_batches(answers: Answers) -> list[list[Task]]:
    """Batches of one variant whose images are of like size, so that little is padded: those with a pending task.

    Pairs with the same reference image stand together, so that :mod:`ladlib.fast.decode` reads it once. A batch is
    judged whole, whatever of it is pending: a numeric type with few digits lets an answer depend on its neighbours
    in the batch, and it must not depend on when a run was killed.
    """
    data, size, pending, batches = answers.profile.data, answers.profile.evaluate.batch_size, set(answers.pending), []

    def order(task: Task) -> tuple:
        paths = (answers.folder / path for path in (task.pair.reference, task.pair.test.image))
        return *(view_size(path, data.min_pixels, data.max_pixels) for path in paths), task.pair.reference, task.pair.id

    for _, of_variant in groupby(answers.tasks, key=lambda task: task.variant):
        ordered = sorted(of_variant, key=order)
        batches += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [batch for batch in batches if pending.intersection(batch)]


def _open(answers: Answers, batch: Sequence[Task]) -> list[list]:
    return [[answers.images(task)[name] for name in task.variant.shown] for task in batch]


def _answer_batch(answers: Answers, model, processor, batch, images) -> list[tuple[Task, Generation]]:
    from ladlib import generate

    if not batch:
        return []
    start, question, settings = time.perf_counter(), batch[0].variant.question, answers.profile.model
    completions = generate.answer(
        model, processor, images, settings.max_new_tokens, question, shared_prefix=settings.shared_prefix
    )
    prompt, seconds = generate.render_prompt(processor, question), (time.perf_counter() - start) / len(batch)
    pairs = zip(batch, completions, strict=True)
    return [(task, answers.record(task, prompt, completion, seconds)) for task, completion in pairs]


def _is_distributed() -> bool:
    """Whether this process is one of those that accelerate started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _process_state():
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


# A server


def _ask(answers: Answers, model: str) -> None:
    from ladlib import endpoint

    named, question = answers.profile.endpoint, prompts.QUESTION
    served = f"{model}, {named.label or 'quantisation and engine not stated'}"
    fields = {"model": model, "temperature": 0, "max_tokens": answers.profile.model.max_new_tokens}
    fields |= {"logprobs": True, "top_logprobs": endpoint.TOP_LOGPROBS} | named.extra
    if not fields["logprobs"]:
        del fields["top_logprobs"]

    def body(task: Task) -> dict:
        return fields | {"messages": [endpoint.message(question, list(answers.images(task).values()))]}

    def keep(task: Task, completion: Completion, seconds: float) -> None:
        answers.append(answers.record(task, question, completion, seconds, served))

    endpoint.ask_all(
        named, [endpoint.Request(task, task.pair.id, partial(body, task)) for task in answers.pending], keep,
        title=answers.arm, noun="pair", total=len(answers.tasks),
        unanswered=answers.path.with_suffix(".unanswered.jsonl"),
    )  # fmt: skip
    rows = read_jsonl(answers.path)
    print(f"{answers.arm}: {len(rows)} answers, {sum(row['refused'] for row in rows)} of them refusals")


# Stored answers


def _read_stored(file: Path, arm: str) -> dict[str, Generation]:
    """The records of ``file`` by id."""
    from ladlib.results import read_records

    if not find(file):
        raise UserError(f"There is no file {file}.", "Give a generations jsonl with stored predictions.")
    records = read_records(file)
    if other := {one.arm for one in records} - {arm}:
        raise UserError(f"{file} holds answers of the arm {min(other)}, not of {arm}.", "Give the file of that arm.")
    by_id = {one.id: one for one in records}
    if len(by_id) < len(records):
        raise UserError(f"{file} answers {len(records) - len(by_id)} pairs twice.", "Keep one line for each pair.")
    return by_id


def _replay(answers: Answers, records: Mapping[str, Generation], file: Path) -> None:
    """Take over answers to the very same questions: the run's pairs, the same bytes, the same size as seen."""
    if missing := [task.pair.id for task in answers.pending if task.pair.id not in records]:
        what = f"{file} lacks {len(missing)} of {len(answers.tasks)} pairs, first {missing[0]}."
        raise UserError(what, "Give predictions for all pairs that this run judges.")
    for task in answers.pending:
        _check(answers, task, records[task.pair.id], file)
    for task in answers.pending:
        record = records[task.pair.id]
        answers.append(record.model_copy(update={"seed": answers.seed, "answer": parse_answer(record.text)}))
    print(f"{answers.arm}: {len(answers.pending)} stored answers taken over from {file.name}")


def _check(answers: Answers, task: Task, record: Generation, file: Path) -> None:
    data, paths = answers.profile.data, (task.pair.reference, task.pair.test.image)
    if not matches(record.model_dump(mode="json"), task.pair, answers.folder):
        raise UserError(f"{file}: {record.id} was judged from other images.", "Give the datasets it was made from.")
    sizes = tuple(view_size(answers.folder / path, data.min_pixels, data.max_pixels) for path in paths)
    if record.pixels != sizes:
        what = f"{file}: {record.id} was seen at {record.pixels}, this run sees it at {sizes}."
        raise UserError(what, "Set data.min_pixels and max_pixels to those it was made with.")
    if record.p_yes is None and not record.served:
        what = f"{file}: {record.id} says neither p_yes nor what served it."
        raise UserError(what, "Name the model there as `served`.")


if __name__ == "__main__":  # as one of the processes that accelerate started
    (profile, data, folder, seed), given = json.loads(sys.argv[1])
    with launch.as_rank():
        evaluate(load_profile(profile), data, RunFolder(folder), seed, **given)

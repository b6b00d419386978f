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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import yaml
from PIL.Image import Image

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
    (completion,) = generate.answer(*generate.load(profile, model), [images], profile.model.max_new_tokens)
    seconds = time.perf_counter() - start
    return Verdict(parse_answer(completion.text), completion.p_yes, completion.text, seconds)


def answer(
    model, processor, images: Sequence[Sequence[Image]], profile: Profile, question: str = prompts.QUESTION
) -> list[Completion]:
    """Greedy answers to a batch of (reference image, test image), already resized, in the way that ``profile`` says."""
    from ladlib import generate
    from ladlib.fast import decode

    module = decode if profile.model.shared_prefix else generate
    return module.answer(model, processor, images, profile.model.max_new_tokens, question) if images else []


def evaluate(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, arm: str, model: str = "",
    variant: str = "", stored: Path | str = "", endpoint: bool = False, limit: int | None = None,
) -> Path | None:  # fmt: skip
    """Judge the test pairs of MVTec LOCO AD below ``data_root``; the file of the records, which resumes.

    The answers are those of ``model`` (the profile's base where ""), of the profile's endpoint, or of ``stored``, a
    file of generations that must fit in every pair, image and size. ``limit`` test images for each category and kind
    of anomaly (the profile's where None; 0 = all). With ``variant`` (of generations.FACTORS, or "all") the file
    is ``run.sensitivity``, with evaluation's own answers to the same pairs; None where the profile wants none of it.
    Raises :class:`UserError` for data or a model that are not there, and as :class:`Answers`.
    """
    if variant and not profile.evaluate.variants:
        return None
    if endpoint and not profile.endpoint.url:
        raise UserError("The profile names no endpoint.", "Give its address as endpoint.url, or large_endpoint=URL.")
    path = run.sensitivity(arm, seed) if variant else run.generations(arm, seed)
    records, inputs = _read_stored(Path(stored), arm) if stored else {}, _inputs(profile, model, stored, endpoint)
    answers = Answers(profile, data_root, path, arm, seed, plan(profile, data_root, variant, limit), inputs)
    if not answers.pending:
        return path
    if stored:
        _replay(answers, records, Path(stored))
    elif endpoint:
        _ask(answers, inputs["model"])
    elif _count_ranks() == 1 and launch.count_processes(profile.parallel) > 1:
        # The same call in several processes, each with a copy of the model on a device of its own
        file, given = run.profile, {"arm": arm, "model": model, "variant": variant, "limit": limit}
        write_text(file, yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False))
        where = [str(file), str(data_root), str(run.root), seed]
        launch.start("ladlib.evaluate", [json.dumps([where, given])], profile.parallel, "evaluation")
    else:
        _generate(answers, model)
    return path


def _inputs(profile: Profile, model: str, stored: Path | str, endpoint: bool) -> dict:
    """What every answer depends on beside the images."""
    values = {"question": prompts.QUESTION, "max_new_tokens": profile.model.max_new_tokens}
    values |= profile.data.model_dump(include={"min_pixels", "max_pixels"})
    if stored:
        return {"replay": sha256(find(Path(stored)))} | values
    if endpoint:
        server = profile.endpoint
        return {"model": server.model or profile.model.large, "label": server.label, "extra": server.extra} | values
    from ladlib.models import fingerprint

    return {"model": fingerprint(model or profile.model.base), "dtype": profile.model.dtype} | values


# A model on this machine


def _generate(answers: Answers, model: str) -> None:
    """Answer what is pending. Of several processes each answers some batches and appends its own records."""
    from ladlib import generate

    batches = make_batches(answers)[int(os.environ.get("RANK", "0")) :: _count_ranks()]
    if _count_ranks() > 1:
        import torch
        from accelerate import PartialState

        # All have read what is pending before one appends
        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
    loaded, pending = generate.load(answers.profile, model), {task.key for task in answers.pending}
    progress = Progress(answers.arm, "batch", len(batches))
    for number, batch in enumerate(batches, 1):
        start, question = time.perf_counter(), batch[0].variant.question
        images = [[answers.images(task)[name] for name in task.variant.shown] for task in batch]
        completions = answer(*loaded, images, answers.profile, question)
        prompt, seconds = generate.render_prompt(loaded[1], question), (time.perf_counter() - start) / len(batch)
        for task, completion in zip(batch, completions, strict=True):
            if task.key in pending:
                answers.append(answers.record(task, prompt, completion, seconds))
        progress.tell(number)


def _count_ranks() -> int:
    """How many processes accelerate started; 1 where it started none."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def make_batches(answers: Answers) -> list[list[Task]]:
    """Batches of one variant whose images are of like size, so that little is padded: those with a pending task.

    Pairs with the same reference image stand together, so that :mod:`ladlib.fast.decode` reads it once. A batch is
    judged whole, whatever of it is pending: a numeric type with few digits lets an answer depend on its neighbours
    in the batch, and it must not depend on when a run was killed.
    """
    size, pending, batches = answers.profile.evaluate.batch_size, set(answers.pending), []
    for _, group in groupby(answers.tasks, key=lambda task: task.variant):
        ordered = sorted(group, key=lambda task: (_view_sizes(answers, task), task.pair.reference, task.pair.id))
        batches += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [batch for batch in batches if pending.intersection(batch)]


def _view_sizes(answers: Answers, task: Task) -> tuple[tuple[int, int], ...]:
    """(width, height) of reference and test image as the model sees them."""
    paths, data = (task.pair.reference, task.pair.test.image), answers.profile.data
    return tuple(view_size(answers.folder / path, data.min_pixels, data.max_pixels) for path in paths)


# A server


def _ask(answers: Answers, model: str) -> None:
    from ladlib import endpoint
    from ladlib.response import whole_text

    server, question = answers.profile.endpoint, prompts.QUESTION
    served = f"{model}, {server.label or 'quantisation and engine not stated'}"
    fields = {"model": model, "temperature": 0, "max_tokens": answers.profile.model.max_new_tokens}
    fields |= {"logprobs": True, "top_logprobs": endpoint.TOP_LOGPROBS} | server.extra
    if not fields["logprobs"]:
        del fields["top_logprobs"]

    def body(task: Task) -> dict:
        return fields | {"messages": [endpoint.message(question, list(answers.images(task).values()))]}

    def keep(task: Task, completion: Completion, seconds: float) -> None:
        completion = replace(completion, text=whole_text(completion))
        answers.append(answers.record(task, question, completion, seconds, served))

    endpoint.ask_all(
        server, {task: task.pair.id for task in answers.pending}, body, keep,
        title=answers.arm, noun="pair", total=len(answers.tasks),
    )  # fmt: skip
    rows = read_jsonl(answers.path)
    refused, empty = sum(row["refused"] for row in rows), sum(not row["text"].strip() for row in rows)
    print(f"{answers.arm}: {len(rows)} answers, {refused} of them refusals" + f", {empty} without words" * bool(empty))


# Stored answers


def _read_stored(file: Path, arm: str) -> dict[str, Generation]:
    """The records of ``file`` by id."""
    from ladlib.results import read_records

    if not find(file):
        raise UserError(f"There is no file {file}.", "Give a generations jsonl with stored predictions.")
    records = read_records(file)
    if other := {record.arm for record in records} - {arm}:
        raise UserError(f"{file} holds answers of the arm {min(other)}, not of {arm}.", "Give the file of that arm.")
    by_id = {record.id: record for record in records}
    if len(by_id) < len(records):
        raise UserError(f"{file} answers {len(records) - len(by_id)} pairs twice.", "Keep one line for each pair.")
    return by_id


def _replay(answers: Answers, records: dict[str, Generation], file: Path) -> None:
    """Take over answers to the very same questions: the run's pairs, the same bytes, the same size as seen."""
    if missing := [task.pair.id for task in answers.pending if task.pair.id not in records]:
        what = f"{file} lacks {len(missing)} of {len(answers.tasks)} pairs, first {missing[0]}."
        raise UserError(what, "Give predictions for all pairs that this run judges.")
    chosen = [records[task.pair.id] for task in answers.pending]
    for task, record in zip(answers.pending, chosen, strict=True):
        problem = ""
        if not matches(record.model_dump(mode="json"), task.pair, answers.folder):
            problem = "was judged from other images"
        elif record.pixels != (sizes := _view_sizes(answers, task)):
            problem = f"was seen at {record.pixels}, this run sees it at {sizes}"
        elif record.p_yes is None and not record.served:
            problem = "says neither p_yes nor what served it"
        if problem:
            raise UserError(f"{file}: {record.id} {problem}.", "Give a file that was made with this run's settings.")
    for record in chosen:
        answers.append(record.model_copy(update={"seed": answers.seed, "answer": parse_answer(record.text)}))
    print(f"{answers.arm}: {len(chosen)} stored answers taken over from {file.name}")


if __name__ == "__main__":  # as one of the processes that accelerate started
    (profile, data, folder, seed), given = json.loads(sys.argv[1])
    with launch.as_rank():
        evaluate(load_profile(profile), data, RunFolder(folder), seed, **given)

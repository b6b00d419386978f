"""A file of conversations for stage 1: one JSON object a line, each with where its words come from.

    rows = by_template(make_conversations(load_profile("paper"), Path("data"), seed=0), Path("data"))
    write_written(Path("sft.jsonl"), rows)

``ladlib data sft`` builds one, from MMAD's annotations by rule or by a model behind an endpoint that is given them
as a prior (:mod:`ladlib.endpoint.writing`); ``data.sft_file`` of a profile trains on it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from ladlib.data import find_dataset
from ladlib.data.images import sha256
from ladlib.errors import UserError
from ladlib.records import Conversation, Pair, Prior, Written
from ladlib.runs import write_text

TEMPLATE = "template"  # the writer by rule


def by_template(conversations: Iterable[Conversation], root: Path | str) -> list[Written]:
    """The conversations as they were made from the annotations: the prior itself. ``root`` holds the datasets."""
    return [written(one, one.question, one.answer, TEMPLATE, "", image_hashes(one.pair, root)) for one in conversations]


def written(
    prior: Conversation, question: str, answer: str, writer: str, prompt_sha256: str, images_sha256: tuple[str, str]
) -> Written:
    """The record of what ``writer`` made of ``prior``."""
    return Written(
        pair=prior.pair, kind=prior.kind, question=question, answer=answer,
        id=_identifier(prior, question, answer), writer=writer,
        prior=Prior(question=prior.question, answer=prior.answer), prompt_sha256=prompt_sha256,
        images_sha256=images_sha256,
    )  # fmt: skip


def _identifier(prior: Conversation, question: str, answer: str) -> str:
    """Other words or images, another id: so a review never decides on what its reader did not see."""
    parts = [prior.pair.test.dataset, prior.pair.test.image, prior.pair.reference, prior.kind, question, answer]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def image_hashes(one: Pair, root: Path | str) -> tuple[str, str]:
    """SHA-256 of the files of reference and test image below ``root``."""
    folder = find_dataset(root, one.test.dataset)
    reference, test = (folder / path for path in (one.reference, one.test.image))
    return _sha256(reference, reference.stat().st_mtime_ns), _sha256(test, test.stat().st_mtime_ns)


@lru_cache(maxsize=8192)  # many conversations are about one image
def _sha256(path: Path, changed: int) -> str:
    return sha256(path)


def write_written(file: Path, rows: Sequence[Written]) -> list[Written]:
    """Write ``rows`` to ``file``, each id once; those written. Raises :class:`UserError` as :func:`refuse_other`."""
    refuse_other(file)
    once = list({one.id: one for one in rows}.values())
    write_text(file, "".join(f"{one.model_dump_json()}\n" for one in once))
    return once


def refuse_other(file: Path) -> None:
    """Raises :class:`UserError` where ``file`` is there and was not built by this module, so that it is not lost."""
    if file.is_dir():
        raise UserError(f"{file} is a folder.", "Name a file, such as sft.jsonl.")
    if file.is_file():
        try:
            read_written(file)
        except UserError as error:
            raise UserError(f"{file} is there and is no file of conversations.", "Name another file.") from error


def read_written(file: Path) -> list[Written]:
    """The rows of ``file`` in its order.

    Raises :class:`UserError` for a file that is not there, holds nothing, or has a line that is no such record; it
    is written as a whole, so there is no excuse for a torn line.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # splitlines() would cut at line ends inside a text
    except OSError as error:
        raise UserError(f"There is no file {file} to read.", "Build it with `ladlib data sft --out`.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text.", "Build it again with `ladlib data sft`.") from error
    rows = [_read(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UserError(f"{file} holds no conversation.", "Build it again with `ladlib data sft`.")
    return rows


def _read(file: Path, number: int, line: str) -> Written:
    try:
        return Written.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise UserError(
            f"{file}, line {number}: {field}: {first['msg']}.", "Build the file again with `ladlib data sft`."
        ) from error


def refuse_absent(rows: Sequence[Written], root: Path | str, file: Path) -> None:
    """Raises :class:`UserError` where images that ``rows`` of ``file`` are about are not below ``root``."""
    folders = {name: find_dataset(root, name) for name in {one.pair.test.dataset for one in rows}}
    images = {
        folders[one.pair.test.dataset] / path for one in rows for path in (one.pair.reference, one.pair.test.image)
    }
    absent = sorted(path for path in images if not path.is_file())
    if absent:
        raise UserError(
            f"{file} is about {len(images)} images, and {len(absent)} are not there, first {absent[0]}.",
            "Give the datasets that it was built from, or build it again.",
        )

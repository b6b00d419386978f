"""The file of conversations that stage 1 can be trained on: by rule or by a model behind an endpoint, then reviewed.

    rows = by_template(make_conversations(load_profile("paper"), Path("data"), seed=0))
    write_sft_file(Path("sft.jsonl"), apply_review(rows, Path("sft.review.csv")))

In the paper Gemini-2.0-Pro-Exp wrote them with MMAD's annotations as a prior, told to look beyond it and to merge both,
and people reviewed them (third-party summary); its prompts are unknown, these are ours. The prior is what the template
makes, and the writer sees the pixels that the trained model will see, so that it cannot describe more.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import ValidationError

from ladlib.config import Profile
from ladlib.data import find_dataset
from ladlib.data.pairing import pair_images
from ladlib.data.readers import read_rows
from ladlib.endpoint import Request, ask_all, message
from ladlib.errors import UserError, first_problem
from ladlib.generations import file_hashes
from ladlib.records import Completion, Conversation, Record, Written
from ladlib.runs import append_json, read_jsonl, write_text
from ladlib.sanitize import escape_csv
from ladlib.sft_data import ABOUT, CAPTION

MAX_TOKENS = 1024  # of a reply: a few sentences, and room for models that think before they write
# The prior comes before the task, so that the request is read last. "Do not contradict": the annotations are
# people's, and a writer that overrules them brings in its own mistakes.
LOOK = (
    "You write training data for a small vision-language model that learns to look at products closely. The first "
    "image shows a normal {product}. The second image is the one to write about. This is known about it:\n\n"
    "{prior}\n\n"
    "Take that as a hint. Look beyond it: at the parts in the second image, their number, place, colour and state, and "
    "at how they differ from the first image. Then merge what you see with what is known. Do not contradict what is "
    "known, do not say that you were told it, and write only what can be seen. "
)
FORM = {
    True: "Write a caption of the second image in two to four sentences. Reply with <answer>the caption</answer> and "
    "nothing else.",
    False: "Write one question about the second image that needs a close look, in the spirit of the one above, and its "
    "answer in one or two sentences. Reply with <question>the question</question><answer>the answer</answer> and "
    "nothing else.",
}  # by whether it is a caption
REPLY = re.compile(r"\s*(?:<question>(.*)</question>)?\s*<answer>(.*)</answer>\s*", re.DOTALL)
# A tag inside the text, or the start of a special token such as <|image_pad|>: the trained model would learn it.
MARKUP = re.compile(r"</?(?:question|answer|think)|<\|", re.IGNORECASE)


def by_template(conversations: Iterable[Conversation]) -> list[Written]:
    """The conversations as they were made from the annotations."""
    return [_written(conversation, "template") for conversation in conversations]


def _written(conversation: Conversation, writer: str, **words: str) -> Written:
    """``conversation`` with other ``words``. Other words or images give another id, which a review then refers to."""
    row = conversation.model_copy(update=words)
    parts = [row.pair.test.dataset, row.pair.test.image, row.pair.reference, row.kind, row.question, row.answer]
    return Written(**dict(row), writer=writer, id=_sha256(json.dumps(parts))[:16])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# The review


class Decision(Record):
    """A row of the table to review."""

    id: str
    decision: Literal["", "accept", "edit", "reject"]  # "": not reviewed
    question: str
    answer: str
    test: str  # the two images, for people
    reference: str


def write_review(file: Path, rows: Sequence[Written]) -> None:
    """Write a CSV table of ``rows`` with an empty column ``decision``."""
    cells = [(row.id, "", row.question, row.answer, row.pair.test.image, row.pair.reference) for row in rows]
    table = pd.DataFrame(cells, columns=list(Decision.model_fields)).map(escape_csv)
    table.to_csv(file, index=False, encoding="utf-8-sig")  # Excel recognises UTF-8 by the mark


def apply_review(rows: Sequence[Written], file: Path) -> list[Written]:
    """``rows`` without those that the table ``file`` rejects, and with the words of those that it edits.

    Raises :class:`UserError` where a row of the table has another decision, or an id that is not in ``rows``.
    """
    hint = "Save it as CSV with commas, in UTF-8, with the columns that `ladlib data sft` wrote."
    reviewed = {row.id: row for row in rows}
    for row in read_rows(file, Decision, hint):
        if not row.decision:
            continue
        if row.id not in reviewed:
            what = f"{file}: there is no conversation {row.id!r}, or its words or images are others now."
            raise UserError(what, "Take the row out.")
        words = {"question": _plain(row.question), "answer": _plain(row.answer)} if row.decision == "edit" else {}
        if not all(words.values()):
            raise UserError(f"{file}: {row.id!r} is edited to no words.", "Reject it instead.")
        reviewed[row.id] = reviewed[row.id].model_copy(update={"reviewed": row.decision} | words)
    return [row for row in reviewed.values() if row.reviewed != "reject"]


def _plain(cell: str) -> str:
    """An edited cell without the apostrophe of :func:`escape_csv`."""
    text = cell.strip().replace("\r\n", "\n")
    return text[1:] if text.startswith("'") and escape_csv(text[1:]) == text else text


# By an endpoint


class Reply(Record):
    """What is read of a line of the file of replies."""

    model_config = Record.model_config | {"extra": "ignore"}

    key: str  # hash of model, prompt, images and their size
    id: str  # of the pair; for people
    model: str
    text: str


def write(profile: Profile, root: Path | str, priors: Sequence[Conversation], replies: Path) -> list[Written]:
    """The conversations that ``profile.endpoint`` makes of ``priors``.

    Every reply is stored in the file ``replies`` under the hash of model, prompt, images and their size, and none is
    asked for twice. One that is not in the required form is left out and counted. Raises :class:`UserError` where no
    endpoint or model is named or some requests were not answered; what was answered is stored.
    """
    if not profile.endpoint.url or not profile.endpoint.model:
        raise UserError("No endpoint or no model is named to write.", "Give --endpoint URL and --model NAME.")
    by_key = {_key(prior, root, profile): prior for prior in priors}
    stored = _read_replies(replies)
    if pending := {key: prior for key, prior in by_key.items() if key not in stored}:
        _ask(pending, len(by_key), root, profile, replies)
        stored = _read_replies(replies)
    rows, failed = [], []
    for key, prior in by_key.items():
        if words := read_reply(stored[key].text, prior.question == CAPTION):
            rows.append(_written(prior, stored[key].model, question=words[0], answer=words[1]))
        else:
            failed.append(stored[key].id)
    if failed:
        print(f"sft data: {len(failed)} replies are not in the required form and are left out, first about {failed[0]}")
        print(f"To ask for them again, remove their lines from {replies}.")
    return rows


def prompt_of(prior: Conversation) -> str:
    """What the endpoint is sent with the two images."""
    is_caption = prior.question == CAPTION
    known = prior.answer if is_caption else f"Question: {prior.question}\nRight answer: {prior.answer}"
    return LOOK.format(product=prior.pair.test.category.replace("_", " "), prior=known) + FORM[is_caption]


def read_reply(text: str, caption: bool) -> tuple[str, str] | None:
    """(question, answer) of a reply in exactly the required form, else None.

    >>> read_reply("<answer>Three nuts.</answer>", caption=True)[1]
    'Three nuts.'
    >>> read_reply("Sure! <answer>Three nuts.</answer>", caption=True)
    """
    match = REPLY.fullmatch(text)
    question, answer = ((part or "").strip() for part in match.groups()) if match else ("", "")
    if not answer or bool(question) == caption or MARKUP.search(f"{question} {answer}"):
        return None
    return (CAPTION if caption else ABOUT.format(question=question)), answer


def _key(prior: Conversation, root: Path | str, profile: Profile) -> str:
    images, data = file_hashes(prior.pair, find_dataset(root, prior.pair.test.dataset)), profile.data
    return _sha256(json.dumps([profile.endpoint.model, prompt_of(prior), images, data.min_pixels, data.max_pixels]))


def _ask(pending: dict[str, Conversation], total: int, root: Path | str, profile: Profile, replies: Path) -> None:
    endpoint = profile.endpoint
    fixed = {"model": endpoint.model, "temperature": 0, "max_tokens": MAX_TOKENS} | endpoint.extra
    writer = ", ".join(filter(None, (endpoint.model, endpoint.label)))

    def body(prior: Conversation) -> dict:
        return fixed | {"messages": [message(prompt_of(prior), pair_images(prior.pair, root, profile.data))]}

    def keep(key: str, completion: Completion, seconds: float) -> None:
        row = {"key": key, "id": pending[key].pair.id, "model": writer, "seconds": seconds}
        append_json(replies, row | asdict(completion))

    requests = [Request(key, f"{row.pair.id} ({row.kind})", partial(body, row)) for key, row in pending.items()]
    unanswered = replies.with_suffix(".unanswered.jsonl")
    ask_all(endpoint, requests, keep, title="sft data", noun="conversation", total=total, unanswered=unanswered)


def _read_replies(file: Path) -> dict[str, Reply]:
    """Replies by key. A line that was cut off while being written is taken off the file."""
    rows = read_jsonl(file)
    try:
        replies = [Reply.model_validate(row) for row in rows]
    except ValidationError as error:
        hint = "Take the line out; only it is asked for again."
        raise UserError(f"{file} holds a line that is no reply: {first_problem(error)}.", hint) from error
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        write_text(file, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return {reply.key: reply for reply in replies}

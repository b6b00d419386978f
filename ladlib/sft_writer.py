"""The file of conversations that stage 1 can be trained on: by rule or by a model behind an endpoint, then reviewed.

    rows = by_template(make_conversations(load_profile("paper"), Path("data"), seed=0), Path("data"))
    write_sft_file(Path("sft.jsonl"), apply_review(rows, Path("sft.review.csv")))

In the paper Gemini-2.0-Pro-Exp wrote them with MMAD's annotations as a prior, told to look beyond it and to merge both,
and people reviewed them (third-party summary); its prompts are unknown, these are ours. The prior is what the template
makes, and the writer sees the pixels that the trained model will see, so that it cannot describe more.

Every reply is stored under the hash of model, prompt, images and their size, whatever it says; none is asked for
twice. One that is not in the required form is no conversation: it is left out and counted.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from ladlib.config import Profile
from ladlib.data.pairing import pair_images
from ladlib.endpoint import Request, ask_all, message
from ladlib.errors import UserError, read_text
from ladlib.leakage import image_hashes
from ladlib.records import Completion, Conversation, Finish, Prior, Record, Written
from ladlib.runs import append_json, write_text
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
    True: "Write a caption of the second image in two to four sentences. Reply with <caption>the caption</caption> and "
    "nothing else.",
    False: "Write one question about the second image that needs a close look, in the spirit of the one above, and its "
    "answer in one or two sentences. Reply with <question>the question</question><answer>the answer</answer> and "
    "nothing else.",
}  # by whether it is a caption
READ = {
    True: re.compile(r"\s*<caption>(?P<answer>.*)</caption>\s*", re.DOTALL),
    False: re.compile(r"\s*<question>(?P<question>.*)</question>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL),
}
# A tag inside the text, or the start of a special token such as <|image_pad|>: the trained model would learn it.
MARKUP = re.compile(r"</?(?:caption|question|answer|think)|<\|", re.IGNORECASE)


DECISIONS = ("", "accept", "edit", "reject")
COLUMNS = ("id", "decision", "question", "answer")


# The file


def by_template(conversations: Iterable[Conversation], root: Path | str) -> list[Written]:
    """The conversations as they were made from the annotations. ``root`` holds the datasets."""
    return [_written(row, row.question, row.answer, root, "template", prompt="") for row in conversations]


def _written(prior: Conversation, question: str, answer: str, root: Path | str, writer: str, prompt: str) -> Written:
    # Other words or images, another id: so a review never decides on what its reader did not see.
    parts = [prior.pair.test.dataset, prior.pair.test.image, prior.pair.reference, prior.kind, question, answer]
    return Written(
        pair=prior.pair,
        kind=prior.kind,
        question=question,
        answer=answer,
        writer=writer,
        id=_sha256(json.dumps(parts))[:16],
        prior=Prior(question=prior.question, answer=prior.answer),
        prompt_sha256=_sha256(prompt) if prompt else "",
        images_sha256=image_hashes(prior.pair, root),
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# The review


def write_review(file: Path, rows: Sequence[Written]) -> bool:
    """Write a CSV table of ``rows`` with an empty column ``decision``; False where ``file`` exists and stays."""
    if file.exists():
        return False
    cells = [(row.id, "", row.question, row.answer, row.pair.test.image, row.pair.reference) for row in rows]
    table = pd.DataFrame(cells, columns=[*COLUMNS, "test", "reference"]).map(escape_csv)
    table.to_csv(file, index=False, encoding="utf-8-sig")  # Excel recognises UTF-8 by the mark
    return True


def apply_review(rows: Sequence[Written], file: Path) -> list[Written]:
    """``rows`` without those that the table ``file`` rejects, and with the words of those that it edits.

    Raises :class:`UserError` with the id of a row whose decision cannot be applied.
    """
    known = {row.id: row for row in rows}
    decisions: dict[str, tuple[str, dict[str, str]]] = {}
    for cells in _read_review(file):
        key, decision = cells["id"].strip(), cells["decision"].strip().lower()
        words = {name: _without_escape(cells[name]) for name in ("question", "answer")}
        # A spreadsheet may have changed line ends, and spaces at the edges.
        is_same = key in known and all(
            text.split() == getattr(known[key], name).split() for name, text in words.items()
        )
        for is_wrong, problem in (
            (key not in known, "there is no such conversation; its words or images are others now"),
            (key in decisions, "it has a second decision"),
            (decision not in DECISIONS, f"{decision!r} is no decision, use one of {', '.join(DECISIONS[1:])}"),
            (decision == "edit" and not all(words.values()), "it is edited to no words"),
            (decision == "accept" and not is_same, "it is accepted with other words than were written"),
        ):
            if is_wrong:
                raise UserError(f"{file}, id {key!r}: {problem}.", "Correct the row, or take it out.")
        decisions[key] = decision, words
    updates = [(row, *decisions.get(row.id, ("", {}))) for row in rows]
    return [
        row.model_copy(update={"reviewed": decision} | (words if decision == "edit" else {}))
        for row, decision, words in updates
        if decision != "reject"
    ]


def _read_review(file: Path) -> list[dict[str, str]]:
    """The rows that hold anything, whatever the case of the columns' names."""
    text = read_text(file, "`ladlib data sft` writes it; save it as CSV in UTF-8.")
    try:
        table = pd.read_csv(io.StringIO(text.removeprefix("\ufeff")), dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:
        raise UserError(f"{file} is no CSV file: {error}.", "Save it as CSV in UTF-8.") from error
    table.columns = table.columns.str.strip().str.lower()
    if not {*COLUMNS} <= {*table.columns}:
        raise UserError(f"{file} lacks a column.", f"Save it with commas and the columns {', '.join(COLUMNS)}.")
    rows = table[list(COLUMNS)].fillna("").to_dict("records")
    return [row for row in rows if any(text.strip() for text in row.values())]


def _without_escape(text: str) -> str:
    plain = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    return plain[1:] if plain.startswith("'") and escape_csv(plain[1:]) == plain else plain


# By an endpoint


class Reply(Record):
    """What is read of a line of the file of replies, which also says how it was asked and how long that took."""

    model_config = Record.model_config | {"extra": "ignore"}

    key: str  # hash of model, prompt, images and their size
    id: str  # of the pair; for people
    model: str
    text: str
    finish: Finish
    refused: bool


def write(
    profile: Profile, root: Path | str, priors: Sequence[Conversation], replies: Path, *, again: bool = False
) -> list[Written]:
    """The conversations that ``profile.endpoint`` makes of ``priors``; each is asked for once and kept in ``replies``.

    With ``again``, those whose reply has another form are asked for once more. Raises :class:`UserError` where no
    endpoint or model is named or some requests were not answered; what was answered is stored.
    """
    if not profile.endpoint.url or not profile.endpoint.model:
        raise UserError("No endpoint or no model is named to write.", "Give --endpoint URL and --model NAME.")
    keys, stored = {_key(prior, root, profile): prior for prior in priors}, _stored(replies)

    def words(key: str) -> tuple[str, str] | None:
        return read_reply(stored[key].text, keys[key].question == CAPTION)

    pending = {key: prior for key, prior in keys.items() if key not in stored or (again and not words(key))}
    if pending:
        if done := len(keys) - len(pending):
            print(f"sft data: {done} of {len(keys)} conversations were written before", flush=True)
        _ask(pending, len(keys), root, profile, replies)
        stored = _stored(replies)
    if failed := [stored[key] for key in keys if not words(key)]:
        truncated, refused = sum(reply.finish == "length" for reply in failed), sum(reply.refused for reply in failed)
        print(
            f"sft data: {len(failed)} replies are not in the required form ({truncated} truncated, {refused} refusals) "
            f"and are left out, first about {failed[0].id}; they stay in {replies}, and --ask-again asks once more"
        )
    return [
        _written(prior, *words(key), root, stored[key].model, prompt_of(prior))
        for key, prior in keys.items()
        if words(key)
    ]


def prompt_of(prior: Conversation) -> str:
    """What the endpoint is sent with the two images."""
    is_caption = prior.question == CAPTION
    known = prior.answer if is_caption else f"Question: {prior.question}\nRight answer: {prior.answer}"
    return LOOK.format(product=prior.pair.test.category.replace("_", " "), prior=known) + FORM[is_caption]


def read_reply(text: str, caption: bool) -> tuple[str, str] | None:
    """(question, answer) of a reply in exactly the required form, else None.

    >>> read_reply("<caption>Three nuts.</caption>", caption=True)[1]
    'Three nuts.'
    >>> read_reply("Sure! <caption>Three nuts.</caption>", caption=True)
    """
    match = READ[caption].fullmatch(text)
    words = {name: part.strip() for name, part in match.groupdict().items()} if match else {}
    if not words or any(not part or MARKUP.search(part) for part in words.values()):
        return None
    return (CAPTION if caption else ABOUT.format(question=words["question"])), words["answer"]


def _key(prior: Conversation, root: Path | str, profile: Profile) -> str:
    images, data = image_hashes(prior.pair, root), profile.data
    return _sha256(json.dumps([profile.endpoint.model, prompt_of(prior), images, data.min_pixels, data.max_pixels]))


def _ask(pending: dict[str, Conversation], total: int, root: Path | str, profile: Profile, replies: Path) -> None:
    endpoint = profile.endpoint
    fixed = {"model": endpoint.model, "temperature": 0, "max_tokens": MAX_TOKENS} | endpoint.extra

    def body(prior: Conversation) -> dict:
        return fixed | {"messages": [message(prompt_of(prior), pair_images(prior.pair, root, profile.data))]}

    def keep(key: str, completion: Completion, seconds: float) -> None:
        pair, answer = pending[key].pair, asdict(completion)
        del answer["p_yes"]
        row = {
            "key": key,
            "id": pair.id,
            "model": ", ".join(filter(None, (endpoint.model, endpoint.label))),
            "prompt_sha256": _sha256(prompt_of(pending[key])),
            "images_sha256": image_hashes(pair, root),
            "seconds": seconds,
        }
        append_json(replies, row | answer)

    requests = [Request(key, f"{row.pair.id} ({row.kind})", partial(body, row)) for key, row in pending.items()]
    unanswered = replies.with_suffix(".unanswered.jsonl")
    ask_all(endpoint, requests, keep, title="sft data", noun="conversation", total=total, unanswered=unanswered)


def _stored(replies: Path) -> dict[str, Reply]:
    """Replies by key, a later line before an earlier one. A torn last line is taken off the file."""
    if not replies.exists():
        return {}
    text = read_text(replies, "Move it elsewhere; its replies are then asked for again.")
    *lines, torn = text.split("\n")
    stored = {}
    for number, line in enumerate(lines, 1):
        try:
            reply = Reply.model_validate_json(line)
        except ValidationError as error:
            hint = "Take the line out; only it is asked for again."
            raise UserError(f"{replies}, line {number} is no reply of an endpoint.", hint) from error
        stored[reply.key] = reply
    if torn:
        write_text(replies, text.removesuffix(torn))  # else the next reply would be appended to half of one
    return stored

"""Conversations of stage 1 written by a model behind an endpoint.

    write(profile, Path("data"), make_conversations(profile, Path("data"), seed=0), Path("sft-replies.jsonl"))

In the paper Gemini-2.0-Pro-Exp wrote them with MMAD's annotations as a prior, told to look beyond it and to merge both,
and people reviewed them (third-party summary); its prompts are unknown, these are ours. The prior is what the template
makes, and the writer sees the pixels that the trained model will see, so that it cannot describe more.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ladlib.checksums import sha256
from ladlib.config import Profile
from ladlib.data import find_dataset
from ladlib.data.pairing import pair_images
from ladlib.endpoint import ask_all, message
from ladlib.errors import UserError
from ladlib.records import Completion, Conversation
from ladlib.runs import append_json, read_jsonl, write_text
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


def write(profile: Profile, root: Path | str, priors: Sequence[Conversation], replies: Path) -> list[Conversation]:
    """The conversations that ``profile.endpoint`` makes of ``priors``.

    Every reply is stored in the file ``replies`` under the hash of model, prompt, images and their size, and none is
    asked for twice. One that is not in the required form is left out and counted. Raises :class:`UserError` where
    some requests were not answered; what was answered is stored.
    """
    by_key = {_key(prior, root, profile): prior for prior in priors}
    stored = _read_replies(replies)
    if pending := {key: prior for key, prior in by_key.items() if key not in stored}:
        _ask(pending, len(by_key), root, profile, replies)
        stored = _read_replies(replies)
    conversations, failed = [], []
    for key, prior in by_key.items():
        if words := read_reply(stored[key], prior.question == CAPTION):
            conversations.append(prior.model_copy(update={"question": words[0], "answer": words[1]}))
        else:
            failed.append(prior.pair.id)
    if failed:
        print(f"sft data: {len(failed)} replies are not in the required form and are left out, first about {failed[0]}")
        print(f"To ask for them again, remove their lines from {replies}.")
    return conversations


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
    folder, data = find_dataset(root, prior.pair.test.dataset), profile.data
    images = [sha256(folder / prior.pair.reference), sha256(folder / prior.pair.test.image)]
    parts = [profile.endpoint.model, prompt_of(prior), images, data.min_pixels, data.max_pixels]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _ask(pending: dict[str, Conversation], total: int, root: Path | str, profile: Profile, replies: Path) -> None:
    endpoint = profile.endpoint
    fixed = {"model": endpoint.model, "temperature": 0, "max_tokens": MAX_TOKENS} | endpoint.extra

    def body(key: str) -> dict:
        prior = pending[key]
        return fixed | {"messages": [message(prompt_of(prior), pair_images(prior.pair, root, profile.data))]}

    def keep(key: str, completion: Completion, seconds: float) -> None:
        row = {"key": key, "id": pending[key].pair.id, "model": endpoint.model, "seconds": seconds}
        append_json(replies, row | asdict(completion) | {"text": completion.text or completion.reasoning})

    names = {key: f"{prior.pair.id} ({prior.kind})" for key, prior in pending.items()}
    ask_all(endpoint, names, body, keep, title="sft data", noun="conversation", total=total)


def _read_replies(file: Path) -> dict[str, str]:
    """The texts by key. A line that was cut off while being written is taken off the file."""
    rows = read_jsonl(file)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("key"), str) or not isinstance(row.get("text"), str):
            raise UserError(f"{file}, line {number} is no reply.", "Take the line out; only it is asked for again.")
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        write_text(file, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return {row["key"]: row["text"] for row in rows}

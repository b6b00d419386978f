"""Captions and questions for stage 1 written by a model behind an endpoint, with the annotations as a prior.

    profile = load_profile("paper", **{"endpoint.url": "http://localhost:8000/v1", "endpoint.model": "gemma-3-27b"})
    rows = write(profile, Path("data"), make_conversations(profile, Path("data"), seed=0), Path("replies.jsonl"))

The paper had Gemini-2.0-Pro-Exp write them, told to look beyond the prior and to merge both (third-party summary);
its wording is unknown, and the prompts here are ours. Other departures: the prior is the conversation that the
template makes, and the writer sees the pixels that the trained model will see, so that it cannot describe more.

Every reply is kept in the file of replies under the hash of model, prompt, images and their size, whatever it says;
none is asked for twice. One that is not in the form asked for is no conversation: it is left out and counted.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from ladlib.config import Endpoint, Profile
from ladlib.conversations import ABOUT, CAPTION, pair_images
from ladlib.data import find_dataset
from ladlib.endpoint import estimate
from ladlib.endpoint.asking import Asking, Work, message
from ladlib.endpoint.client import Client
from ladlib.errors import UserError
from ladlib.records import Conversation, Record, Written
from ladlib.runs import append_json, write_text
from ladlib.sft_file import image_hashes, written

TITLE = "sft data"
MAX_TOKENS = 1024  # of a reply: a few sentences, and room for models that think before they write

# The prior comes before the task, so that what is asked for is read last. "Do not contradict": the annotations are
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
# A tag inside the words, or the start of a special token such as <|image_pad|>: the trained model would learn it.
MARKUP = re.compile(r"</?(?:caption|question|answer|think)|<\|", re.IGNORECASE)


class Reply(Record):
    """A line of the file of replies."""

    key: str  # hash of model, prompt, images and their size
    id: str  # of the pair; for people
    model: str
    prompt_sha256: str
    images_sha256: tuple[str, str]
    text: str
    finish: str
    refused: bool
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True)
class Order:
    """A prior, and what the endpoint is asked about it."""

    prior: Conversation
    prompt: str
    images_sha256: tuple[str, str]
    key: str

    @property
    def prompt_sha256(self) -> str:
        return hashlib.sha256(self.prompt.encode()).hexdigest()


def write(
    profile: Profile, root: Path | str, priors: Sequence[Conversation], replies: Path, *,
    max_tokens: int = MAX_TOKENS, again: bool = False,
) -> list[Written]:  # fmt: skip
    """What the profile's endpoint makes of ``priors``, in their order, without those it wrote no readable words to.

    ``root`` holds the datasets, ``replies`` is the file of replies: those that are in it are not asked for, but with
    ``again`` the ones that could not be read. Prints requests, tokens and cost before the first request. Raises
    :class:`UserError` where no endpoint or model is named, where no request can be answered, and where at the end
    some were not; what was answered is kept.
    """
    named = profile.endpoint
    if not named.url or not named.model:
        raise UserError("No endpoint or no model is named to write.", "Give --endpoint URL and --model NAME.")
    orders = [_order(one, root, profile) for one in priors]
    wanted = {one.key: one for one in orders}
    kept = _kept(replies)
    left = [one for key, one in wanted.items() if key not in kept or (again and not _written(one, kept[key]))]
    if left:
        with closing(Client(named)) as client:
            print(_announced(left, root, profile, max_tokens, len(wanted)), flush=True)
            Asking(_work(left, len(wanted), root, profile, replies, max_tokens, client), client).all()
        kept = _kept(replies)
    print(estimate.summary(TITLE, named, [kept[key].model_dump() for key in wanted]))
    _tell_left_out([kept[key] for key, one in wanted.items() if not _written(one, kept[key])], replies)
    return [row for one in orders if (row := _written(one, kept[one.key]))]


def prompt_of(prior: Conversation) -> str:
    """What the endpoint is told beside the two images."""
    known = prior.answer if _is_caption(prior) else f"Question: {prior.question}\nRight answer: {prior.answer}"
    product = prior.pair.test.category.replace("_", " ")
    return LOOK.format(product=product, prior=known) + FORM[_is_caption(prior)]


def _is_caption(prior: Conversation) -> bool:
    return prior.question == CAPTION


def read_reply(text: str, caption: bool) -> tuple[str, str] | None:
    """(question, answer) of a reply in exactly the form asked for, else None.

    >>> read_reply("<caption>Three nuts.</caption>", caption=True)[1]
    'Three nuts.'
    >>> read_reply("Sure! <caption>Three nuts.</caption>", caption=True)
    """
    found = READ[caption].fullmatch(text)
    words = {name: part.strip() for name, part in found.groupdict().items()} if found else {}
    if not words or any(not part or MARKUP.search(part) for part in words.values()):
        return None
    return (CAPTION if caption else ABOUT.format(question=words["question"])), words["answer"]


def _order(prior: Conversation, root: Path | str, profile: Profile) -> Order:
    prompt, images = prompt_of(prior), image_hashes(prior.pair, root)
    seen = [profile.endpoint.model, prompt, images, profile.data.min_pixels, profile.data.max_pixels]
    return Order(prior, prompt, images, hashlib.sha256(json.dumps(seen).encode()).hexdigest())


def _written(order: Order, reply: Reply) -> Written | None:
    words = read_reply(reply.text, _is_caption(order.prior))
    return written(order.prior, *words, reply.model, order.prompt_sha256, order.images_sha256) if words else None


def _announced(left: Sequence[Order], root: Path | str, profile: Profile, max_tokens: int, total: int) -> str:
    pairs = [(one.prior.pair, find_dataset(root, one.prior.pair.test.dataset)) for one in left]
    tokens_in = estimate.input_tokens(pairs, [one.prompt for one in left], profile.data)
    tokens_out, served = len(left) * max_tokens, _served(profile.endpoint)
    told = estimate.announce(TITLE, profile.endpoint, served, len(left), tokens_in, tokens_out)
    before = total - len(left)
    return (f"{TITLE}: {before} of {total} conversations were written before\n" if before else "") + told


def _served(endpoint: Endpoint) -> str:
    return ", ".join(filter(None, (endpoint.model, endpoint.label)))


def _work(
    left: Sequence[Order], total: int, root: Path | str, profile: Profile, replies: Path, max_tokens: int,
    client: Client,
) -> Work[Order, Reply]:  # fmt: skip
    fixed = {"model": profile.endpoint.model, "temperature": 0, "max_tokens": max_tokens} | profile.endpoint.extra

    def ask(one: Order) -> Reply:
        images = pair_images(one.prior.pair, root, profile.data)
        found, seconds = client.ask(fixed | {"messages": [message(one.prompt, images)]})
        values = {name: value for name, value in asdict(found).items() if name != "p_yes"}
        return Reply(
            key=one.key, id=one.prior.pair.id, model=_served(profile.endpoint), prompt_sha256=one.prompt_sha256,
            images_sha256=one.images_sha256, seconds=seconds, **values,
        )  # fmt: skip

    return Work(
        title=TITLE, noun="conversation", total=total, left=left,
        name=lambda one: f"{one.prior.pair.id} ({one.prior.kind})", ask=ask,
        keep=lambda reply: append_json(replies, reply.model_dump(mode="json")),
        unanswered=replies.with_suffix(".unanswered.jsonl"),
    )  # fmt: skip


def _kept(replies: Path) -> dict[str, Reply]:
    """Replies by key, a later line before an earlier one. A line cut off while being written is taken off the file."""
    if not replies.exists():
        return {}
    try:
        text = replies.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{replies} is no text.", "Move it elsewhere; its replies are then asked for again.") from error
    whole = text[: text.rfind("\n") + 1]
    found = [_reply(replies, number, line) for number, line in enumerate(whole.split("\n"), 1) if line]
    if whole != text:
        write_text(replies, whole)  # else the next reply would be appended to half of one
    return {one.key: one for one in found}


def _reply(replies: Path, number: int, line: str) -> Reply:
    try:
        return Reply.model_validate_json(line)
    except ValidationError as error:
        raise UserError(
            f"{replies}, line {number} is no reply of an endpoint.", "Take the line out; only it is asked for again."
        ) from error


def _tell_left_out(unread: Sequence[Reply], file: Path) -> None:
    if unread:
        cut, refused = sum(one.finish == "length" for one in unread), sum(one.refused for one in unread)
        print(
            f"{TITLE}: {len(unread)} replies are not in the form asked for ({cut} cut off at the limit of tokens, "
            f"{refused} refusals) and are left out, first about {unread[0].id}; they are kept in {file}, and "
            "--ask-again asks for them once more"
        )

"""Answers from an OpenAI-compatible chat-completions server, for the large model that few can load. No torch.

    ask_all(profile.endpoint, {task: task.pair.id for task in tasks}, body, keep, title="large", noun="pair", total=99)

A request shows the words and, as PNG, exactly the pixels that every other arm sees. The chat template and settings
from the model's repository lie with the server (vLLM: ``--generation-config vllm`` keeps Qwen's repetition penalty
out of greedy decoding); quantisation and engine change answers, so the row in every table names them.

The openai client sends and receives. Here is what it does not do: a deadline for the whole response, another attempt
after a body that is no chat completion, a stop where the account is empty, and the key struck out of what servers say.
"""

import asyncio
import base64
import os
import random
import re
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from urllib.parse import urlsplit

from httpx2 import InvalidURL
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, Omit, Timeout
from PIL import Image

from ladlib.config import Endpoint
from ladlib.errors import UserError
from ladlib.progress import Progress
from ladlib.prompts import Message, user_message
from ladlib.records import Completion
from ladlib.response import Misfit, parse_response
from ladlib.sanitize import escape_terminal

KEYS = ("LADLIB_API_KEY", "OPENAI_API_KEY")  # environment variables, the first that is set
PLACEHOLDER = 8  # characters: a shorter key, such as vLLM's "EMPTY", is none, and may well be a word of an answer
ATTEMPTS = 8  # at one request: about a minute of pauses
PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds: the most before the second attempt, and before any
PATIENCE = 900.0  # seconds: asked to wait longer, the run stops instead
TOP_LOGPROBS = 20  # alternatives listed for each token, for P(yes)
TIMEOUT, CONNECT = 120.0, 15.0  # seconds: for a whole response, and for a connection
IN_A_ROW = 10  # failed requests: then the endpoint is at fault, and no further one is sent
UNREAD = 5  # responses that cannot be read, before the first that can: the same
SHORT = 200  # characters of what a server says that an error repeats
BUSY = frozenset({408, 409, 425, 429})  # and everything from 500
HINTS = {
    300: "Give the address it leads to, if it is right.",
    401: f"Set the key in the environment, as {KEYS[0]}.",
    402: "Top up the account, then run again.",
    403: f"Check that the key in {KEYS[0]} may use this model.",
    404: "Check endpoint.url, up to its version (…/v1), and endpoint.model.",
}  # statuses after which no request would be answered


class RequestFailed(Exception):
    """A request that this endpoint does not answer; ``str`` of it says why."""


class Busy(RequestFailed):
    """A request that another attempt may bring an answer to."""


Item = Hashable
Body = Callable[[Item], dict]  # makes the request about an item when its turn comes: images in base64 are large
Keep = Callable[[Item, Completion, float], None]  # takes an item, its answer, and the seconds of the request


def ask_all(
    settings: Endpoint, items: Mapping[Item, str], body: Body, keep: Keep, *, title: str, noun: str, total: int
) -> None:
    """Ask about ``items``, which have names, several at a time; ``keep`` takes each answer as it comes, one at a time.

    ``total`` counts the items that were answered before, too. Raises :class:`UserError` where no request can be
    answered, and where at the end some were not, each of which was printed. What was answered has been kept in any
    case.
    """
    batch = BatchRequests(settings, body, keep, Progress(title, noun, total, total - len(items)))
    server = f"{urlsplit(settings.url).netloc}; {settings.concurrency} at a time"
    print(f"{title}: {len(items)} requests to {server}, {f'key from {batch.key_name}' if batch.key else 'no key'}")
    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has an event loop already
            future = pool.submit(asyncio.run, batch.run(items))
            try:
                future.result()
            finally:
                batch.is_stopped = True  # those under way end, and keep what they are given
        if batch.failed:
            what = f"{title}: {len(batch.failed)} of {total} {noun}s have no answer, first {batch.failed[0]}."
            raise UserError(what, "Each is named above with its reason; run again to ask for these alone.")
    except UserError as error:
        what = f"{error.what} {batch.answered} of {total} {noun}s are answered and kept."
        raise UserError(what, error.hint) from None


class BatchRequests:
    """One call's requests. One thread does all of it, so no two answers are counted or kept at the same time."""

    def __init__(self, settings: Endpoint, body: Body, keep: Keep, progress: Progress) -> None:
        self.settings, self.body, self.keep, self.progress = settings, body, keep, progress
        self.key_name, self.key = find_key()
        self.failed: list[str] = []  # "name: reason"
        self.answered, self.in_a_row, self.unread = progress.begun, 0, 0
        self.spellings = spellings(self.key) if len(self.key) >= PLACEHOLDER else None
        self.resume_at = 0.0  # on the clock of time.monotonic; nothing is sent before
        self.is_stopped = False

    async def run(self, items: Mapping[Item, str]) -> None:
        """Ask about all. Raises :class:`UserError` where the endpoint itself is at fault."""
        try:
            http = DefaultAsyncHttpxClient(follow_redirects=False)
        except (ValueError, InvalidURL, ImportError) as error:  # ImportError: a proxy of a kind that is not installed
            what = f"The proxy that the environment names cannot be used: {error}."
            raise UserError(what, "Correct or unset HTTP_PROXY, HTTPS_PROXY and ALL_PROXY.") from None
        async with AsyncOpenAI(
            base_url=self.settings.url, api_key=self.key or "none", max_retries=0,
            timeout=Timeout(TIMEOUT, connect=CONNECT), http_client=http,
        ) as self.client:  # fmt: skip
            pending = iter(items.items())
            workers = [self._work(pending) for _ in range(self.settings.concurrency)]
            for error in filter(None, await asyncio.gather(*workers, return_exceptions=True)):
                raise error

    async def _work(self, pending: Iterator[tuple[Item, str]]) -> None:
        """Take items until none are left or the run is stopped."""
        try:
            for item, name in pending:
                try:
                    if not (answer := await self._ask(self.body(item))):
                        return
                    self.keep(item, *answer)
                    self.answered, self.in_a_row = self.answered + 1, 0
                except RequestFailed as error:
                    self._record_failure(name, str(error))
                self.progress.tell(self.answered + len(self.failed))
        except BaseException:  # whatever it is ends the other workers too, and is raised again
            self.is_stopped = True
            raise

    def _record_failure(self, name: str, reason: str) -> None:
        self.failed.append(f"{name}: {reason}")
        print(f"{self.progress.title}: no answer about {name}: {reason}", flush=True)
        self.in_a_row += 1
        if self.in_a_row == IN_A_ROW:
            what = f"{self.settings.url} left {IN_A_ROW} {self.progress.unit}s in a row without an answer: {reason}."
            raise UserError(what, "Fix the endpoint or its settings and run again: answers are not asked for twice.")

    async def _ask(self, body: dict) -> tuple[Completion, float] | None:
        """The answer and the seconds that its own request took, after as many attempts as needed; None once stopped.

        Pauses double and are drawn at random ("full jitter": Brooker, "Exponential backoff and jitter", AWS 2015).
        """
        pause = 0.0
        for attempt in range(ATTEMPTS):
            until = time.monotonic() + random.uniform(0, pause)
            while not self.is_stopped and (rest := max(until, self.resume_at) - time.monotonic()) > 0:
                await asyncio.sleep(min(rest, 0.2))
            if self.is_stopped:
                return None
            try:
                start = time.perf_counter()
                return await self._ask_once(body), time.perf_counter() - start
            except Busy as error:
                reason, pause = str(error), min(LONGEST_PAUSE, PAUSE * 2**attempt)
        raise RequestFailed(reason)

    async def _ask_once(self, body: dict) -> Completion:
        given = ("model", "messages")  # to the client by name; a null of endpoint.extra takes a field out
        fields = {name: value for name, value in body.items() if name not in given and value is not None}
        headers, rejected = None if self.key else {"Authorization": Omit()}, None
        try:
            async with asyncio.timeout(TIMEOUT):  # the client's own limit is between two bytes
                response = await self.client.chat.completions.with_raw_response.create(
                    model=body["model"], messages=body["messages"], extra_body=fields, extra_headers=headers
                )
        except TimeoutError:
            raise Busy(f"the response is not whole within {TIMEOUT:g} s") from None
        except APIStatusError as error:
            rejected = error  # read below: an error raised here would carry this one, which repeats what servers say
        except APIConnectionError as error:
            kind, text = type(error.__cause__ or error).__name__, self._redact(str(error.__cause__ or error))
            if kind == "ConnectError" and self.answered == self.progress.begun:  # later, a server may come back
                what = f"{self.settings.url} cannot be reached: {text}."
                raise UserError(what, "Start the server, or correct the address.") from None
            raise Busy(f"{kind}: {text}".rstrip(": ")) from None
        if rejected:
            return self._rejected(rejected)
        text = self._redact(response.text)
        try:
            completion = parse_response(text)
        except ValueError as error:
            self.unread, reason = self.unread + 1, f"the response {error}: {shorten(text)}"
            if self.unread < UNREAD or self.answered > self.progress.begun:
                raise (RequestFailed if isinstance(error, Misfit) else Busy)(reason) from None
            what = f"{self.settings.url} sent {UNREAD} responses and none that can be read: {reason}."
            raise UserError(what, "Fix the endpoint, endpoint.model or endpoint.extra, and run again.") from None
        words = {name: self._redact(getattr(completion, name)) for name in ("text", "reasoning")}
        return replace(completion, **words)  # again: JSON may spell it in escapes

    def _rejected(self, error: APIStatusError) -> Completion:
        """What a status of 300 or more means; a prompt that was turned away before the model saw it is a refusal."""
        status, body = error.status_code, error.body
        code, message = (body.get("code"), body.get("message")) if isinstance(body, dict) else ("", body)
        message = self._redact(str(message or "").encode(errors="replace").decode())
        text = f"HTTP {status}: {shorten(message)}"
        if code == "content_filter":
            return Completion(message, "stop", p_yes=None, prompt_tokens=0, completion_tokens=0, refused=True)
        if code == "insufficient_quota":
            status = 402
        elif status < 400:
            status = 300  # every redirect alike
        if status in HINTS:
            raise UserError(f"{self.settings.url}: {text}.", HINTS[status])
        if status not in BUSY and status < 500:
            raise RequestFailed(text)
        wait = error.response.headers.get("Retry-After", "")  # RFC 9110, 10.2.3; a date is left to the pauses
        seconds = float(wait) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", wait) else 0.0
        if seconds > PATIENCE:
            what = f"{self.settings.url} asks to wait {seconds / 60:.0f} minutes."
            raise UserError(what, "Run again after that time.")
        self.resume_at = max(self.resume_at, time.monotonic() + seconds)  # holds every request back
        raise Busy(text)

    def _redact(self, text: str) -> str:
        return self.spellings.sub("[key]", text) if self.spellings else text


def find_key() -> tuple[str, str]:
    """The variable that holds the key, and the key; ("", "") where none is set.

    Raises :class:`UserError`, without the key, for what cannot be one.
    """
    found = {name: os.environ.get(name, "").strip() for name in KEYS}
    name, value = next(((name, value) for name, value in found.items() if value), ("", ""))
    if not all("!" <= letter <= "~" for letter in value):
        raise UserError(f"{name} holds characters that no key has.", "Set it without quotes or line ends.")
    return name, value


def spellings(key: str) -> re.Pattern:
    """``key`` in either case, in the escapes of addresses, HTML and JSON, and split by white space."""
    escaped = r"(?:\\?{0}|%{1:02x}|&#0*{1};?|&#x0*{1:x};?|\\(?:u00|x){1:02x})"
    letters = (escaped.format(re.escape(letter), ord(letter)) for letter in key)
    return re.compile(r"(?:\s|\\[nrt])*".join(letters), re.IGNORECASE)


def shorten(text: str) -> str:
    """The beginning of what a server said, as one line that steers no terminal."""
    return escape_terminal(text[: 4 * SHORT])[:SHORT]


def message(question: str, images: Sequence[Image.Image]) -> Message:
    """The user turn that every arm is given, each placeholder replaced by its image as PNG."""
    turn = user_message(question, images=0)
    return turn | {"content": [*map(_image_part, images), *turn["content"]]}


def _image_part(image: Image.Image) -> dict:
    file = BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}

"""One request to an OpenAI-compatible chat-completions endpoint, asked as often as it takes.

Worth another attempt, after a pause that doubles and is drawn at random (full jitter: Brooker, "Exponential
backoff and jitter", AWS architecture blog, 2015): no connection, no whole response in time, a connection cut,
HTTP 408, 409, 425, 429 and 5xx, and a body that is no whole chat completion. Retry-After (RFC 9110, 10.2.3)
holds all requests back, not only the one that was told. A wrong key, model or address stops the run at once.

The key is read from the environment, goes into one header, and is struck out of whatever a server says.
"""

import json
import os
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)

from ladlib.config import Endpoint
from ladlib.endpoint import reply
from ladlib.errors import UserError
from ladlib.generations import Completion
from ladlib.sanitize import escape_terminal

KEYS = ("LADLIB_API_KEY", "OPENAI_API_KEY")  # environment variables, the first that is set
PLACEHOLDER = 8  # characters: a shorter key, such as vLLM's "EMPTY", is none, and may well be a word of an answer
ATTEMPTS = 8  # for one request: about a minute of pauses
PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds: the most before the second attempt, and before any
PATIENCE = 900.0  # seconds: told to wait longer, the run stops instead
CONNECT = 15.0  # seconds
MIB = 2**20
LARGEST = 32 * MIB  # bytes of a response: a completion has kilobytes, with probabilities a megabyte
TOLD = 200  # characters of what a server says that an error repeats
BUSY = frozenset({408, 409, 425, 429})  # and everything from 500
STOPS = {
    401: f"Set the key in the environment, as {KEYS[0]}.",
    402: "Top up the account, then run again.",
    403: f"Check that the key in {KEYS[0]} may use this model.",
    404: "Check endpoint.url, up to its version (…/v1), and endpoint.model.",
}


class Unanswered(Exception):
    """A request that this endpoint does not answer; ``str`` of it says why."""


class Busy(Unanswered):
    """A request that another attempt may bring an answer to."""


class Pace:
    """Lets requests through one after another: so many a minute, evenly spaced, and none while held back."""

    def __init__(self, per_minute: int, stop: threading.Event) -> None:
        self.gap = 60.0 / per_minute if per_minute else 0.0  # seconds
        self.free, self.lock, self.stop = 0.0, threading.Lock(), stop

    def wait(self) -> None:
        """Return when it is this request's turn, or the run stops."""
        with self.lock:
            now = time.monotonic()
            turn = max(now, self.free)
            self.free = turn + self.gap
        self.stop.wait(turn - now)

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long."""
        with self.lock:
            self.free = max(self.free, time.monotonic() + seconds)


class Client:
    """Asks one endpoint; any number of threads may share it."""

    def __init__(self, settings: Endpoint) -> None:
        self.url, self.stop = f"{settings.url}/chat/completions", threading.Event()
        self.pace = Pace(settings.requests_per_minute, self.stop)
        self.timeout, self.concurrency = settings.timeout, settings.concurrency
        self.retries = 0  # roughly: threads count without waiting for each other
        self.key = key()
        self.http = httpx.Client(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=httpx.Timeout(settings.timeout, connect=CONNECT),
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
        self._persist = Retrying(
            retry=retry_if_exception_type(Busy),
            wait=wait_random_exponential(multiplier=PAUSE, max=LONGEST_PAUSE),
            stop=stop_after_attempt(ATTEMPTS) | stop_when_event_set(self.stop),
            sleep=sleep_using_event(self.stop),
            before_sleep=self._count,
            reraise=True,
        )

    def reach(self) -> None:
        """Raises :class:`UserError` where nothing listens at the address; what answers is left to :meth:`ask`.

        Once before the first request: a server that goes away later may come back, and is waited for.
        """
        try:
            self.http.head(self.url, timeout=CONNECT)
        except httpx.ConnectError as error:
            raise UserError(
                f"{self.url} cannot be reached: {error}.", "Start the server, or mend the address."
            ) from error
        except httpx.RequestError:
            pass

    def ask(self, body: dict) -> tuple[Completion, float]:
        """The completion and the seconds that its own request took.

        Raises :class:`Unanswered` where this request gets none, :class:`UserError` where no request would, and
        CancelledError once ``stop`` is set.
        """
        return self._persist(self._once, body)

    def close(self) -> None:
        self.http.close()

    def _once(self, body: dict) -> tuple[Completion, float]:
        self.pace.wait()
        if self.stop.is_set():
            raise CancelledError
        start = time.perf_counter()
        try:
            with self.http.stream("POST", self.url, json=body) as response:
                text = self._struck(self._receive(response, start))
        except httpx.RequestError as error:
            raise Busy(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        return self._read(response, text), time.perf_counter() - start

    def _receive(self, response: httpx.Response, start: float) -> str:
        """The whole body. httpx's own limit is between two bytes: a server that drips would hold a thread for good."""
        blocks, size = [], 0
        for block in response.iter_bytes():
            blocks.append(block)
            size += len(block)
            if size > LARGEST:
                raise Unanswered(f"the response is longer than {LARGEST / MIB:.0f} MiB")
            if time.perf_counter() - start > self.timeout:
                raise httpx.ReadTimeout("the response is not whole in time")
        return b"".join(blocks).decode("utf-8", "replace")

    def _read(self, response: httpx.Response, text: str) -> Completion:
        if not response.is_success:
            return self._turned_down(response, text)
        try:
            return self._clean(reply.read(text))
        except ValueError as error:
            what = "is no chat completion" if isinstance(error, ValidationError) else str(error)
            raise Busy(f"the response {what}: {_short(text)}") from error

    def _turned_down(self, response: httpx.Response, text: str) -> Completion:
        status, (code, words) = response.status_code, _error(text)
        words = self._struck(words)  # again: JSON may have spelled it in escapes
        told = f"HTTP {status}: {_short(words)}"
        if code == "content_filter":
            return reply.refusal(words)
        if response.is_redirect or status in STOPS:
            raise UserError(f"{self.url}: {told}.", STOPS.get(status, "Give the address it leads to, if it is right."))
        if code == "insufficient_quota":
            raise UserError(f"{self.url}: {told}.", STOPS[402])
        if status in BUSY or status >= 500:
            self._heed(response)
            raise Busy(told)
        raise Unanswered(told)

    def _heed(self, response: httpx.Response) -> None:
        seconds = retry_after(response.headers.get("Retry-After", ""))
        if seconds > PATIENCE:
            raise UserError(f"{self.url} asks to wait {seconds / 60:.0f} minutes.", "Run again after that time.")
        self.pace.hold(seconds)

    def _clean(self, found: Completion) -> Completion:
        return replace(found, text=self._struck(found.text))

    def _struck(self, text: str) -> str:
        return text.replace(self.key, "[key]") if len(self.key) >= PLACEHOLDER else text

    def _count(self, _: RetryCallState) -> None:
        self.retries += 1


def key_name() -> str:
    """The environment variable that holds the key; "" where none is set."""
    return next((name for name in KEYS if os.environ.get(name, "").strip()), "")


def key() -> str:
    """The endpoint's key; "" where none is set. Raises :class:`UserError`, without it, for what cannot be one."""
    name = key_name()
    found = os.environ.get(name, "").strip()
    if not all("!" <= letter <= "~" for letter in found):
        raise UserError(f"{name} holds characters that no key has.", "Set it again, without quotes or line ends.")
    return found


def retry_after(header: str) -> float:
    """Seconds to wait by a Retry-After header, a number or a date; 0 where it says nothing.

    >>> retry_after("2")
    2.0
    """
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a time zone
        return 0.0


def host(url: str) -> str:
    """``localhost:8000`` of an address."""
    return urlsplit(url).netloc


def _error(body: str) -> tuple[str, str]:
    """(code, message) of an error's body; the body itself where it has none."""
    try:
        found = json.loads(body)["error"]
        return str(found.get("code", "")), str(found["message"]).encode(errors="replace").decode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "", body


def _short(text: str) -> str:
    return escape_terminal(text[: 4 * TOLD])[:TOLD]

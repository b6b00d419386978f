"""Many requests to one endpoint, several at a time; what each brings is kept as it comes."""

import base64
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from ladlib import prompts
from ladlib.endpoint.client import Client, Unanswered
from ladlib.errors import UserError
from ladlib.progress import Progress
from ladlib.prompts import Message
from ladlib.runs import append_json

IN_A_ROW = 10  # items without an answer: then the endpoint is at fault, and no further one is asked

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Work(Generic[Item, Answer]):
    """What is to be asked: ``left`` of ``total`` items, each of which ``ask`` asks about and ``keep`` keeps."""

    title: str  # printed before every line
    noun: str  # of one item, "pair"
    total: int
    left: Sequence[Item]
    name: Callable[[Item], str]
    ask: Callable[[Item], Answer]  # in a thread of its own
    keep: Callable[[Answer], None]  # one at a time
    unanswered: Path  # the names and reasons of items without an answer


class Asking(Generic[Item, Answer]):
    """One call's requests. Threads ask and keep; the thread that began counts and decides when to stop."""

    def __init__(self, work: Work[Item, Answer], client: Client) -> None:
        self.work, self.client = work, client
        self.begun = self.answered = work.total - len(work.left)
        self.lock = threading.Lock()

    def all(self) -> None:
        """Ask for all that is left.

        Raises :class:`UserError` where no request can be answered, and where at the end some were not: their names
        and reasons are in ``work.unanswered``. What was answered is kept in any case.
        """
        self.work.unanswered.unlink(missing_ok=True)
        try:
            self.client.reach()
            failed = self._ask_all()
        except UserError as error:
            raise UserError(f"{error.what} {self._so_far()}", error.hint) from error
        if failed:
            raise UserError(
                f"{self.work.title}: {len(failed)} of {self.work.total} {self.work.noun}s have no answer, "
                f"first {failed[0]}. {self._so_far()}",
                f"The reasons are in {self.work.unanswered}; run again to ask for these alone.",
            )

    def _ask_all(self) -> list[str]:
        """As :meth:`_collect`; returns or raises when no thread is at work any more."""
        with ThreadPoolExecutor(self.client.concurrency) as pool:
            futures = {pool.submit(self._ask, one): one for one in self.work.left}
            try:
                return self._collect(futures)
            finally:
                self.client.stop.set()  # those under way end, and keep what they are given; the others never begin

    def _collect(self, futures: dict[Future, Item]) -> list[str]:
        """Wait for all; "name: reason" of each that has no answer."""
        progress = Progress(self.work.title, self.work.noun, self.work.total, self.begun)
        failed, row = [], 0
        for number, future in enumerate(as_completed(futures), self.begun + 1):
            try:
                future.result()
                row = 0
            except Unanswered as error:
                row, name = row + 1, self.work.name(futures[future])
                failed.append(f"{name}: {error}")
                append_json(self.work.unanswered, {"id": name, "reason": str(error)})
                self._stop_after(row, error)
            progress.tell(number, self._note(failed))
        return failed

    def _stop_after(self, row: int, error: Unanswered) -> None:
        if row == IN_A_ROW:
            raise UserError(
                f"{self.client.url} left {row} {self.work.noun}s in a row without an answer: {error}.",
                "Mend the endpoint or its settings, then run again: what is answered is not asked again.",
            )

    def _ask(self, one: Item) -> None:
        found = self.work.ask(one)
        with self.lock:
            self.work.keep(found)
            self.answered += 1

    def _so_far(self) -> str:
        return f"{self.answered} of {self.work.total} {self.work.noun}s are answered and kept."

    def _note(self, failed: Sequence[str]) -> str:
        counts = {"asked again": self.client.retries, "without an answer": len(failed)}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def message(question: str, images: Sequence[Image.Image]) -> Message:
    """The user turn that every arm is given, each placeholder replaced by its image as PNG."""
    turn, left = prompts.user_message(question, len(images)), iter(images)
    parts = [_image_part(next(left)) if part["type"] == "image" else part for part in turn["content"]]
    return turn | {"content": parts}


def _image_part(image: Image.Image) -> dict:
    file = BytesIO()
    image.copy().save(file, "PNG")  # a copy: saving writes to the object, and threads share reference images
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}

"""All pairs of an arm asked through an endpoint, several at a time, each answer on disk as it is given."""

import base64
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from io import BytesIO
from pathlib import Path

from PIL import Image

from ladlib import prompts
from ladlib.endpoint import estimate
from ladlib.endpoint.client import Client, Unanswered
from ladlib.errors import UserError
from ladlib.generations import Generations
from ladlib.progress import Progress
from ladlib.prompts import Message
from ladlib.runs import RunFolder, append_json, read_jsonl
from ladlib.schema import Pair
from ladlib.settings import Profile

IN_A_ROW = 10  # pairs without an answer: then the endpoint is at fault, and no further one is asked


def evaluate(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, arm: str = "large", limit: int | None = None
) -> Path:
    """Let the profile's endpoint judge the test pairs of MVTec LOCO AD below ``data_root``; the generations' file.

    ``limit`` as in :func:`ladlib.evaluate.evaluate`. Pairs that were answered before are not asked again. Raises
    :class:`UserError` where no request can be answered, and where at the end some were not: their ids and
    reasons stand in ``<arm>-seed<k>.unanswered.jsonl`` beside the answers, and the next call asks for them alone.
    """
    if not profile.endpoint.url:
        raise UserError("The profile names no endpoint.", "Give its address as endpoint.url, or large_endpoint=URL.")
    model = profile.endpoint.model or profile.model.large
    inputs = {"model": model, "label": profile.endpoint.label, "extra": profile.endpoint.extra}
    kept = Generations.open(profile, data_root, run, seed, arm=arm, inputs=inputs, limit=limit)
    if kept.left:
        served = f"{model}, {profile.endpoint.label or 'quantisation and engine not stated'}"
        with closing(Client(profile.endpoint)) as client:
            print(estimate.announce(kept, served), flush=True)
            _Asking(kept, model, served, client).all()
        print(estimate.summary(arm, profile.endpoint, read_jsonl(kept.path)))
    return kept.path


class _Asking:
    """One call's requests. Threads ask and keep; the thread that began counts and decides when to stop."""

    def __init__(self, kept: Generations, model: str, served: str, client: Client) -> None:
        self.kept, self.served, self.client = kept, served, client
        self.fixed = request_values(kept.profile, model)
        self.begun = self.answered = len(kept.pairs) - len(kept.left)
        self.file, self.lock = kept.path.with_suffix(".unanswered.jsonl"), threading.Lock()

    def all(self) -> None:
        self.file.unlink(missing_ok=True)
        try:
            failed = self._ask_all()
        except UserError as error:
            raise UserError(f"{error.what} {self._so_far()}", error.mend) from error
        if failed:
            raise UserError(
                f"{self.kept.arm}: {len(failed)} of {len(self.kept.pairs)} pairs have no answer, first {failed[0]}. "
                f"{self._so_far()}",
                f"The reasons are in {self.file}; run again to ask for these alone.",
            )

    def _ask_all(self) -> list[str]:
        """As :meth:`_collect`; returns or raises when no thread is at work any more."""
        with ThreadPoolExecutor(self.kept.profile.endpoint.concurrency) as pool:
            futures = {pool.submit(self._ask, one): one for one in self.kept.left}
            try:
                return self._collect(futures)
            finally:
                self.client.stop.set()  # those under way end, and keep what they are given; the others never begin

    def _collect(self, futures: dict[Future, Pair]) -> list[str]:
        """Wait for all; "id: reason" of each that has no answer."""
        progress = Progress(self.kept.arm, "pair", len(self.kept.pairs), self.begun)
        failed, row = [], 0
        for number, future in enumerate(as_completed(futures), self.begun + 1):
            try:
                future.result()
                row = 0
            except Unanswered as error:
                row += 1
                failed.append(f"{futures[future].id}: {error}")
                append_json(self.file, {"id": futures[future].id, "reason": str(error)})
                self._stop_after(row, error)
            progress.tell(number, self._note(failed))
        return failed

    def _stop_after(self, row: int, error: Unanswered) -> None:
        if row == IN_A_ROW:
            raise UserError(
                f"{self.client.url} left {row} pairs in a row without an answer: {error}.",
                "Mend the endpoint or its settings, then run again: what is answered is not asked again.",
            )

    def _ask(self, one: Pair) -> None:
        seen = self.kept.views(one)
        found, seconds = self.client.ask(self.fixed | {"messages": [message(seen)]})
        record = self.kept.record(one, seen, prompts.QUESTION, found, seconds, self.served)
        with self.lock:
            self.kept.keep(record)
            self.answered += 1

    def _so_far(self) -> str:
        return f"{self.answered} of {len(self.kept.pairs)} pairs are answered and kept."

    def _note(self, failed: Sequence[str]) -> str:
        counts = {"asked again": self.client.retries, "without an answer": len(failed)}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def request_values(profile: Profile, model: str) -> dict:
    """What all requests have in common: greedy, as long as everywhere, with probabilities where wanted."""
    listed = profile.endpoint.top_logprobs
    values = {"model": model, "temperature": 0, "max_tokens": profile.evaluate.max_new_tokens}
    told = {"logprobs": True, "top_logprobs": listed} if listed else {}
    return values | told | profile.endpoint.extra


def message(images: Sequence[Image.Image]) -> Message:
    """The task's own user turn, each placeholder replaced by its image."""
    turn, left = prompts.user_message(prompts.QUESTION, len(images)), iter(images)
    parts = [_image_part(next(left)) if part["type"] == "image" else part for part in turn["content"]]
    return turn | {"content": parts}


def _image_part(image: Image.Image) -> dict:
    file = BytesIO()
    image.copy().save(file, "PNG")  # a copy: saving writes to the object, and threads share reference images
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}

"""What the questions still to be asked will cost, in tokens, money and time: said before the first one.

Tokens are those of Qwen2.5-VL: an image has one for each 28 by 28 pixels, text about one for four letters.
What is said back is bounded by ``evaluate.max_new_tokens``; nobody knows it beforehand.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ladlib.config import Data, Endpoint
from ladlib.data.images import tokens, view_size
from ladlib.endpoint.client import host, key_name
from ladlib.records import Pair

LETTERS = 4  # to a token of English text, about
TEMPLATE = 30  # tokens around question and images: system prompt, turns, the ends of the images
SECONDS = 10.0  # a request, until the first answers tell


def announce(title: str, endpoint: Endpoint, served: str, requests: int, tokens_in: int, tokens_out: int) -> str:
    """Where so many requests will go, and what that takes at most."""
    key = f"key from {key_name()}" if key_name() else "no key"
    return "\n".join(
        [
            f"{title}: {requests} requests to {host(endpoint.url)} for {served}; "
            f"{endpoint.concurrency} at a time, {key}",
            f"{title}: about {millions(tokens_in)} tokens in, at most {millions(tokens_out)} out: "
            f"{money(endpoint, tokens_in, tokens_out, 'at most ')}; about {minutes(endpoint, requests):.0f} min, "
            f"if a request takes {SECONDS:.0f} s",
        ]
    )


def summary(arm: str, endpoint: Endpoint, rows: Sequence[dict]) -> str:
    """What the answers in ``rows`` took, as the endpoint counts its tokens."""
    used = sum(row["prompt_tokens"] for row in rows), sum(row["completion_tokens"] for row in rows)
    refused = sum(row["refused"] for row in rows)
    return (
        f"{arm}: {len(rows)} answers, {refused} of them refusals; {millions(used[0])} tokens in, "
        f"{millions(used[1])} out: {money(endpoint, *used)}"
    )


def input_tokens(pairs: Sequence[tuple[Pair, Path]], texts: Iterable[str], data: Data) -> int:
    """Of pairs, each with the folder that its paths are relative to, and the texts; reads the images' headers."""
    paths = [folder / path for one, folder in pairs for path in (one.reference, one.test.image)]
    images = {path: tokens(view_size(path, data.min_pixels, data.max_pixels)) for path in set(paths)}
    return sum(images[path] for path in paths) + sum(len(text) // LETTERS + TEMPLATE for text in texts)


def money(endpoint: Endpoint, tokens_in: int, tokens_out: int, prefix: str = "") -> str:
    """The price of so many tokens in dollars, where the profile knows it."""
    if endpoint.input_price is None or endpoint.output_price is None:
        return "price not known (set endpoint.input_price and output_price)"
    dollars = (tokens_in * endpoint.input_price + tokens_out * endpoint.output_price) / 1e6
    return f"{prefix}${dollars:.2f}"


def minutes(endpoint: Endpoint, requests: int) -> float:
    """How long so many requests take where one takes ``SECONDS`` and none has to be repeated."""
    paced = requests / endpoint.requests_per_minute if endpoint.requests_per_minute else 0.0
    return max(paced, requests * SECONDS / endpoint.concurrency / 60)


def millions(count: int) -> str:
    """``0.93 million``."""
    return f"{count / 1e6:.2f} million"

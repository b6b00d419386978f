"""What the questions still to be asked will cost, in tokens, money and time: said before the first one.

Tokens are those of Qwen2.5-VL: an image has one for each 28 by 28 pixels, text about one for four letters.
What is said back is bounded by ``evaluate.max_new_tokens``; nobody knows it beforehand.
"""

from collections.abc import Iterable, Sequence

from ladlib.data.images import seen_size, tokens
from ladlib.endpoint.client import host, key_name
from ladlib.generations import Generations
from ladlib.prompts import QUESTION
from ladlib.schema import Pair
from ladlib.settings import Endpoint

LETTERS = 4  # to a token of English text, about
TEMPLATE = 30  # tokens around question and images: system prompt, turns, the ends of the images
SECONDS = 10.0  # a request, until the first answers tell


def announce(kept: Generations, served: str) -> str:
    """Where the pairs left will be asked, and what that takes at most."""
    endpoint, requests = kept.profile.endpoint, len(kept.left)
    most = input_tokens(kept), requests * kept.profile.evaluate.max_new_tokens
    key = f"key from {key_name()}" if key_name() else "no key"
    return "\n".join(
        [
            f"{kept.arm}: {requests} requests to {host(endpoint.url)} for {served}; "
            f"{endpoint.concurrency} at a time, {key}",
            f"{kept.arm}: about {millions(most[0])} tokens in, at most {millions(most[1])} out: "
            f"{money(endpoint, *most, 'at most ')}; about {minutes(endpoint, requests):.0f} min, "
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


def input_tokens(kept: Generations) -> int:
    """Of all pairs left; reads the headers of their images."""
    images = {path: _image_tokens(kept, path) for path in _paths(kept.left)}
    text = len(QUESTION) // LETTERS + TEMPLATE
    return sum(text + images[one.reference] + images[one.test.image] for one in kept.left)


def _paths(pairs: Iterable[Pair]) -> set[str]:
    return {path for one in pairs for path in (one.reference, one.test.image)}


def _image_tokens(kept: Generations, path: str) -> int:
    data = kept.profile.data
    return tokens(seen_size(kept.folder / path, data.min_pixels, data.max_pixels))


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

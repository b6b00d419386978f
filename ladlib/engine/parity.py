"""Whether two engines see the same prompt and images and begin the same answer.

insist(ours, theirs, image_token=151655, engine="vLLM")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ladlib.errors import UserError

PAIRS = 4  # that both engines answer to
OPENING = 8  # tokens of a greedy answer that must agree; later ones may part where two are all but equally likely


@dataclass(frozen=True)
class Answered:
    """A prompt as an engine saw it, token by token, and the tokens it answered greedily."""

    prompt_ids: list[int]
    completion_ids: list[int]


def insist(ours: Sequence[Answered], theirs: Sequence[Answered], image_token: int, engine: str) -> None:
    """Raise :class:`UserError` that names the first difference, if ``engine`` differs from transformers in any pair."""
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
        if told := difference(one, other, image_token):
            raise UserError(
                f"{engine} does not answer as transformers does. Pair {number} of {len(ours)}: {told}.",
                "Use `engine: transformers`, or a version of vLLM that agrees.",
            )
    print(f"{engine} and transformers agree on {len(ours)} pairs: prompt tokens, image tokens, first words")


def difference(ours: Answered, theirs: Answered, image_token: int) -> str:
    """What differs first, in words; "" where nothing does."""
    images = [image_lengths(one.prompt_ids, image_token) for one in (ours, theirs)]
    if images[0] != images[1]:
        return f"its images take {images[1]} tokens, not {images[0]}"
    if ours.prompt_ids != theirs.prompt_ids:
        place = _parting(ours.prompt_ids, theirs.prompt_ids)
        return f"its prompt has {len(theirs.prompt_ids)} tokens, not {len(ours.prompt_ids)}, and parts at token {place}"
    opening, other = ours.completion_ids[:OPENING], theirs.completion_ids[:OPENING]
    if opening != other:
        return f"its greedy answer begins with the tokens {other}, not {opening}"
    return ""


def image_lengths(prompt_ids: Sequence[int], image_token: int) -> list[int]:
    """The number of tokens of each image: the rows of features that the language model sees of it."""
    return [len(list(run)) for token, run in groupby(prompt_ids) if token == image_token]


def _parting(ours: Sequence[int], theirs: Sequence[int]) -> int:
    same = (place for place, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other)
    return next(same, min(len(ours), len(theirs)))

"""A chat completion as a server sends it, read as a :class:`~ladlib.records.Completion` with P(yes)."""

import math
from collections.abc import Sequence

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ladlib.prompts import ANSWER_OPENING
from ladlib.records import Completion


class Alternative(BaseModel):
    token: str
    logprob: float = Field(le=1.0)  # a little above 0 by rounding; not NaN


class Token(Alternative):
    """A written token with its most likely alternatives, among which it need not be."""

    top_logprobs: list[Alternative] = []


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: object = None  # read apart: odd ones are no reason to ask, and to pay, again


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Response(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def parse_response(body: str) -> Completion:
    """The first choice of a chat completion (platform.openai.com/docs/api-reference/chat/object).

    A refusal is an answer: its words are kept. Raises ValueError for what is no whole chat completion.
    """
    response = _Response.model_validate_json(body)
    choice, usage = response.choices[0], response.usage or _Usage()
    if choice.finish_reason == "error":  # how a router reports that the engine behind it failed
        raise ValueError("finish_reason is error")
    try:
        p_yes = share_of_yes(TypeAdapter(list[Token]).validate_python(choice.logprobs["content"]))
    except (ValidationError, TypeError, KeyError):
        p_yes = None
    return Completion(
        text=choice.message.content or choice.message.refusal or "",
        finish="length" if choice.finish_reason == "length" else "stop",
        p_yes=p_yes,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        refused=bool(choice.message.refusal) or choice.finish_reason == "content_filter",
    )


def share_of_yes(tokens: Sequence[Token]) -> float | None:
    """P(yes) / (P(yes) + P(no)) for the word after the first ``<answer>``; None where neither is listed.

    As in :mod:`ladlib.generate` both ways of writing a word count, in the token that ends the tag and in the one
    after it; white space between them is followed. Only the likeliest alternatives are listed, and only along the
    model's own text, so (1) a word that is not listed counts 0; (2) where the model ended the tag and began one word
    with one token (Qwen2.5's ">No"), the bare end of the tag counts for the other word if that has no such token
    (">" for "Yes"): as good as exact where the model is sure, a bound where it is not.
    """
    mass, head, weight = {"yes": 0.0, "no": 0.0}, "", 1.0
    for token in tokens:
        listed = {one.token: math.exp(min(0.0, one.logprob)) for one in [*token.top_logprobs, token]}
        words = {text: _after_tag(head + text) for text in listed}
        for text, word in words.items():
            if word in mass:
                mass[word] += weight * listed[text]
        was_open, head = ANSWER_OPENING in head, _tail(head + token.token)
        if words[token.token]:
            bare = 0.0 if was_open else sum(listed[text] for text, word in words.items() if word == "")
            mass = {word: value or bare for word, value in mass.items()}
            break
        weight *= listed[token.token] if ANSWER_OPENING in head else 1.0
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total else None


def _tail(text: str) -> str:
    """What the next token can complete: with all of a long answer, time would grow with its square."""
    before, tag, rest = text.partition(ANSWER_OPENING)
    return tag + rest.strip() if tag else before[1 - len(ANSWER_OPENING) :]


def _after_tag(text: str) -> str | None:
    """What follows the first ``<answer>``, stripped and in lower case; None where there is no such tag."""
    _, tag, rest = text.partition(ANSWER_OPENING)
    return rest.strip().lower() if tag else None

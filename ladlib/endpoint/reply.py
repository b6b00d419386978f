"""What a chat-completions endpoint sends back, read as a completion.

The fields are those of OpenAI's chat completion object (platform.openai.com/docs/api-reference/chat/object);
what an engine adds is left aside. A refusal is an answer: its words are kept, and count as any that say
neither yes nor no.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel, Field, ValidationError

from ladlib.generations import Completion
from ladlib.prompts import ANSWER_OPENING


class Alternative(BaseModel):
    """One text that could stand at a place, and the logarithm of its probability."""

    token: str
    logprob: float = Field(le=1.0)  # a little above 0 by rounding; not NaN


class Token(Alternative):
    """What does stand there, with the likeliest alternatives; it need not be among them."""

    top_logprobs: list[Alternative] = []


class _Logprobs(BaseModel):
    content: list[Token]


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: object = None  # read apart: an odd one is no reason to ask, and to pay, again


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read(body: str) -> Completion:
    """The first choice of a response's body. Raises ValueError for what is no whole chat completion."""
    found = _Body.model_validate_json(body)
    choice, usage = found.choices[0], found.usage or _Usage()
    if choice.finish_reason == "error":  # how a router tells that the engine behind it failed
        raise ValueError("finish_reason is error")
    message = choice.message
    return Completion(
        text=message.content or message.refusal or "",
        finish="length" if choice.finish_reason == "length" else "stop",
        p_yes=_p_yes(choice.logprobs),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        refused=bool(message.refusal) or choice.finish_reason == "content_filter",
    )


def refusal(words: str) -> Completion:
    """What is kept where a filter turned the prompt away before the model saw it."""
    return Completion(text=words, finish="stop", p_yes=None, prompt_tokens=0, completion_tokens=0, refused=True)


def _p_yes(logprobs: object) -> float | None:
    try:
        return share_of_yes(_Logprobs.model_validate(logprobs).content)
    except ValidationError:
        return None


def share_of_yes(tokens: Sequence[Token]) -> float | None:
    """P(yes) / (P(yes) + P(no)) for the word that follows the first ``<answer>``; None where neither is listed.

    As in :mod:`ladlib.likelihood` both ways of writing a word count, in the token that ends the tag and in the
    one after it; white space that the model put between them is followed. Two things differ, since only the
    likeliest alternatives are listed and only along the model's own text:

    1. a word that is not listed counts 0;
    2. where the model ended the tag and began one word with one token (Qwen2.5's ">No"), nothing tells how the
       bare end of the tag would have gone on. It counts for the other word if that has no such token (">" for
       "Yes"): as good as exact where the model is sure, a bound where it is not.
    """
    mass, head, weight = {"yes": 0.0, "no": 0.0}, "", 1.0
    for token in tokens:
        listed = {one.token: math.exp(min(0.0, one.logprob)) for one in [*token.top_logprobs, token]}
        begun = {text: _after_tag(head + text) for text in listed}
        for text, word in begun.items():
            if word in mass:
                mass[word] += weight * listed[text]
        was_open, head = ANSWER_OPENING in head, _tail(head + token.token)
        if begun[token.token]:
            bare = sum(listed[text] for text, word in begun.items() if word == "")
            return _share(mass if was_open else {word: value or bare for word, value in mass.items()})
        weight *= listed[token.token] if ANSWER_OPENING in head else 1.0
    return _share(mass)


def _tail(text: str) -> str:
    """Of what was said, only what the next token can complete: else a long answer takes time by its square."""
    place = text.find(ANSWER_OPENING)
    return (
        ANSWER_OPENING + text[place + len(ANSWER_OPENING) :].strip() if place >= 0 else text[1 - len(ANSWER_OPENING) :]
    )


def _after_tag(text: str) -> str | None:
    """What stands after the first ``<answer>``, stripped and in lower case; None where there is no such tag."""
    _, tag, rest = text.partition(ANSWER_OPENING)
    return rest.strip().lower() if tag else None


def _share(mass: dict[str, float]) -> float | None:
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total else None

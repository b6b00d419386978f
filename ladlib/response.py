"""A chat completion as a server sends it, read as a :class:`~ladlib.records.Completion` with P(yes)."""

import math
from collections.abc import Sequence

from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from ladlib.parsing import END_THINK, THINK, parse_answer
from ladlib.prompts import ANSWER_OPENING
from ladlib.records import Completion


class Misfit(ValueError):
    """A whole response that is no answer: the same request would bring the same again."""


class Alternative(BaseModel):
    token: str
    logprob: float = Field(le=1.0)  # a little above 0 by rounding; not NaN


class Token(Alternative):
    """A written token with its most likely alternatives, among which it need not be."""

    top_logprobs: list[Alternative] = []


class _Message(BaseModel):
    content: str | list[dict[str, JsonValue]] | None = None  # or in parts
    refusal: str | None = None
    reasoning: object = None  # vLLM, OpenRouter; read apart
    reasoning_content: object = None  # DeepSeek, SGLang, earlier vLLM


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: object = None  # read apart: odd ones are no reason to ask, and to pay, again


class _Response(BaseModel):
    choices: list[_Choice] | None = None
    error: object = None
    usage: object = None


def parse_response(body: str) -> Completion:
    """The first choice of a chat completion (platform.openai.com/docs/api-reference/chat/object).

    A refusal is an answer: its words are kept. Raises ValueError for what is cut off and for an error that may pass,
    and :class:`Misfit` for what is no chat completion, or one without a word although tokens were written.
    """
    try:
        response = _Response.model_validate_json(body.removeprefix("\ufeff"))
    except ValidationError as error:
        is_torn = body.lstrip("\ufeff \n")[:1] in ("", "{") and error.errors()[0]["type"] == "json_invalid"
        raise (ValueError if is_torn else Misfit)("is no chat completion") from None
    if not response.choices:
        raise (ValueError if response.error else Misfit)("is no chat completion")
    choice, usage = response.choices[0], response.usage
    if choice.finish_reason == "error":  # how a router reports that the engine behind it failed
        raise ValueError("finish_reason is error")
    text, thinking = choice.message.content or "", (choice.message.reasoning, choice.message.reasoning_content)
    if isinstance(text, list):
        text = "".join(str(part.get("text") or "") for part in text)
    text = text or choice.message.refusal or ""
    reasoning = next((words.strip() for words in thinking if isinstance(words, str) and words.strip()), "")
    refused = bool(choice.message.refusal) or choice.finish_reason == "content_filter"
    if not (text.strip() or reasoning or refused or _count(usage, "completion_tokens", 2) < 2):  # 1: the end alone
        raise Misfit("has no words")
    try:
        p_yes = share_of_yes(TypeAdapter(list[Token]).validate_python(choice.logprobs["content"]))
    except (ValidationError, TypeError, KeyError):
        p_yes = None
    return Completion(
        text=text,
        finish="length" if choice.finish_reason == "length" else "stop",
        p_yes=p_yes,
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        refused=refused,
        reasoning=reasoning,
    )


def _count(usage: object, name: str, unknown: int = 0) -> int:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count >= 0 else unknown


def whole_text(completion: Completion) -> str:
    """The text, with reasoning that a server sent apart before it, in the tags that the server took off.

    The text alone where it thinks itself, or would be read as another answer: reasoning may speak of the tags.
    """
    text, reasoning = completion.text, completion.reasoning
    whole = f"{THINK}{reasoning.removeprefix(THINK).removesuffix(END_THINK)}{END_THINK}{text}"
    fits = THINK not in text and parse_answer(whole) == parse_answer(text)
    return whole if text and reasoning and fits else text or reasoning


def share_of_yes(tokens: Sequence[Token]) -> float | None:
    """P(yes) / (P(yes) + P(no)) for the word after the first ``<answer>``; None where neither is listed.

    As in :mod:`ladlib.generate` a word counts in the token that ends the tag and in the one after it; white space
    between them is followed. Only the likeliest alternatives along the model's own text are listed: a word that is not
    counts 0. Where one token ended the tag and began a word (Qwen2.5's ">No"), a bare ">" counts for the other word.
    """
    mass, head, weight = {"yes": 0.0, "no": 0.0}, "", 1.0
    for token in tokens:
        listed = {other.token: math.exp(min(0.0, other.logprob)) for other in [*token.top_logprobs, token]}
        words = {text: _after_tag(head + text) for text in listed}
        for text, word in words.items():
            if word in mass:
                mass[word] += weight * listed[text]
        was_open, written = ANSWER_OPENING in head, words[token.token]
        if written:
            bare = 0.0 if was_open else sum(listed[text] for text, word in words.items() if word == "")
            mass = {word: value or bare for word, value in mass.items()}
            break
        # All of a long text would take time that grows with its square
        head = (head + token.token)[1 - len(ANSWER_OPENING) :] if written is None else ANSWER_OPENING
        weight *= listed[token.token] if written == "" else 1.0
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total else None


def _after_tag(text: str) -> str | None:
    """What follows the first ``<answer>``, stripped and in lower case; None where there is no such tag."""
    _, tag, rest = text.partition(ANSWER_OPENING)
    return rest.strip().lower() if tag else None

"""Reading what an endpoint sends back: P(yes) from listed probabilities, refusals, odd bodies."""

import json
import math

import pytest
from chat_server import choice

from ladlib.response import Misfit, Token, parse_response, share_of_yes, whole_text


def token(text, share=1.0, **others):
    """``text`` was written with probability ``share``; ``others`` could have been, "_" standing for a space."""
    listed = [{"token": name.replace("_", " "), "logprob": math.log(value)} for name, value in others.items()]
    own = {"token": text, "logprob": math.log(share)}
    return Token.model_validate(own | {"top_logprobs": [own, *listed]})


HEAD = [token("<think>fine</think>"), token("<"), token("answer")]
OPENED = [*HEAD, token(">")]
AGAIN = [token("<answer>"), token("no", 0.9, yes=0.1)]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([*OPENED, token("yes", 0.6, no=0.3)], 2 / 3),
        ([*OPENED, token(" no", 0.5, _yes=0.25, Yes=0.125, maybe=0.1)], 3 / 7),  # every way of writing a word counts
        ([*OPENED, token("\n", 0.5), token("yes", 0.9, no=0.1)], 0.9),  # white space is followed
        ([*OPENED, token("\n", 0.5, yes=0.1), token("yes", 0.4, no=0.4)], (0.1 + 0.2) / (0.1 + 0.2 + 0.2)),
        ([*OPENED, token("yes", 0.99)], 1.0),  # the other word is not listed
        ([*OPENED, token("anomalous", 0.9, perhaps=0.1)], None),
        ([*OPENED, token("anomalous", 0.6, no=0.2, yes=0.2)], 0.5),
        ([*OPENED, token("y", 0.9, n=0.1), token("es")], None),  # a word in pieces
        (OPENED, None),
        ([*OPENED, token("yes", 0.7, no=0.3), *AGAIN], 0.7),  # only the first tag is read
        ([token("yes", 0.9, no=0.1)], None),  # no tag
        # A word may share its token with the end of the tag, as Qwen's ">No" does. Here the bare end of the tag has
        # 0.75, after it "Yes" 0.8 and "no" 0.2; ">No" 0.25.
        ([*HEAD, token(">", 0.75, **{">No": 0.25}), token("Yes", 0.8, no=0.2)], 0.6),
        ([*HEAD, token(">No", 0.8, **{">": 0.2}), token("</answer>")], 0.2),  # nothing tells what would follow ">"
        ([*HEAD, token(">No", 1.0)], 0.0),
        ([*HEAD, token(">No", 0.6, **{">Yes": 0.2, ">": 0.2})], 0.25),
    ],
)
def test_p_yes_is_read_where_the_word_begins(tokens, expected):
    share = share_of_yes(tokens)
    assert share == (pytest.approx(expected) if expected is not None else None)


def body(message, **fields):
    return json.dumps(choice(message, **fields))


@pytest.mark.parametrize(
    ("sent", "text", "finish", "refused"),
    [
        (body({"content": None, "refusal": "I cannot."}), "I cannot.", "stop", True),
        (body({"content": "<think>a"}, finish="content_filter"), "<think>a", "stop", True),
        (body({"content": None}, finish="content_filter"), "", "stop", True),
        (body({"content": [{"type": "text", "text": "<answer>"}, {"text": "no"}, {}]}), "<answer>no", "stop", False),
        ("\ufeff" + body({"content": "a"}), "a", "stop", False),
        *(
            (body({"content": "<answer>yes</answer>"}, logprobs=odd), "<answer>yes</answer>", "stop", False)
            for odd in (None, {}, {"content": None}, {"content": [{"token": 1}]}, "none", {"tokens": []})
        ),
    ],
)
def test_refusals_and_odd_probabilities_are_no_reason_to_ask_again(sent, text, finish, refused):
    completion = parse_response(sent)
    assert (completion.text, completion.finish, completion.refused) == (text, finish, refused)
    assert completion.p_yes is None


@pytest.mark.parametrize(
    "sent",
    ["", "{", "[]", 'data: {"choices": []}', "<html>", "null",
     '{"choices": []}', '{"choices": [{}]}', '{"choices": [{"message": {"content": 3}}]}',
     body({"content": "half"}, finish="error"), body({"content": None}, finish="length"),
     body({"content": None, "tool_calls": [{"id": "1"}]}), body({"content": " ", "reasoning": ""})],
)  # fmt: skip
def test_a_body_that_is_no_whole_completion_or_has_no_words_is_refused(sent):
    with pytest.raises(ValueError) as error:
        parse_response(sent)
    passes = sent in ("", "{") or "half" in sent
    assert isinstance(error.value, Misfit) != passes, "only what may pass is worth another request"


@pytest.mark.parametrize("usage", [None, 3, {}, {"prompt_tokens": 1.5, "completion_tokens": -1}])
def test_tokens_that_are_not_counted_are_stored_as_none(usage):
    completion = parse_response(json.dumps(choice({"content": "a"}) | {"usage": usage}))
    assert (completion.prompt_tokens, completion.completion_tokens) == (0, 0)


def test_an_answer_that_ended_at_once_is_empty_and_stored():
    assert parse_response(json.dumps(choice({"content": ""}) | {"usage": {"completion_tokens": 1}})).text == ""


WHOLE = "<think>two nuts</think><answer>no</answer>"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "reasoning_content": WHOLE}, WHOLE),
        ({"content": "<answer>no</answer>", "reasoning_content": "two nuts\n"}, WHOLE),
        ({"content": "<answer>no</answer>", "reasoning": "<think>two nuts</think>", "reasoning_content": "a"}, WHOLE),
        ({"content": WHOLE, "reasoning": "Count the nuts."}, WHOLE),  # it thinks in the asked-for form itself
        ({"content": "<answer>no</answer>", "reasoning": "Form: <answer>yes</answer>"}, "<answer>no</answer>"),
        ({"content": "no", "reasoning": "two nuts"}, "<think>two nuts</think>no"),
        ({"content": WHOLE, "reasoning": {"odd": 1}}, WHOLE),
    ],
)
def test_reasoning_in_a_field_of_its_own_is_kept_and_changes_no_answer(message, text):
    completion = parse_response(body(message))
    reasoning = message.get("reasoning") or message["reasoning_content"]
    assert whole_text(completion) == text
    assert completion.reasoning == (reasoning.strip() if isinstance(reasoning, str) else "")

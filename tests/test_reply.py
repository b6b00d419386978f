"""Reading what an endpoint sends back: P(yes) from listed probabilities, refusals, odd bodies."""

import json
import math

import pytest
from chat_server import choice

from ladlib.endpoint.reply import Token, read, share_of_yes


def token(text, share=1.0, **others):
    """``text`` was written with probability ``share``; ``others`` could have been, "_" standing for a space."""
    listed = [{"token": name.replace("_", " "), "logprob": math.log(value)} for name, value in others.items()]
    own = {"token": text, "logprob": math.log(share)}
    return Token.model_validate(own | {"top_logprobs": [own, *listed]})


OPENED = [token("<think>fine</think>"), token("<"), token("answer"), token(">")]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([token("yes", 0.6, no=0.3)], 2 / 3),
        ([token(" no", 0.5, _yes=0.25, Yes=0.125, maybe=0.1)], 3 / 7),  # every way of writing a word counts
        ([token("\n", 0.5), token("yes", 0.9, no=0.1)], 0.9),  # white space is followed
        ([token("\n", 0.5, yes=0.1), token("yes", 0.4, no=0.4)], (0.1 + 0.2) / (0.1 + 0.2 + 0.2)),
        ([token("yes", 0.99)], 1.0),  # the other word is not listed
        ([token("anomalous", 0.9, perhaps=0.1)], None),
        ([token("anomalous", 0.6, no=0.2, yes=0.2)], 0.5),
        ([token("y", 0.9, n=0.1), token("es")], None),  # a word in pieces
        ([], None),
    ],
)
def test_p_yes_is_read_where_the_word_begins(after, expected):
    found = share_of_yes([*OPENED, *after])
    assert found == (pytest.approx(expected) if expected is not None else None)


def test_a_word_that_shares_its_token_with_the_end_of_the_tag_counts_as_qwens_no_does():
    head = OPENED[:-1]
    # The bare end of the tag at 0.75, after it "Yes" at 0.8 and "no" at 0.2; ">No" at 0.25
    both = [*head, token(">", 0.75, **{">No": 0.25}), token("Yes", 0.8, no=0.2)]
    assert share_of_yes(both) == pytest.approx(0.6)
    joined = [*head, token(">No", 0.8, **{">": 0.2}), token("</answer>")]
    assert share_of_yes(joined) == pytest.approx(0.2), "nothing tells what would follow the bare end of the tag"
    assert share_of_yes([*head, token(">No", 1.0)]) == 0.0
    three = [*head, token(">No", 0.6, **{">Yes": 0.2, ">": 0.2})]
    assert share_of_yes(three) == pytest.approx(0.25)


def test_only_the_first_answer_tag_is_read():
    again = [token("<answer>"), token("no", 0.9, yes=0.1)]
    assert share_of_yes([*OPENED, token("yes", 0.7, no=0.3), *again]) == pytest.approx(0.7)


def test_without_an_answer_tag_nothing_is_read():
    assert share_of_yes([token("yes", 0.9, no=0.1)]) is None


def body(message, **fields):
    return json.dumps(choice(message, **fields))


def test_a_refusal_keeps_its_words_and_is_no_error():
    found = read(body({"content": None, "refusal": "I cannot."}))
    assert (found.text, found.refused, found.finish, found.p_yes) == ("I cannot.", True, "stop", None)
    found = read(body({"content": "<think>a"}, finish="content_filter"))
    assert (found.text, found.refused) == ("<think>a", True)


def test_a_completion_that_ran_out_of_room_says_so_even_where_nothing_is_left_of_it():
    found = read(body({"content": None}, finish="length"))
    assert (found.text, found.finish, found.refused) == ("", "length", False)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": [{"token": 1}]}, "none", {"tokens": []}])
def test_odd_probabilities_are_no_reason_to_ask_again(logprobs):
    found = read(body({"content": "<answer>yes</answer>"}, logprobs=logprobs))
    assert found.text == "<answer>yes</answer>" and found.p_yes is None


@pytest.mark.parametrize(
    "sent",
    ["", "{", "[]", "null", '{"choices": []}', '{"choices": [{}]}', '{"choices": [{"message": {"content": 3}}]}',
     body({"content": "half"}, finish="error")],
)  # fmt: skip
def test_a_body_that_is_no_whole_completion_is_refused(sent):
    with pytest.raises(ValueError):
        read(sent)


def test_tokens_that_are_not_counted_are_stored_as_none():
    found = read(json.dumps(choice({"content": "a"}) | {"usage": None}))
    assert (found.prompt_tokens, found.completion_tokens) == (0, 0)

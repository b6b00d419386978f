import time

import pytest
from completions import ROWS
from hypothesis import given
from hypothesis import strategies as st

from ladlib.parsing import TAGS, Reading, lenient_answer, parse, parse_answer

PIECES = st.sampled_from([*TAGS, "yes", "no", " ", "\n", ".", "<", "|", "a", "<|image_pad|>", "\u200f", "ſ"])
COMPLETIONS = st.one_of(st.text(), st.lists(PIECES, max_size=14).map("".join))
each_row = pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])


def test_the_rows_have_different_names():
    assert len({row.what for row in ROWS}) == len(ROWS)


@each_row
def test_the_answer_is_read_as_the_table_says(row):
    assert parse_answer(row.text) == row.answer


@each_row
def test_the_form_is_judged_as_the_table_says(row):
    assert parse(row.text).well_formed == row.well_formed


@each_row
def test_the_lenient_answer_is_the_strict_one_or_the_last_word_after_the_thinking(row):
    assert lenient_answer(row.text) == row.lenient


def test_the_thinking_is_kept_without_its_white_space():
    reading = parse("<think>\n two nuts \n</think><answer>no</answer>")
    assert reading == Reading(think="two nuts", answer="no", well_formed=True)


def test_the_thinking_is_kept_even_where_the_answer_is_missing():
    assert parse("<think>two nuts</think>").think == "two nuts"
    assert parse("<think>two").think is None


@given(COMPLETIONS)
def test_no_text_makes_the_parser_raise_and_a_well_formed_one_has_an_answer(text):
    reading = parse(text)
    assert reading.answer == parse_answer(text)
    assert not reading.well_formed or (reading.answer and reading.think)


@given(COMPLETIONS)
def test_a_strict_answer_stands_in_the_text_as_a_word_and_the_lenient_one_is_the_same(text):
    answer = parse_answer(text)
    assert answer is None or (answer in text.lower() and lenient_answer(text) == answer)


@given(COMPLETIONS.filter(lambda text: not parse(text).well_formed), st.sampled_from([" ", "\n\n"]))
def test_white_space_around_a_malformed_text_does_not_mend_it(text, space):
    assert not parse(space + text + space).well_formed


def test_ten_megabytes_of_opened_thinking_are_read_in_less_than_a_second():
    text = "<think>" * (10_000_000 // len("<think>"))
    start = time.process_time()
    assert parse(text) == Reading(think=None, answer=None, well_formed=False)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("piece", [*TAGS, "<think>a</think>", "< ", " ", "<", "</", "yes ", "<answer>yes"])
def test_a_megabyte_is_read_in_a_moment(piece):
    text = "<think>" + piece * (1_000_000 // len(piece)) + "</think><answer>yes</answer>"
    start = time.process_time()
    parse(text)
    lenient_answer(text)
    assert time.process_time() - start < 2.0

"""Statements of rationales: what is read, what is true, and that the toy language is covered and tells the truth."""

import random
import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladlib.toy import loco
from ladlib.toy.parts import BLEMISHES, COLOURS, SHAPES
from ladlib.toy.products import at, with_parts
from ladlib.toy.scenes import Scene, changed, random_scene, shuffled
from ladlib.toy.statements import (
    ComparedPlace,
    Counted,
    Empty,
    Lies,
    Paired,
    claims,
    compare_kinds,
    compare_places,
    count,
    is_comparison,
    is_true,
    kinds,
    list_parts,
    name_at,
    states_difference,
    tally,
)

seeds = st.integers(0, 2**32)
KINDS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
NAMES = [*KINDS, *(f"{kind} {blemish}" for kind in KINDS for blemish in BLEMISHES)]
PLACES = [f"{row}{col}" for row in "abcdefgh" for col in range(1, 9)]
WORDS = [*COLOURS, *SHAPES, *BLEMISHES, *PLACES, "none", "same", "then", "missing", "extra",
         *"0123456789", "."]  # fmt: skip


def scene(*parts, rows=3, cols=4):
    return with_parts(Scene(rows=rows, cols=cols, parts=()), list(parts))


RED_AT_A2_B3 = scene(at("disc", "red", 0, 1), at("disc", "red", 1, 2))
RED_AT_B1 = scene(at("disc", "red", 1, 0))


def two_scenes(seed):
    """Two general scenes: one and the same, moved about, changed, or unrelated."""
    rng = random.Random(seed)
    first = random_scene(rng, 12)
    second = rng.choice((first, shuffled(first, rng), random_scene(rng, 12)))
    return first, changed(second, rng, rng.choice((0, 1, 2, 3))), rng


def split(text):
    return [f"{sentence.strip()} ." for sentence in text.split(".") if sentence.strip()]


def sentences_about(first, second):
    """All that the language says about two scenes."""
    every = list(dict.fromkeys([*first.places(), *second.places()]))
    absent = next(name for name in NAMES if name not in kinds(second))
    said = [
        list_parts(second), tally(second), count(absent, []), name_at(second, second.places()),
        compare_places(first, second)[0], compare_places(first, second, every)[0], compare_kinds(first, second)[0],
    ]  # fmt: skip
    return split("".join(piece for pieces in said for piece, _ in pieces))


def also_true(first, second):
    """What is as true as what the language says: other pairings off, and other kinds that are not there."""
    old, new = kinds(first), kinds(second)
    sentences = {f"{name} none 0 ." for name in NAMES if name not in new}
    for name in {*old, *new}:
        was, now = old.get(name, []), new.get(name, [])
        sentences |= {f"{name} {one} {other} ." for one, other in product(was, now)}
        sentences |= {f"{name} {one} missing ." for one in was if len(was) > len(now)}
        sentences |= {f"{name} extra {other} ." for other in now if len(now) > len(was)}
    return sentences


def all_true(text, first, second):
    said, unread = claims(text)
    return not unread and all(is_true(one, first, second) for one in said)


@given(seeds)
def test_all_that_the_language_says_about_two_scenes_is_read_and_true(seed):
    first, second, _ = two_scenes(seed)
    said, unread = claims(" ".join(sentences_about(first, second)))
    assert unread == 0
    assert [one for one in said if not is_true(one, first, second)] == []


@given(seeds, st.booleans())
def test_a_sentence_with_one_word_swapped_is_true_only_if_it_is_another_true_sentence(seed, familiar):
    first, second, rng = two_scenes(seed)
    said = sentences_about(first, second)
    true = {*said, *also_true(first, second)}
    words = rng.choice(said).split()
    words[rng.randrange(len(words))] = rng.choice(rng.choice(said).split() if familiar else WORDS)
    swapped = " ".join(words)
    assert all_true(swapped, first, second) == (swapped in true), swapped


@given(seeds)
def test_a_pairing_off_with_one_place_swapped_is_not_all_true(seed):
    """Each part has one partner, so what is true of a pair by itself is not true of all the pairs."""
    first, second, rng = two_scenes(seed)
    said = split("".join(piece for piece, _ in compare_kinds(first, second)[0]))
    chosen = rng.randrange(len(said))
    words = said[chosen].split()
    words[rng.choice((-3, -2))] = rng.choice([*PLACES, "missing", "extra"])
    swapped = " ".join(words)
    assert all_true(" ".join([*said[:chosen], swapped, *said[chosen + 1 :]]), first, second) == (
        swapped == said[chosen]
    )


@given(seeds)
def test_a_comparison_states_a_difference_just_where_the_language_finds_one(seed):
    first, second, _ = two_scenes(seed)
    for pieces, differ in (compare_places(first, second), compare_kinds(first, second)):
        said, _ = claims("".join(text for text, _ in pieces))
        assert any(states_difference(one) for one in said) == differ


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_is_read_without_an_error_and_each_sentence_is_read_or_unread(text):
    said, unread = claims(text)
    assert unread <= text.count(".") + 1
    assert len(said) <= len(text)
    assert all(is_true(one, RED_AT_A2_B3, RED_AT_B1) in (True, False) for one in said)


@pytest.mark.parametrize(
    "piece",
    ["red disc ", "a2 b1 ", "a2 ", "9", ". ", "a2 red disc same . ", "red disc a2 b1 . ", "none", "\x00", "(("],
)
def test_huge_text_is_read_in_a_moment(piece):
    start = time.perf_counter()
    for text in (piece * 100_000, f"red disc {piece * 100_000}2 .", f"red disc {piece * 100_000}x ."):
        claims(text)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none .", [Empty()]),
        ("a2 red disc .", [Lies("a2", "red disc")]),
        ("a2 none .", [Lies("a2", "none")]),
        ("a2 red disc stained .", [Lies("a2", "red disc stained")]),
        ("a2 red disc same .", [ComparedPlace("a2", "red disc", "red disc", differs=False)]),
        ("b1 none then blue ring .", [ComparedPlace("b1", "none", "blue ring", differs=True)]),
        ("b1 blue ring then blue ring broken .", [ComparedPlace("b1", "blue ring", "blue ring broken", differs=True)]),
        ("red disc b3 2 .", [Counted("red disc", "b3", 2)]),
        ("kind red disc b3 1 .", [Counted("red disc", "b3", 1)]),
        ("red disc none 0 .", [Counted("red disc", "none", 0)]),
        ("red disc a2 b1 .", [Paired("red disc", "a2", "b1")]),
        ("kind red disc a2 b1 .", [Paired("red disc", "a2", "b1")]),
        ("red disc scratched a2 b1 .", [Paired("red disc scratched", "a2", "b1")]),
        ("red disc b3 missing .", [Paired("red disc", "b3", "missing")]),
        ("red disc extra c3 .", [Paired("red disc", "extra", "c3")]),
        (
            "red disc extra a1 . b1 none . red disc extra a1 . red disc a2 a1 . red disc broken a2 a1 .",
            [
                Paired("red disc", "extra", "a1"),
                Lies("b1", "none"),
                Paired("red disc", "extra", "a1", 2, 2),
                Paired("red disc", "a2", "a1", 1, 3),
                Paired("red disc broken", "a2", "a1"),
            ],
        ),
        ("\n a2   red\tdisc.a3 none .", [Lies("a2", "red disc"), Lies("a3", "none")]),
    ],
)
def test_a_sentence_is_taken_apart_into_its_statements(text, expected):
    assert claims(text) == (expected, 0)


@pytest.mark.parametrize(
    "sentence",
    [
        "", "hello", "red disc", "a2", "red red", "disc red a2 same", "a2 red sprocket", "i9 red disc", "A2 red disc",
        "a2 red disc then", "a2 red disc then same", "a2 red disc same same", "red disc same", "red disc a2",
        "red disc a2 same", "red disc a2 b1 same", "red disc a2 b1 b3", "red disc a2 b1 missing", "red disc 1 1",
        "red disc extra missing", "red disc missing b1", "red disc a2 extra", "red disc a2 none", "red disc none b1",
        "red disc extra 1", "red disc a2 two", "red disc a2 -1", "red disc a2 9999", "red disc a2 : 2", "a2 2",
        "red disc a2 b1 , b3 missing", "a2 b1", "scratched red disc a2 b1",
    ],
)  # fmt: skip
def test_a_sentence_outside_the_grammar_is_unread(sentence):
    assert claims(f"{sentence} .") == ([], 1)


def test_a_last_sentence_without_its_stop_is_unread():
    said, unread = claims("a2 red disc same . b1 red disc")
    assert len(said) == 1 and unread == 1
    assert claims("none") == ([], 1)
    assert claims(" \n") == ([], 0)


@pytest.mark.parametrize(
    ("sentence", "truths"),
    [
        ("red disc a2 b1 . red disc b3 missing .", [True, True]),
        ("red disc b3 b1 . red disc a2 missing .", [True, True]),  # any pairing off is as good
        ("red disc a2 b1 .", [True]),  # it need not be complete
        ("red disc b3 missing .", [True]),
        ("red disc a2 b1 . red disc b3 b1 .", [True, False]),  # one part has one partner
        ("red disc a2 b1 . c4 none . red disc a2 b1 .", [True, True, False]),
        ("red disc a2 missing . red disc b3 missing .", [True, False]),  # only one is missing
        ("red disc a1 missing .", [False]),
        ("red disc extra b1 .", [False]),
        ("red disc scratched a2 b1 .", [False]),
        ("blue disc a2 b1 .", [False]),
        ("blue disc a2 missing .", [False]),
        ("red disc b1 1 .", [True]),  # of the test image
        ("red disc a2 1 . red disc b3 2 .", [False, False]),
        ("red disc b1 0 . red disc b1 1 . red disc b1 2 .", [False, True, False]),
        ("red disc none 0 .", [False]),
        ("red disc none 1 .", [False]),
        ("blue ring none 0 .", [True]),
        ("blue ring none 1 .", [False]),
        ("red disc broken none 0 .", [True]),
        ("a2 red disc .", [False]),
        ("b1 red disc .", [True]),
        ("c4 none .", [True]),
        ("d4 none .", [False]),  # the picture has no fourth row
        ("d4 none same .", [False]),
        ("c4 none same .", [True]),
        ("a2 red disc then none .", [True]),
        ("a2 red disc then blue disc .", [False]),
        ("a2 none then none .", [False]),
        ("c4 none then none .", [False]),
        ("b1 red disc scratched .", [False]),
        ("none .", [False]),
    ],
)
def test_a_statement_is_true_only_if_all_that_it_says_is_true(sentence, truths):
    said, unread = claims(sentence)
    assert unread == 0
    assert [is_true(one, RED_AT_A2_B3, RED_AT_B1) for one in said] == truths


def test_the_mirror_image_of_missing_is_extra():
    said, _ = claims("red disc extra a2 . red disc extra b3 . red disc b1 missing . red disc b3 2 . red disc a2 2 .")
    assert [is_true(one, RED_AT_B1, RED_AT_A2_B3) for one in said] == [True, False, False, True, False]


def test_parts_are_counted_in_reading_order_however_the_scene_lists_them():
    parts = (at("disc", "red", 1, 2), at("disc", "red", 1, 0), at("disc", "red", 0, 3))
    listed = Scene(rows=3, cols=4, parts=parts)
    assert all_true("red disc a4 1 . red disc b1 2 . red disc b3 3 .", listed, listed)


def test_none_is_true_of_an_empty_test_image():
    assert all_true("none .", RED_AT_B1, scene())


def test_a_second_pushpin_in_a_compartment_can_be_counted_and_is_not_the_same():
    normal, doubled = loco.PUSHPINS.draw("logical", 1, random.Random(0))
    assert doubled.defect == "additional_1_pushpin"
    place = next(part.place for part in doubled.parts if doubled.parts.count(part) == 2)
    for text in (
        "".join(piece for piece, _ in pieces) for pieces in (compare_kinds(normal, doubled)[0], tally(doubled))
    ):
        assert all_true(text, normal, doubled)
    other = "a1" if place != "a1" else "a2"
    assert not all_true(f"{place} yellow pin same .", normal, doubled)
    assert all_true(f"{place} yellow pin then yellow pin .", normal, doubled)
    assert all_true(f"{other} yellow pin same .", normal, doubled)
    assert all_true(f"yellow pin extra {place} .", normal, doubled)
    assert all_true(f"yellow pin {place} {place} . yellow pin extra {place} .", normal, doubled)
    assert not all_true(
        f"yellow pin {place} {place} . yellow pin {other} {place} . yellow pin extra {place} .", normal, doubled
    )


def test_only_sentences_about_both_images_compare():
    said, _ = claims("a2 red disc . red disc a2 1 . red disc none 0 . none . a2 red disc same . red disc a2 b1 .")
    assert [is_comparison(one) for one in said] == [False] * 4 + [True] * 2
    assert not any(states_difference(one) for one in said)


@pytest.mark.parametrize("sentence", ["a2 red disc then none .", "red disc a2 missing .", "red disc extra a2 ."])
def test_then_missing_and_extra_state_a_difference(sentence):
    said, _ = claims(sentence)
    assert [states_difference(one) and is_comparison(one) for one in said] == [True]

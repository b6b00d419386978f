"""Statements of rationales: what is read, what is true, and that the toy language is covered and tells the truth."""

import random
import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladlib.toy import loco
from ladlib.toy import statements as language
from ladlib.toy.parts import BLEMISHES, COLOURS, SHAPES
from ladlib.toy.products import at, with_parts
from ladlib.toy.scenes import Scene, changed, random_scene, shuffled
from ladlib.toy.statements import ComparedPlace, Counted, Empty, Paired, PartAt, check_statements, read_statements

seeds = st.integers(0, 2**32)
KINDS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
NAMES = [*KINDS, *(f"{kind} {blemish}" for kind in KINDS for blemish in BLEMISHES)]
PLACES = [f"{row}{col}" for row in "abcdefgh" for col in range(1, 9)]
WORDS = [*COLOURS, *SHAPES, *BLEMISHES, *PLACES, "none", "same", "then", "missing", "extra",
         *"0123456789", "."]  # fmt: skip


def scene(*parts):
    return with_parts(Scene(rows=3, cols=4, parts=()), list(parts))


RED_AT_A2_B3 = scene(at("disc", "red", 0, 1), at("disc", "red", 1, 2))
RED_AT_B1 = scene(at("disc", "red", 1, 0))


def two_scenes(seed):
    """Two general scenes: one and the same, moved about, changed, or unrelated."""
    rng = random.Random(seed)
    first = random_scene(rng, 12)
    second = rng.choice((first, shuffled(first, rng), random_scene(rng, 12)))
    return first, changed(second, rng, rng.choice((0, 1, 2, 3))), rng


def text_of(pieces):
    return "".join(text for text, _ in pieces)


def split(text):
    return [f"{sentence.strip()} ." for sentence in text.split(".") if sentence.strip()]


def sentences_about(first, second):
    """All that the language says about two scenes."""
    every = list(dict.fromkeys([*first.places(), *second.places()]))
    absent = next(name for name in NAMES if name not in language.kinds(second))
    pieces = [*language.list_parts(second), *language.tally(second), *language.count(absent, [])]
    pieces += [*language.name_at(second, second.places()), *language.compare_kinds(first, second)[0]]
    pieces += language.compare_places(first, second)[0] + language.compare_places(first, second, every)[0]
    return split(text_of(pieces))


def also_true(first, second):
    """What is as true as what the language says: other pairings off, and other kinds that are not there."""
    old, new = language.kinds(first), language.kinds(second)
    sentences = {f"{name} none 0 ." for name in NAMES if name not in new}
    for name in {*old, *new}:
        was, now = old.get(name, []), new.get(name, [])
        sentences |= {f"{name} {one} {other} ." for one, other in product(was, now)}
        sentences |= {f"{name} {one} missing ." for one in was if len(was) > len(now)}
        sentences |= {f"{name} extra {other} ." for other in now if len(now) > len(was)}
    return sentences


def all_true(text, first, second):
    return all(check_statements(text, first, second))


@given(seeds)
def test_all_that_the_language_states_about_two_scenes_is_read_and_true(seed):
    first, second, _ = two_scenes(seed)
    sentences = sentences_about(first, second)
    results = check_statements(" ".join(sentences), first, second)
    assert [pair for pair in zip(sentences, results, strict=True) if not pair[1]] == []


@given(seeds, st.booleans())
def test_a_sentence_with_one_word_swapped_is_true_only_if_it_is_another_true_sentence(seed, familiar):
    first, second, rng = two_scenes(seed)
    sentences = sentences_about(first, second)
    words = rng.choice(sentences).split()
    words[rng.randrange(len(words))] = rng.choice(rng.choice(sentences).split() if familiar else WORDS)
    swapped = " ".join(words)
    assert all_true(swapped, first, second) == (swapped in {*sentences, *also_true(first, second)}), swapped


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_is_read_without_an_error(text):
    results = check_statements(text, RED_AT_A2_B3, RED_AT_B1)
    assert len(results) <= text.count(".") + 1 and set(results) <= {True, False, None}


@pytest.mark.parametrize(
    "piece",
    ["red disc ", "a2 b1 ", "a2 ", "9", ". ", "a2 red disc same . ", "red disc a2 b1 . ", "none", "\x00", "(("],
)
def test_huge_text_is_read_in_a_moment(piece):
    start = time.perf_counter()
    for text in (piece * 100_000, f"red disc {piece * 100_000}2 .", f"red disc {piece * 100_000}x ."):
        read_statements(text)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none .", [Empty()]),
        ("none", [None]),  # perhaps cut off
        (" \n", []),
        ("a2 red disc .", [PartAt("a2", "red disc")]),
        ("a2 red disc same .", [ComparedPlace("a2", "red disc", "red disc", differs=False)]),
        ("b1 none then blue ring .", [ComparedPlace("b1", "none", "blue ring", differs=True)]),
        ("b1 blue ring then blue ring broken .", [ComparedPlace("b1", "blue ring", "blue ring broken", differs=True)]),
        ("kind red disc b3 1 .", [Counted("red disc", "b3", 1)]),
        ("red disc none 0 .", [Counted("red disc", "none", 0)]),
        ("kind red disc a2 b1 .", [Paired("red disc", "a2", "b1")]),
        ("red disc b3 missing .", [Paired("red disc", "b3", "missing")]),
        ("red disc extra c3 .", [Paired("red disc", "extra", "c3")]),
        (
            "red disc extra a1 . red disc extra a1 . red disc a2 a1 . red disc broken a2 a1 .",
            [Paired("red disc", "extra", "a1"), Paired("red disc", "extra", "a1", 2, 2),
             Paired("red disc", "a2", "a1", 1, 3), Paired("red disc broken", "a2", "a1")],
        ),
        ("\n a2   red\tdisc.a3 none . b1 red disc", [PartAt("a2", "red disc"), PartAt("a3", "none"), None]),
    ],
)  # fmt: skip
def test_a_text_is_taken_apart_into_its_statements(text, expected):
    assert read_statements(text) == expected


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
    assert read_statements(f"{sentence} .") == [None]


@pytest.mark.parametrize(
    ("text", "truths"),
    [
        ("red disc a2 b1 . red disc b3 missing .", [True, True]),
        ("red disc b3 b1 . red disc a2 missing .", [True, True]),  # any pairing off is as good
        ("red disc a2 b1 .", [True]),  # it need not be complete
        ("red disc b3 missing .", [True]),
        ("red disc a2 b1 . red disc b3 b1 .", [True, False]),  # one part has one partner
        ("red disc a2 b1 . c4 none . red disc a2 b1 .", [True, True, False]),
        ("red disc a2 missing . red disc b3 missing .", [True, False]),  # only one is missing
        ("red disc a1 missing . red disc extra b1 . red disc scratched a2 b1 . blue disc a2 b1 .", [False] * 4),
        ("red disc b1 1 . red disc a2 1 . red disc b3 2 .", [True, False, False]),  # of the test image
        ("red disc b1 0 . red disc b1 2 . red disc none 0 . red disc none 1 .", [False] * 4),
        ("blue ring none 0 . red disc broken none 0 . blue ring none 1 .", [True, True, False]),
        ("b1 red disc . c4 none . a2 red disc . b1 red disc scratched . none .", [True, True, False, False, False]),
        ("c4 none same . d4 none same . d4 none .", [True, False, False]),  # the picture has no fourth row
        ("a2 red disc then none . a2 red disc then blue disc .", [True, False]),
        ("a2 none then none . c4 none then none .", [False] * 2),
    ],
)
def test_a_statement_is_true_only_if_all_that_it_states_is_true(text, truths):
    assert check_statements(text, RED_AT_A2_B3, RED_AT_B1) == truths


def test_extra_is_the_mirror_image_of_missing_and_parts_are_counted_in_reading_order():
    text = "red disc extra a2 . red disc extra b3 . red disc b1 missing . red disc b3 2 . red disc a2 2 ."
    assert check_statements(text, RED_AT_B1, RED_AT_A2_B3) == [True, False, False, True, False]
    listed = Scene(rows=3, cols=4, parts=(at("disc", "red", 1, 2), at("disc", "red", 0, 3)))
    assert check_statements("red disc a4 1 . red disc b3 2 . none .", listed, listed) == [True, True, False]
    assert all_true("none .", listed, scene())


def test_a_second_pushpin_in_a_compartment_can_be_counted_and_is_not_the_same():
    normal, doubled = loco.PUSHPINS.draw("logical", 1, random.Random(0))
    assert doubled.defect == "additional_1_pushpin"
    place = next(part.place for part in doubled.parts if doubled.parts.count(part) == 2)
    other = "a1" if place != "a1" else "a2"
    pair, extra = f"yellow pin {place} {place} .", f"yellow pin extra {place} ."
    assert all_true(text_of(language.compare_kinds(normal, doubled)[0]), normal, doubled)
    assert all_true(text_of(language.tally(doubled)), normal, doubled)
    assert not all_true(f"{place} yellow pin same .", normal, doubled)
    assert all_true(f"{place} yellow pin then yellow pin .", normal, doubled)
    assert all_true(f"{other} yellow pin same . {pair} {extra}", normal, doubled)
    assert not all_true(f"{pair} yellow pin {other} {place} . {extra}", normal, doubled)

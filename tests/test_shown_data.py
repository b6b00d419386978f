"""Pictures and tables of data before any model, and of conversations; held-out questions."""

import pytest
from tiny import tiny_base, tiny_profile, write_data

from ladlib import generate
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import fit, open_image
from ladlib.data.pairing import pair
from ladlib.report import conversations as shown
from ladlib.report import samples
from ladlib.sft_data import make_conversations


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def loco(data):
    """(folder, pairs) of the tiny MVTec LOCO AD."""
    return find_dataset(data, "mvtec_loco"), pair(read_dataset(data, "mvtec_loco"), seed=0)


def test_counts_stand_beside_those_of_the_release(data):
    frame = samples.counts_frame(read_dataset(data, "mvtec_loco")).set_index("category")
    assert frame.loc["juice_bottle"].to_dict() == {
        "train": "3 (released: 335)", "validation": "1 (released: 54)", "test good": "2 (released: 94)",
        "test logical": "2 (released: 142)", "test structural": "1 (released: 94)",
    }  # fmt: skip
    assert frame.loc["pushpins", "train"] == "0 (released: 372)"


def test_the_tokens_told_are_those_of_the_resized_image(loco):
    folder, pairs = loco
    settings = tiny_profile().data
    frame = samples.view_frame([one.test for one in pairs], folder, settings)
    seen = {fit(open_image(folder / one.test.image), settings.min_pixels, settings.max_pixels).size for one in pairs}
    assert set(frame["visual tokens"]) == {width // 28 * (height // 28) for width, height in seen}
    assert frame["images"].sum() == len(pairs)


def test_kinds_are_counted_with_their_images(data):
    made = make_conversations(tiny_profile(data__sft_samples=99), data, 0)
    frame = shown.kinds_frame(made)
    assert frame["conversations"].sum() == len(made)


def test_a_right_answer_counts_word_for_word(data):
    asked = make_conversations(tiny_profile(data__sft_samples=2), data, 0)
    answers = {"before": [f" {one.answer}\n" for one in asked], "after": ["" for _ in asked]}
    frame = shown.right_frame(asked, answers)
    assert set(frame["before"]) == {"100%"} and set(frame["after"]) == {"0%"}
    assert frame["questions"].sum() == 2


def test_a_model_answers_each_question_and_judges_each_pair(data):
    profile = tiny_profile(data__sft_samples=3)
    asked = make_conversations(profile, data, 0)
    model, processor = generate.load(profile, tiny_base())
    assert len(generate.answer_questions(model, processor, asked, data, profile)) == 3
    assert len(generate.answer_pairs(model, processor, [asked[0].pair], data, profile)) == 1
    assert generate.answer_pairs(model, processor, [], data, profile) == []

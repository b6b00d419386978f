from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import write_ad, write_loco

from ladlib.data import read_dataset
from ladlib.data.layout import published, published_categories, published_images
from ladlib.data.pairing import committed_pairs, pair, ranked
from ladlib.errors import UserError

names = st.lists(st.text("abc019/", min_size=1, max_size=6), min_size=1, max_size=20, unique=True)


def test_every_test_image_gets_one_training_normal_of_its_category(tmp_path):
    write_loco(tmp_path)
    write_loco(tmp_path, category="pushpins")
    samples = read_dataset(tmp_path, "mvtec_loco")
    pairs = pair(samples, seed=0)
    assert [one.test for one in pairs] == [sample for sample in samples if sample.split == "test"]
    for one in pairs:
        assert one.reference.startswith(f"{one.test.category}/train/good/")
        assert one.id == one.test.id


def test_the_seed_changes_the_pairs_and_the_same_seed_does_not(tmp_path):
    write_ad(tmp_path, normals={"train": 30, "test": 30})
    samples = read_dataset(tmp_path, "mvtec_ad")
    assert pair(samples, seed=0) == pair(samples, seed=0)
    assert pair(samples, seed=0) != pair(samples, seed=1)


def test_a_category_without_training_normals_cannot_be_paired(tmp_path):
    write_ad(tmp_path)
    samples = [one for one in read_dataset(tmp_path, "mvtec_ad") if one.split == "test"]
    with pytest.raises(UserError, match="cable of mvtec_ad has test images and no training normals"):
        pair(samples, seed=0)


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(names, st.integers(0, 5), st.randoms())
def test_the_choice_is_one_of_the_candidates_and_does_not_depend_on_their_order(candidates, seed, random):
    chosen = ranked("test.png", candidates, seed, 1)[0]
    random.shuffle(candidates)
    assert chosen in candidates
    assert ranked("test.png", candidates, seed, 1)[0] == chosen


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(names, st.data())
def test_losing_another_normal_leaves_the_pair_as_it_is(candidates, data):
    chosen = ranked("test.png", candidates, 0, 1)[0]
    kept = data.draw(st.sets(st.sampled_from(candidates)))
    assert ranked("test.png", kept | {chosen}, 0, 1)[0] == chosen


def test_the_committed_pairs_are_those_of_the_published_counts():
    """To write them again: ``rows`` as csv with the header test,reference."""
    images = published_images("mvtec_loco")
    normals = {category: names for (category, split, _), names in images.items() if split == "train"}
    tested = sorted((category, names) for (category, split, _), names in sorted(images.items()) if split == "test")
    rows = [(test, ranked(test, normals[category], 0, 1)[0]) for category, names in tested for test in names]
    assert committed_pairs() == rows


def test_the_committed_pairs_cover_the_1568_published_test_images_once():
    pairs = committed_pairs()
    assert len(pairs) == len({test for test, _ in pairs}) == 1568
    per_category = Counter(test.split("/")[0] for test, _ in pairs)
    for category in published_categories("mvtec_loco"):
        counts = published("mvtec_loco")
        kinds = ("good", "logical", "structural")
        assert per_category[category] == sum(counts[category, "test", kind][0] for kind in kinds)
    for test, reference in pairs:
        assert test.split("/")[0] == reference.split("/")[0] and "/train/good/" in reference


def test_no_normal_stands_beside_far_more_images_than_chance_gives():
    """Hashes spread the choice: 300 to 400 normals share 220 to 320 images of a category."""
    assert max(Counter(reference for _, reference in committed_pairs()).values()) <= 8


def test_reading_a_folder_gives_the_committed_pairs_where_the_best_normal_is_there(tmp_path):
    committed = dict(committed_pairs())
    write_loco(tmp_path, normals={"train": 335, "test": 2}, logical=[], structural=[])
    for one in pair(read_dataset(tmp_path, "mvtec_loco"), seed=0):
        assert one.reference == committed[one.test.image]

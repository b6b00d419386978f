from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import write_ad, write_loco

from ladlib.data import read_dataset
from ladlib.data.layout import published_images
from ladlib.data.pairing import committed_pairs, pair, ranked

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


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(names, st.integers(0, 5), st.data())
def test_neither_the_order_of_the_candidates_nor_the_loss_of_another_changes_the_choice(candidates, seed, data):
    chosen = ranked("test.png", candidates, seed, 1)[0]
    others = data.draw(st.sets(st.sampled_from(candidates)))
    assert chosen in candidates
    assert ranked("test.png", candidates[::-1], seed, 1) == ranked("test.png", others | {chosen}, seed, 1) == [chosen]


def test_the_committed_pairs_are_those_of_the_published_counts():
    """To write them again: ``rows`` as csv with the header test,reference."""
    images = published_images("mvtec_loco")
    normals = {category: names for (category, split, _), names in images.items() if split == "train"}
    tested = sorted((category, names) for (category, split, _), names in sorted(images.items()) if split == "test")
    rows = [(test, ranked(test, normals[category], 0, 1)[0]) for category, names in tested for test in names]
    assert committed_pairs() == rows


def test_the_committed_pairs_cover_the_1568_published_test_images_once_and_no_normal_too_often():
    """Hashes spread the choice: 300 to 400 normals share 220 to 320 images of a category."""
    pairs = committed_pairs()
    assert len(pairs) == len({test for test, _ in pairs}) == 1568
    assert all(test.split("/")[0] == reference.split("/")[0] for test, reference in pairs)
    assert max(Counter(reference for _, reference in pairs).values()) <= 8


def test_reading_a_folder_gives_the_committed_pairs_where_the_best_normal_is_there(tmp_path):
    committed = dict(committed_pairs())
    write_loco(tmp_path, normals={"train": 335, "test": 2}, logical=[], structural=[])
    for one in pair(read_dataset(tmp_path, "mvtec_loco"), seed=0):
        assert one.reference == committed[one.test.image]

"""Rationales of made-up generations on drawn toy LOCO images, checked against the scenes."""

import pytest
from made_up import made_up, write_generations, write_rows

from ladlib.config import Toy
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.runs import RunFolder, read_jsonl
from ladlib.toy import loco
from ladlib.toy.datasets import write_loco
from ladlib.toy.products import at, with_parts
from ladlib.toy.scenes import Scene
from ladlib.toy.statements import compare_kinds, compare_places
from ladlib.toy.truth import Changed, check, read_scenes, summary, what_changed, write_rationales


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Toy LOCO with every logical defect."""
    root = tmp_path_factory.mktemp("toy")
    write_loco(root, Toy(train=2, good=2, logical=12, structural=1))
    return find_dataset(root, "mvtec_loco")


def generation(truth, text, reference=None):
    category, _, kind, name = truth.image.split("/")
    number = int(name.removesuffix(".png"))
    row = made_up("sft", category, kind.removesuffix("_anomalies"), number, "", text or "nothing")
    return row.model_copy(update={"test": truth.image, "reference": reference or f"{category}/train/good/000.png"})


def answered(truth, think, answer="yes"):
    return generation(truth, f"<think>{think}</think><answer>{answer}</answer>")


def first_test(folder, category, defect=""):
    """The first test image of ``category`` with ``defect``."""
    truths = read_scenes(folder).values()
    return next(one for one in truths if one.image.startswith(f"{category}/test/") and one.scene.defect == defect)


def a_pin_is_missing(folder):
    """A picture with the place where a pin is missing and a place that still holds one."""
    truth = first_test(folder, "pushpins", "missing_pushpin")
    (gone,) = truth.changed.places
    return truth, gone, next(place for place in truth.scene.places() if place != gone)


def test_every_image_keeps_its_scene_and_what_its_defect_changed(folder):
    truths = read_scenes(folder)
    images = [image for split in ("train", "validation", "test") for image in folder.glob(f"*/{split}/*/*.png")]
    assert set(truths) == {image.relative_to(folder).as_posix() for image in images}
    for truth in truths.values():
        unchanged = not truth.scene.defect or truth.scene.defect == "missing_separator"
        assert (truth.changed == Changed()) == unchanged, truth


DISC = at("disc", "red", 0, 1)


@pytest.mark.parametrize(
    ("parts", "places", "kinds"),
    [
        ([], ("a2",), ("red disc",)),
        ([DISC.model_copy(update={"blemish": "broken"})], ("a2",), ("red disc", "red disc broken")),
        ([DISC, DISC], ("a2",), ("red disc",)),
        ([at("disc", "red", 1, 0)], ("a2", "b1"), ()),
    ],
)
def test_a_part_gone_blemished_doubled_or_moved_is_a_change(parts, places, kinds):
    normal = with_parts(Scene(rows=2, cols=2, parts=()), [DISC])
    assert what_changed(normal, with_parts(normal, parts)) == Changed(places=places, kinds=kinds)


def test_a_true_comparison_of_every_defect_that_changes_parts_names_it_by_place_or_by_kind(folder):
    truths = read_scenes(folder)
    tests = [truth for truth in truths.values() if "/test/" in truth.image and truth.scene.defect]
    assert len({(truth.image.split("/")[0], truth.scene.defect) for truth in tests}) > 40
    generations = []
    for truth in tests:
        reference = truths[f"{truth.image.split('/')[0]}/train/good/000.png"].scene
        pieces = compare_kinds(reference, truth.scene)[0] + compare_places(reference, truth.scene)[0]
        generations.append(answered(truth, "".join(text for text, _ in pieces)))
    for truth, row in zip(tests, check(generations, folder), strict=True):
        assert (row["names_difference"] is None) == (truth.scene.defect == "missing_separator")
        assert row["names_difference"] or row["category"] != "screw_bag"
    (row,) = check([answered(first_test(folder, "pushpins"), "a1 yellow pin then none .")], folder)
    assert row["names_difference"] is None


def test_a_row_counts_what_was_true_and_what_follows_from_it(folder):
    truth, gone, kept = a_pin_is_missing(folder)
    think = f"{gone} yellow pin then none . {kept} yellow pin same . {kept} blue pin same . so it is ."
    (row,) = check([answered(truth, think)], folder)
    assert row == {
        "id": "pushpins/test/logical/000", "category": "pushpins", "anomaly": "logical", "label": "yes",
        "statements": 3, "true": 2, "unread": 1, "names_difference": True, "implied": "yes", "answer": "yes",
        "agrees": True, "words": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("think", "named"),
    [
        ("{gone} yellow pin then none .", True),
        ("yellow pin {gone} missing .", True),
        ("yellow pin {kept} missing .", True),  # it is the number that changed
        ("yellow pin extra {kept} .", False),  # untrue
        ("yellow pin {kept} {kept} .", False),  # true, yet no difference
        ("{gone} yellow pin then blue pin . {gone} yellow pin same . {kept} yellow pin then none .", False),  # untrue
        ("{gone} none .", False),  # true, yet no comparison
        ("", False),
    ],
)
def test_the_difference_is_named_by_a_true_statement_of_difference_about_it(folder, think, named):
    truth, gone, kept = a_pin_is_missing(folder)
    (row,) = check([answered(truth, think.format(gone=gone, kept=kept))], folder)
    assert row["names_difference"] is named


def test_a_true_difference_that_is_not_the_defects_does_not_name_it(folder):
    """The parts of the bag lie anywhere, so other places differ from the reference image as well."""
    truth = first_test(folder, "screw_bag", next(iter(loco.SCREW_BAG.structural)))
    parts = read_scenes(folder)["screw_bag/train/good/000.png"].scene.at()
    place = min(set(parts) - set(truth.changed.places) - set(truth.scene.at()))
    (row,) = check([answered(truth, f"{place} {parts[place].name} then none .")], folder)
    assert (row["true"], row["names_difference"]) == (1, False)


@pytest.mark.parametrize(
    ("text", "implied", "answer", "agrees"),
    [
        ("<think>a1 yellow pin same .</think><answer>no</answer>", "no", "no", True),
        ("<think>a1 yellow pin same .</think><answer>yes</answer>", "no", "yes", False),
        ("<think>a1 yellow pin then none .</think><answer>yes</answer>", "yes", "yes", True),
        ("<think>yellow pin a1 a1 . yellow pin a2 missing .</think><answer>no</answer>", "yes", "no", False),
        ("<think>yellow pin extra a2 .</think><answer>yes</answer>", "yes", "yes", True),
        ("<think>yellow pin a1 1 . a1 yellow pin . none . all is well .</think><answer>no</answer>", None, "no", None),
        ("<think>a1 yellow pin same .</think><answer>maybe</answer>", "no", None, None),
        ("a1 yellow pin same . <answer>no</answer>", None, "no", None),
    ],
)
def test_the_implied_verdict_is_compared_with_the_strict_answer(folder, text, implied, answer, agrees):
    (row,) = check([generation(first_test(folder, "pushpins"), text)], folder)
    assert (row["implied"], row["answer"], row["agrees"]) == (implied, answer, agrees)


def test_a_statement_that_is_repeated_counts_once_and_a_pair_each_time(folder):
    thinks = ["a1 yellow pin same . " * 50, "yellow pin a1 a1 . " * 3]
    rows = check([answered(first_test(folder, "pushpins"), think) for think in thinks], folder)
    assert [(row["statements"], row["true"], row["words"]) for row in rows] == [(1, 1, 250), (3, 1, 15)]


def test_the_summary_takes_shares_of_what_could_be_right(folder):
    normal, (broken, gone, kept) = first_test(folder, "pushpins"), a_pin_is_missing(folder)
    generations = [
        answered(broken, f"{gone} yellow pin then none .", "yes"),
        answered(broken, f"yellow pin {kept} 99 . {kept} none .", "yes"),  # an answer without a comparison
        answered(normal, "a1 yellow pin same . a2 yellow pin then none .", "no"),
        answered(normal, "", "yes"),
        answered(normal, "a1 yellow pin same .", "who knows"),
    ]
    assert summary(check(generations, folder)) == {
        "statements_true": 3 / 6, "difference_named": 1 / 2, "agree": 1 / 4, "compared": 3 / 5, "empty": 1 / 5,
        "statements_mean": 6 / 5, "words_mean": 30 / 5,
    }  # fmt: skip
    assert set(summary([]).values()) == {None}


def test_rationales_are_written_a_row_a_generation(folder, tmp_path):
    run = RunFolder(tmp_path)
    generations = [answered(first_test(folder, name), "a1 yellow pin same .") for name in ("pushpins", "juice_bottle")]
    write_generations(run, "sft", generations)
    assert write_rationales(run, "sft", 0, folder) == run.rationales("sft", 0)
    assert read_jsonl(run.rationales("sft", 0)) == check(generations, folder)


def test_what_is_missing_or_of_an_earlier_form_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="no generations"):
        write_rationales(RunFolder(tmp_path), "sft", 0, folder)
    with pytest.raises(UserError, match=r"no scenes\.jsonl"):
        check([], tmp_path)
    truth = first_test(folder, "pushpins")
    with pytest.raises(UserError, match="no scene of 'pushpins/train/good/999.png'"):
        check([generation(truth, "", reference="pushpins/train/good/999.png")], folder)
    write_rows(tmp_path / "scenes.jsonl", [truth.model_dump(exclude={"changed"}, mode="json")])
    with pytest.raises(UserError, match="draw the toy datasets again"):
        read_scenes(tmp_path)

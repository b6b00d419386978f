"""Rationales of made-up generations on drawn toy LOCO images, held against the scenes."""

import json
from collections import Counter

import pytest
from made_up import write_rows

from ladlib.config import Toy
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.records import Generation
from ladlib.runs import RunFolder, read_jsonl
from ladlib.toy import loco
from ladlib.toy import products as training
from ladlib.toy.datasets import pictures, write_datasets
from ladlib.toy.products import at, blemish, remove, with_parts
from ladlib.toy.scenes import Scene
from ladlib.toy.statements import compare_kinds, compare_places
from ladlib.toy.truth import (
    Changed,
    Truth,
    check,
    read_scenes,
    summary,
    summary_by_label,
    what_changed,
    write_rationales,
)

SIZES = Toy(train=2, good=2, logical=12, structural=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Toy LOCO with every logical defect."""
    root = tmp_path_factory.mktemp("toy") / "data"
    write_datasets(root, SIZES)
    return find_dataset(root, "mvtec_loco")


def text_of(pieces):
    return "".join(text for text, _ in pieces[0])


def generation(truth, text, reference=None):
    category, _, kind, _ = truth.image.split("/")
    anomaly = kind.removesuffix("_anomalies")
    return Generation(
        id=truth.image.removesuffix(".png"), arm="sft", seed=0, dataset="mvtec_loco", category=category,
        anomaly=anomaly, defect=truth.scene.defect, label="no" if anomaly == "good" else "yes",
        reference=reference or f"{category}/train/good/000.png", test=truth.image, text=text, answer=None, p_yes=0.5,
        prompt_sha256="", images_sha256=("", ""), pixels=((28, 28), (28, 28)), finish="stop", prompt_tokens=1,
        completion_tokens=1, seconds=0.1,
    )  # fmt: skip


def said(truth, think, answer="yes"):
    return generation(truth, f"<think>{think}</think><answer>{answer}</answer>")


def drawn(folder, category, defect=""):
    """The first test image of ``category`` with ``defect``."""
    found = (one for one in read_scenes(folder).values() if one.image.startswith(f"{category}/test/"))
    return next(one for one in found if one.scene.defect == defect)


def test_every_image_keeps_its_scene_and_what_its_defect_changed(folder):
    truths = read_scenes(folder)
    assert set(truths) == {path.relative_to(folder).as_posix() for path in folder.glob("*/t*/*/*.png")} | {
        path.relative_to(folder).as_posix() for path in folder.glob("*/validation/*/*.png")
    }
    for truth in truths.values():
        unchanged = not truth.scene.defect or truth.scene.defect == "missing_separator"
        assert (truth.changed == Changed()) == unchanged, truth


@pytest.mark.parametrize("product", [*training.PRODUCTS, *loco.PRODUCTS], ids=lambda product: product.name)
def test_the_changed_places_are_where_the_normal_scene_and_the_picture_differ(product):
    for anomaly, defects in (("logical", product.logical), ("structural", product.structural)):
        for picture in pictures(product, "test", anomaly, len(defects), 0):
            changed = what_changed(picture.normal, picture.scene)
            for place in picture.scene.places():
                there = [
                    sorted(part.name for part in one.parts if part.place == place)
                    for one in (picture.normal, picture.scene)
                ]
                assert (there[0] != there[1]) == (place in changed.places)
            old, new = (Counter(part.name for part in one.parts) for one in (picture.normal, picture.scene))
            assert set(changed.kinds) == {kind for kind in old | new if old.get(kind, 0) != new.get(kind, 0)}


def test_a_part_gone_a_part_blemished_and_a_part_doubled_are_changes():
    discs = with_parts(Scene(rows=2, cols=2, parts=()), [at("disc", "red", 0, 1)])
    assert what_changed(discs, remove("red disc")(discs, _first())) == Changed(places=("a2",), kinds=("red disc",))
    blemished = what_changed(discs, blemish("broken")(discs, _first()))
    assert blemished == Changed(places=("a2",), kinds=("red disc", "red disc broken"))
    doubled = with_parts(discs, [*discs.parts, *discs.parts])
    assert what_changed(discs, doubled) == Changed(places=("a2",), kinds=("red disc",))
    moved = with_parts(discs, [at("disc", "red", 1, 0)])
    assert what_changed(discs, moved) == Changed(places=("a2", "b1"), kinds=())


def _first():
    class First:
        def choice(self, options):
            return options[0]

        def sample(self, options, count):
            return options[:count]

    return First()


def test_a_true_comparison_of_every_defect_that_changes_parts_names_it_by_place_or_by_kind(folder):
    truths = read_scenes(folder)
    tests = [one for one in truths.values() if "/test/" in one.image and one.scene.defect]
    assert len({(one.image.split("/")[0], one.scene.defect) for one in tests}) > 40
    rows = []
    for truth in tests:
        reference = truths[f"{truth.image.split('/')[0]}/train/good/000.png"].scene
        think = text_of(compare_kinds(reference, truth.scene)) + text_of(compare_places(reference, truth.scene))
        rows += check([said(truth, think)], folder)
    named = {(row["id"].split("/")[0], row["names_difference"]) for row in rows}
    assert ("screw_bag", True) in named and ("screw_bag", False) not in named
    assert [truth.scene.defect for truth, row in zip(tests, rows, strict=True) if row["names_difference"] is None] == [
        truth.scene.defect for truth in tests if truth.scene.defect == "missing_separator"
    ]


def test_a_row_says_what_was_true_and_what_follows_from_it(folder):
    truth = drawn(folder, "pushpins", "missing_pushpin")
    gone = truth.changed.places[0]
    kept = next(place for place in truth.scene.places() if place != gone)
    think = f"{gone} yellow pin then none . {kept} yellow pin same . {kept} blue pin same . so it is ."
    (row,) = check([said(truth, think)], folder)
    assert row == {
        "id": truth.image.removesuffix(".png"), "category": "pushpins", "anomaly": "logical", "label": "yes",
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
        ("{gone} yellow pin then blue pin .", False),  # untrue
        ("{gone} yellow pin same .", False),
        ("{kept} yellow pin then none .", False),
        ("blue pin {gone} missing .", False),
        ("{gone} none .", False),  # true, yet no comparison
        ("", False),
    ],
)
def test_the_difference_is_named_by_a_true_statement_of_difference_about_it(folder, think, named):
    truth = drawn(folder, "pushpins", "missing_pushpin")
    gone = truth.changed.places[0]
    kept = next(place for place in truth.scene.places() if place != gone)
    (row,) = check([said(truth, think.format(gone=gone, kept=kept))], folder)
    assert row["names_difference"] is named


def test_a_true_difference_that_is_not_the_defects_does_not_name_it(folder):
    """A broken fruit elsewhere: the fruit lie anywhere, so other places differ from the reference image as well."""
    truths = read_scenes(folder)
    truth = drawn(folder, "screw_bag", next(iter(loco.SCREW_BAG.structural)))
    reference = truths["screw_bag/train/good/000.png"].scene
    places = sorted({part.place for part in reference.parts} - set(truth.changed.places) - set(truth.scene.at()))
    (row,) = check([said(truth, f"{places[0]} {reference.at()[places[0]].name} then none .")], folder)
    assert (row["true"], row["names_difference"]) == (1, False)


def test_no_difference_can_be_named_in_a_normal_image_or_without_a_separator(folder):
    for defect in ("", "missing_separator"):
        (row,) = check([said(drawn(folder, "pushpins", defect), "a1 yellow pin then none .")], folder)
        assert row["names_difference"] is None


@pytest.mark.parametrize(
    ("text", "implied", "answer", "agrees"),
    [
        ("<think>a1 yellow pin same .</think><answer>no</answer>", "no", "no", True),
        ("<think>a1 yellow pin same .</think><answer>yes</answer>", "no", "yes", False),
        ("<think>a1 yellow pin then none .</think><answer>yes</answer>", "yes", "yes", True),
        ("<think>yellow pin a1 a1 . yellow pin a2 missing .</think><answer>no</answer>", "yes", "no", False),
        ("<think>yellow pin extra a2 .</think><answer>yes</answer>", "yes", "yes", True),
        ("<think>yellow pin a1 a2 .</think><answer>no</answer>", "no", "no", True),
        ("<think>yellow pin a1 1 .</think><answer>no</answer>", None, "no", None),
        ("<think>a1 yellow pin .</think><answer>no</answer>", None, "no", None),
        ("<think>all is well</think><answer>no</answer>", None, "no", None),
        ("<think>a1 yellow pin same .</think><answer>maybe</answer>", "no", None, None),
        ("a1 yellow pin same . <answer>no</answer>", None, "no", None),
        ("", None, None, None),
    ],
)
def test_the_implied_verdict_is_held_against_the_strict_answer(folder, text, implied, answer, agrees):
    (row,) = check([generation(drawn(folder, "pushpins"), text)], folder)
    assert (row["implied"], row["answer"], row["agrees"]) == (implied, answer, agrees)


def test_a_statement_that_is_repeated_counts_once(folder):
    (row,) = check([said(drawn(folder, "pushpins"), "a1 yellow pin same . " * 50)], folder)
    assert (row["statements"], row["true"], row["words"]) == (1, 1, 250)


def test_a_part_that_is_paired_off_again_is_another_untrue_statement(folder):
    (row,) = check([said(drawn(folder, "pushpins"), "yellow pin a1 a1 . " * 3)], folder)
    assert (row["statements"], row["true"]) == (3, 1)


def test_the_summary_takes_shares_of_what_could_be_right(folder):
    normal, broken = drawn(folder, "pushpins"), drawn(folder, "pushpins", "missing_pushpin")
    place = broken.changed.places[0]
    rows = check(
        [
            said(broken, f"{place} yellow pin then none .", "yes"),
            said(broken, "yellow pin a1 1 . yellow pin a1 3 .", "yes"),  # an answer without a comparison
            said(normal, "a1 yellow pin same . a2 yellow pin then none .", "no"),
            said(normal, "", "yes"),
            said(normal, "a1 yellow pin same .", "who knows"),
        ],
        folder,
    )
    total = summary(rows)
    true = 1 + (1 if place != "a1" else 0) + 1 + 0 + 1
    assert total["statements_true"] == pytest.approx(true / 6)
    assert total["difference_named"] == pytest.approx(1 / 2)
    assert total["agree"] == pytest.approx(1 / 4)
    assert total["compared"] == pytest.approx(3 / 5)
    assert total["empty"] == pytest.approx(1 / 5)
    assert total["statements_mean"] == pytest.approx(6 / 5)
    assert (total["images"], total["unread_mean"]) == (5, 0)
    parts = summary_by_label(rows)
    assert (parts["yes"]["images"], parts["no"]["images"]) == (2, 3)
    assert parts["no"]["difference_named"] is None


def test_a_summary_of_nothing_has_no_shares():
    assert {value for key, value in summary([]).items() if key != "images"} == {None}


def test_rationales_are_written_beside_the_generations_a_row_an_image(folder, tmp_path):
    run = RunFolder(tmp_path)
    made = [said(drawn(folder, "pushpins"), "a1 yellow pin same .", "no"), said(drawn(folder, "juice_bottle"), "")]
    write_rows(run.generations("sft", 0), [one.model_dump(mode="json") for one in made])
    path = write_rationales(run, "sft", 0, folder)
    assert path == run.rationales("sft", 0)
    assert read_jsonl(path) == check(made, folder)
    assert [row["id"] for row in read_jsonl(path)] == [one.id for one in made]


def test_what_is_missing_is_said_in_words(folder, tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(UserError, match="no generations"):
        write_rationales(run, "sft", 0, folder)
    with pytest.raises(UserError, match=r"no scenes\.jsonl"):
        check([], tmp_path)
    unknown = generation(drawn(folder, "pushpins"), "", reference="pushpins/train/good/999.png")
    with pytest.raises(UserError, match="999.png is not kept"):
        check([unknown], folder)


def test_scenes_of_an_earlier_form_are_refused(folder, tmp_path):
    truth = Truth.model_validate_json((folder / "scenes.jsonl").read_text().splitlines()[0])
    (tmp_path / "scenes.jsonl").write_text(json.dumps({"image": "a.png", "scene": truth.scene.model_dump()}) + "\n")
    with pytest.raises(UserError, match="draw the toy datasets again"):
        read_scenes(tmp_path)

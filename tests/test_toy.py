"""The toy world: what it draws, that it is the same everywhere, and that nothing leaks into it."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ladlib.checksums import sha256
from ladlib.config import Toy
from ladlib.data import FOLDERS, read_dataset
from ladlib.data.check import check
from ladlib.data.mmad import locate, read_knowledge, read_questions
from ladlib.errors import UserError
from ladlib.toy import backdrops, loco
from ladlib.toy import products as training
from ladlib.toy.datasets import WORLD, write_datasets, write_loco
from ladlib.toy.parts import CELL, SHAPES
from ladlib.toy.products import at
from ladlib.toy.scenes import crowded_scene, describe, one_coloured_scene, placed
from ladlib.toy.tasks import FORBIDDEN_TAGS, LESSONS, draw_lesson

SIZES = Toy(train=2, good=2, logical=12, structural=3)
PRODUCTS = (*training.PRODUCTS, *loco.PRODUCTS)
seeds = st.integers(0, 10**6)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "data"
    write_datasets(out, SIZES)
    return out


def digests(folder: Path) -> dict[Path, str]:
    return {path: sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_another_seed_gives_other_pictures_and_more_images_leave_the_earlier_ones_unchanged(toy, tmp_path):
    few = SIZES.model_copy(update={"logical": 1})
    write_loco(tmp_path / "other", few.model_copy(update={"seed": 1}))
    write_loco(tmp_path / "more", few.model_copy(update={"train": 3}))
    image = "mvtec_loco_anomaly_detection/pushpins/train/good/001.png"
    assert sha256(tmp_path / "other" / image) != sha256(toy / image) == sha256(tmp_path / "more" / image)


def test_pictures_that_change_come_with_a_new_number_of_the_world(toy):
    """Where this fails and it was meant to: raise WORLD and put the new digest here."""
    names = sorted(path for path in toy.rglob("*.png") if "good" in path.parts)
    pixels = b"".join(Image.open(path).convert("RGB").tobytes() for path in names)
    assert (WORLD, hashlib.sha256(pixels).hexdigest()[:16]) == (2, "00670dd019503e2b")


def test_a_folder_of_other_files_sizes_or_worlds_is_refused_and_left_unchanged(toy, tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("mine")
    before = digests(toy)
    for folder, sizes in ((toy, SIZES.model_copy(update={"train": 3})), (tmp_path, SIZES)):
        with pytest.raises(UserError, match="of other sizes, of another seed or of an earlier version"):
            write_datasets(folder, sizes)
    monkeypatch.setattr("ladlib.toy.datasets.WORLD", WORLD + 1)
    with pytest.raises(UserError, match="of an earlier version"):
        write_datasets(toy, SIZES)
    assert digests(toy) == before and [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("dataset", ["mvtec_ad", "visa", "mvtec_loco"])
def test_the_readers_of_the_real_layouts_find_every_toy_image_with_its_defect_and_its_kind(toy, dataset):
    lines = (toy / FOLDERS[dataset] / "scenes.jsonl").read_text().splitlines()
    drawn = {row["image"]: row["scene"]["defect"] for row in map(json.loads, lines)}
    samples = read_dataset(toy, dataset)
    assert {sample.image: sample.defect for sample in samples} == drawn
    by_name = {product.name: product for product in PRODUCTS}
    for sample in samples:
        assert sample.anomaly == "good" or sample.defect in getattr(by_name[sample.category], sample.anomaly)


def test_every_toy_question_has_its_image_and_an_answer_and_the_check_calls_them_synthetic(toy):
    ids = {sample.id for dataset in ("mvtec_ad", "visa") for sample in read_dataset(toy, dataset)}
    questions = read_questions(toy)
    assert {question.type for question in questions} >= {"Anomaly Detection", "Defect Classification", "Object Details"}
    assert all(locate(question.image)[1] in ids and question.answer in question.options for question in questions)
    assert set(read_knowledge(toy)) == {"MVTec", "VisA", "MVTec-LOCO"}
    assert "synthetic toy datasets" in check(toy)[0].message


@given(seeds, st.sampled_from(list(LESSONS)))
def test_no_lesson_of_pretraining_uses_a_product_or_the_tags_of_the_task(seed, kind):
    lesson = draw_lesson(kind, random.Random(seed), most=12)
    text = lesson.question + "".join(piece for piece, _ in lesson.answer)
    opened = [text.find(f"<{tag}>") for tag in FORBIDDEN_TAGS]
    assert -1 in opened or opened[0] > opened[1]
    assert "anomal" not in text and "product" not in text
    assert {scene.backdrop for scene in lesson.scenes} <= set(backdrops.GENERAL)


@given(seeds, st.sampled_from(PRODUCTS))
def test_every_defect_changes_its_scene_and_stays_on_the_grid(seed, product):
    rng = random.Random(seed)
    for anomaly, defects in (("logical", product.logical), ("structural", product.structural)):
        for index in range(len(defects)):
            normal, scene = product.draw(anomaly, index, rng)
            assert (normal.parts, normal.backdrop) != (scene.parts, scene.backdrop), scene.defect
            assert all(0 <= part.row < scene.rows and 0 <= part.col < scene.cols for part in scene.parts)


@settings(max_examples=20)
@given(seeds, st.sampled_from(sorted(SHAPES)), st.integers(0, 8))
def test_no_part_is_cut_off_by_the_edge_of_the_picture(seed, shape, looseness):
    size = (3 * CELL, 2 * CELL)
    for row, col in ((0, 0), (1, 2)):
        stamp, left, top = placed(at(shape, "red", row, col), size, random.Random(seed), looseness)
        assert 0 <= left <= size[0] - stamp.width and 0 <= top <= size[1] - stamp.height


def test_the_lessons_and_scenes_of_pretraining_are_drawn_as_ever():
    lines = []
    for seed in range(20):
        rng = random.Random(seed)
        lessons = [draw_lesson(kind, rng, most=12) for kind in LESSONS]
        scenes = [scene for lesson in lessons for scene in lesson.scenes]
        scenes += [crowded_scene(rng), one_coloured_scene(rng, 16)]
        lines += [repr((lesson.question, lesson.answer)) for lesson in lessons]
        lines += [f"{scene.backdrop} {describe(scene)}" for scene in scenes]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == "fe1abe080e4b0deb"

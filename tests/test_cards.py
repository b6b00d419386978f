"""Cards of pairs, answers, conversations and rollouts: what they choose, and that texts of models stay text."""

import numpy as np
import pytest
from made_up import HOSTILE, frame_of, made_up, made_up_arm, made_up_group
from PIL import Image

from ladlib.errors import UserError
from ladlib.records import Conversation, Pair, Sample
from ladlib.report import cards

TEXTS = ("<script>alert(1)</script>", "x" * 50_000, "\u202eright to left", "\x00\x1b[31m", HOSTILE)


@pytest.fixture
def root(tmp_path):
    """A data folder with MVTec LOCO AD's name and two images."""
    folder = tmp_path / "mvtec_loco_anomaly_detection"
    for name in ("good.png", "test.png", "pushpins/train/good/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), "grey").save(folder / name)
    Image.new("L", (60, 40), 240).save(folder / "mask.png")
    return tmp_path


def pair(anomaly="logical", masks=("mask.png",), defect="a_b $x$", number=0):
    defect = "" if anomaly == "good" else defect
    return Pair(reference="good.png", test=Sample(
        id=f"a/{number}", dataset="mvtec_loco", category="pushpins", split="test", anomaly=anomaly, defect=defect,
        image="test.png", masks=masks))  # fmt: skip


def test_pairs_show_reference_test_image_and_the_defect_on_it(root):
    html = cards.pairs([pair(), pair("good", ()), pair(masks=())], root).data
    assert [html.count(f'alt="{name}') for name in ("reference image", "test image", "defect in red")] == [3, 3, 1]
    assert "pushpins: a b $x$" in html and "pushpins: good" in html
    assert "defect in red" not in cards.pairs([pair()], root, masks=False).data


def test_a_large_mask_keeps_a_defect_of_one_pixel(tmp_path):
    mask = np.zeros((1000, 2000), dtype=np.uint8)
    mask[500, 1000] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    overlay = cards.defect_overlay(np.zeros((160, 320, 3), dtype=np.uint8), [tmp_path / "mask.png"])
    assert len({tuple(pixel) for pixel in overlay.reshape(-1, 3).tolist()}) == 2
    red = overlay[80, 160].astype(int)
    assert red[0] - red[2] > 50


def test_one_pair_per_defect_and_every_unknown_one():
    defects = ("cut", "cut", "unknown", "unknown", "bent")
    pairs = [pair(number=number, defect=defect) for number, defect in enumerate(defects)]
    assert [one.test.defect for one in cards.one_per_defect(pairs)] == ["cut", "unknown", "unknown", "bent"]
    assert cards.one_per_defect(pairs, ["structural"]) == []


@pytest.mark.parametrize(
    ("right", "wrong", "expected"), [(9, 9, (3, 3)), (9, 1, (5, 1)), (1, 9, (1, 5)), (0, 2, (0, 2)), (0, 0, (0, 0))]
)
def test_half_of_the_answers_shown_are_right_and_half_wrong_where_there_are_enough(root, right, wrong, expected):
    rows = [made_up("sft", "pushpins", "good", number, "no") for number in range(right)]
    rows += [made_up("sft", "pushpins", "good", 50 + number, "yes") for number in range(wrong)]
    html = cards.answers(frame_of(rows or made_up_arm("sft", ["no"])).head(len(rows)), root).data
    assert (html.count(">right: answers"), html.count(">wrong: answers")) == expected
    assert html.count("<img") == 2 * sum(expected)


def test_a_missing_image_is_refused_by_its_name(root):
    (root / "mvtec_loco_anomaly_detection" / "good.png").unlink()
    with pytest.raises(UserError, match="good.png"):
        cards.answers(frame_of(made_up_arm("sft", ["no"])), root)


def test_conversations_say_what_was_answered_and_whether_it_is_right(root):
    one = Conversation(pair=pair(), kind="Caption", question="<b>What?</b>", answer="A nut.")
    html = cards.conversations([one], root, {"before": ["a nut"], "after": [" A nut. "]}).data
    assert "before, wrong: a nut" in html and "after, right: A nut." not in html and "after, right:" in html
    assert "&lt;b&gt;What?" in html and html.count("alt=") == 2


def test_tokens_with_loss_have_a_second_cue_and_repeats_are_counted():
    html = cards.tokens([("<pad>", False)] * 3 + [("yes\n", True)]).data
    assert "&lt;pad&gt; × 3" in html and "border-bottom" in html and "yes↵" in html


def test_a_rollout_is_a_table_with_a_bar_for_each_advantage():
    html = cards.rollout(made_up_group()).data
    assert html.count("<tr>") == 5 and "+1.22" in html and "-1.22" in html and "transistor/&lt;b&gt;" in html


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_what_a_model_wrote_is_shown_as_text_and_in_short(root, text):
    group = {"step": 1, "id": text, "label": "yes", "completions": [
        {"text": text, "accuracy": 0.0, "format": 0.0, "reward": 0.0, "advantage": 0.0}]}  # fmt: skip
    shown = cards.answers(frame_of([made_up("base", "pushpins", "logical", 0, "no", text=text)]), root)
    for html in (cards.rollout(group).data, cards.tokens([(text[:99], True)]).data, shown.data):
        assert "<script" not in html and not set(html) & set("\x00\x1b\u202e") and len(html) < 20_000

import numpy as np
import pytest
from made_up import CATEGORIES, HOSTILE, grpo_rows, made_up, made_up_arm, made_up_group, sft_rows
from PIL import Image

from ladlib.errors import UserError
from ladlib.metrics import score, score_trivial
from ladlib.records import Sample
from ladlib.report import figures
from ladlib.report.curves import running_mean
from ladlib.report.pictures import choose, verdict
from ladlib.report.rollouts import telling
from ladlib.report.style import strip_control
from ladlib.runs import RunFolder


def test_a_saved_figure_has_the_same_bytes_twice(tmp_path):
    for place in ("a", "b"):
        figures.save(figures.loss_curve(sft_rows()), RunFolder(tmp_path / place), "loss")
    for kind in ("png", "pdf"):
        first, second = ((tmp_path / place / "figures" / f"loss.{kind}").read_bytes() for place in "ab")
        assert first == second and len(first) > 1000


def test_grpo_curves_stand_gaps_and_one_step():
    rows = [{**grpo_rows(1)[0], "kl": None}]
    titles = [axes.get_title(loc="left") for axes in figures.grpo_curves(rows).axes]
    assert "Mean reward" in titles and len(titles) == 9


def test_a_running_mean_leaves_gaps_out():
    values = running_mean(np.array([1.0, np.nan, 3.0, 5.0]), window=3)
    assert values.tolist() == [1.0, 2.0, 4.0, 4.0]
    assert np.isnan(running_mean(np.array([np.nan]), window=1)).all()


def test_the_confusion_matrix_counts_unparsed_answers_apart():
    rows = [*made_up_arm("sft", ["yes", "no"]), made_up("sft", "pushpins", "good", 9, "no", text="?")]
    texts = [text.get_text() for text in figures.confusion(rows).axes[0].texts]
    assert texts == ["2\n40%", "2\n40%", "1\n20%", "4\n50%", "4\n50%", "0\n0%"]


def test_category_bars_show_each_arm_and_the_trivial_line():
    rows = [*made_up_arm("base", ["yes", "no"]), *made_up_arm("sft_grpo", ["no"])]
    labels = figures.category_bars(score(rows) + score_trivial(rows)).axes[0].get_legend_handles_labels()[1]
    assert labels == ["always yes", "base", "SFT + GRPO"]


def test_roc_leaves_out_an_arm_that_saw_one_kind_of_image():
    rows = [made_up("base", "pushpins", "good", 0, "no"), *made_up_arm("sft", ["yes", "no"])]
    assert [label.split()[0] for label in figures.roc(rows).axes[0].get_legend_handles_labels()[1]] == ["SFT"]


def samples():
    rows = [("train", "good", ""), ("test", "good", ""), ("test", "logical", "missing_nut")]
    return [
        Sample(id=f"{category}/{split}/{anomaly}", dataset="mvtec_loco", category=category, split=split,
               anomaly=anomaly, defect=defect, image="x.png")
        for category in CATEGORIES for split, anomaly, defect in rows
    ]  # fmt: skip


def test_counts_are_drawn_by_split_and_by_defect():
    assert figures.counts_bars(samples()).axes[0].get_legend_handles_labels()[1] == [
        "train",
        "test, good",
        "test, logical",
    ]
    names = [label.get_text() for label in figures.defect_bars(samples()).axes[0].get_yticklabels()]
    assert names == ["pushpins: missing nut", "screw bag: missing nut"]


def test_a_gallery_lays_the_mask_over_its_image():
    image, mask = Image.new("RGB", (60, 40), "grey"), np.zeros((40, 60), dtype=np.uint8)
    mask[10, 20] = 240  # one pixel must stay visible
    panels = figures.gallery([("a_b $x$", image, image, mask), ("good", image, image, None)], per_line=2).axes
    overlay = panels[4].get_images()[0].get_array()
    assert overlay.shape == (40, 60, 3)
    marked = overlay[10, 20].astype(int)
    assert marked[0] - marked[2] > 50 and len({tuple(pixel) for pixel in overlay.reshape(-1, 3).tolist()}) == 2
    assert not panels[5].get_images() and panels[5].texts[0].get_text() == "no defect"


def test_a_large_mask_keeps_a_defect_of_one_pixel():
    image, mask = Image.new("L", (2000, 1000)), np.zeros((1000, 2000), dtype=np.uint8)
    mask[500, 1000] = 255
    overlay = figures.gallery([("", image, image, mask)], per_line=1).axes[2].get_images()[0].get_array()
    assert len({tuple(pixel) for pixel in overlay.reshape(-1, 3).tolist()}) == 2


def test_cards_show_both_images_in_the_colour_of_the_verdict(tmp_path):
    for name in ("good.png", "test.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    rows = [made_up("sft", "pushpins", "good", 0, "no"), made_up("sft", "pushpins", "good", 1, "no", text=HOSTILE)]
    figure = figures.generation_cards(rows, tmp_path, n=2)
    right, wrong = (part.axes for part in figure.subfigs)
    assert right[0].spines["left"].get_edgecolor() != wrong[0].spines["left"].get_edgecolor()
    assert right[2].texts[1].get_text().startswith("right: answers no")
    assert wrong[2].texts[1].get_text().startswith("wrong: answers unparsed")
    figures.save(figure, RunFolder(tmp_path), "cards")


def test_cards_of_a_missing_image_name_the_file(tmp_path):
    with pytest.raises(UserError, match="good.png"):
        figures.generation_cards(made_up_arm("sft", ["no"]), tmp_path, n=1)


@pytest.mark.parametrize(
    ("right", "wrong", "expected"), [(9, 9, (3, 3)), (9, 1, (5, 1)), (1, 9, (1, 5)), (0, 2, (0, 2)), (0, 0, (0, 0))]
)
def test_cards_are_half_right_and_half_wrong_where_there_are_enough(right, wrong, expected):
    rows = [made_up("sft", "pushpins", "good", number, "no") for number in range(right)]
    rows += [made_up("sft", "pushpins", "good", 50 + number, "yes") for number in range(wrong)]
    marks = [verdict(one).split(":")[0] for one in choose(rows, 6)]
    assert (marks.count("right"), marks.count("wrong")) == expected


def test_a_rollout_table_shows_what_each_try_earned():
    frame = figures.rollout_frame(made_up_group())
    assert frame["reward"].tolist() == [2.0, 1.0, 0.0, 1.0]
    assert frame["advantage"].tolist() == pytest.approx([1.2246, 0.0, -1.2246, 0.0], abs=1e-3)
    html = figures.rollout_table(made_up_group()).to_html()
    assert "<script" not in html and "<b>" not in html and "&lt;script" in html
    assert html == figures.rollout_table(made_up_group()).to_html()


@pytest.mark.parametrize(
    "text", [HOSTILE, "x" * 50_000, "word " * 10_000, "\\alpha $x_1$", "\u202eseY", "\x1b[31m=1+1"]
)
def test_whatever_a_model_writes_is_shown_safely_in_a_notebook(tmp_path, text):
    group = made_up_group()
    group["completions"][0]["text"] = text
    table = figures.rollout_table(group).to_html()
    assert "<script" not in table and not set(table) & set("\x00\x1b\u202e") and len(table) < 20_000
    one = made_up("sft", "pushpins", "good", 0, "no", text=text)
    for path in {one.reference, one.test}:
        Image.new("RGB", (12, 12)).save(tmp_path / path)
    card = figures.generation_cards([one], tmp_path, n=1)
    card.canvas.draw()  # a text that matplotlib took for mathematics would raise here
    shown = card.subfigs[0].axes[2].texts[2].get_text()
    assert shown.count("\n") < 9 and "\x00" not in shown


def test_the_telling_group_is_the_last_one_whose_rewards_differ():
    spread, flat = made_up_group(step=1), made_up_group(rewards=(1.0, 1.0), step=2)
    assert telling([spread, flat]) is spread
    assert telling([flat]) is flat
    assert telling([]) is None


def test_control_characters_are_shown_and_lines_kept():
    assert strip_control("a\x00\nб\u200f") == "a\ufffd\nб\ufffd"

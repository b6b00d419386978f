"""The qualitative figure: chosen by its rule, marked where truth is known, safe with texts that mean harm."""

import shutil
import warnings

import pytest
from made_up import HOSTILE, made_up, made_up_run, sft_rows

from ladlib.report import answers, figures, groups, shown, write_report
from ladlib.report.qualitative import by_pattern, pattern, qualitative
from ladlib.report.stored import read_run
from ladlib.report.style import save
from ladlib.runs import RELEASED, RunFolder

TEXTS = (
    "<script>alert(1)</script>",
    "x" * 50_000,
    "$x_1$ and $\\frac{",
    "\u202eright to left",
    "\x00\x1b[31m",
    HOSTILE,
)


def pair(base, trained, number=0, category="pushpins", anomaly="logical"):
    return {arm: made_up(arm, category, anomaly, number, said) for arm, said in (("base", base), ("sft_grpo", trained))}


@pytest.mark.parametrize(
    ("base", "trained", "expected"),
    [
        ("yes", "yes", "every model right"),
        ("no", "yes", "training helped"),
        ("yes", "no", "training hurt"),
        ("no", "no", "every model wrong"),
    ],
)
def test_a_pair_shows_one_pattern_of_outcomes(base, trained, expected):
    assert pattern(pair(base, trained)) == expected


def test_the_first_pair_of_a_pattern_is_chosen_of_a_category_not_shown_above():
    pairs = [pair("yes", "yes", 1), pair("yes", "yes", 2), pair("no", "no", 3), pair("no", "no", 4, "screw_bag")]
    chosen = by_pattern(pairs)
    assert {name: one["base"].id for name, one in chosen.items()} == {
        "every model right": "pushpins/test/logical/001",
        "every model wrong": "screw_bag/test/logical/004",
    }
    assert by_pattern(pairs[:3])["every model wrong"]["base"].id == "pushpins/test/logical/003"


def test_without_the_judged_images_there_is_no_figure(tmp_path):
    assert qualitative(read_run(made_up_run(tmp_path)), tmp_path) is None


# Figures as files


def test_a_pdf_has_its_fonts_embedded_and_the_same_bytes_each_time(tmp_path):
    files = []
    for name in ("one", "two"):
        run = RunFolder(tmp_path / name)
        save(figures.loss_curve(sft_rows()), run, "loss")
        files.append((run.figures / "loss.pdf").read_bytes())
    assert files[0] == files[1]
    assert b"/FontFile2" in files[0] and b"/Type3" not in files[0] and b"CreationDate" not in files[0]


# Texts that mean harm, in what notebooks show


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_tables_of_model_text_show_it_as_text(text):
    one = made_up("base", "pushpins", "logical", 0, "no", text=text)
    rollout = {"step": 1, "id": "<b>", "label": "yes", "completions": [
        {"text": text, "accuracy": 0.0, "format": 0.0, "reward": 0.0, "advantage": 0.0}]}  # fmt: skip
    for table in (
        shown.as_table(answers.unparsed_frame([one])),
        groups.reward_table([text], "yes"),
        figures.rollout_table(rollout),
    ):
        html = table.to_html()
        assert "<script" not in html and "<b>" not in html
        assert not any(mark in html for mark in ("\x00", "\x1b", "\u202e"))


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_cards_draw_any_text(text, tmp_path):
    from PIL import Image

    for name in ("good.png", "test.png"):
        Image.new("RGB", (28, 28)).save(tmp_path / name)
    one = made_up("base", "$x_1$", "logical", 0, "no", text=text).model_copy(update={"defect": "$\\frac{"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks is drawn as a box
        assert figures.generation_cards([one], tmp_path).axes
        assert answers.found_by_defect([one]).axes


@pytest.mark.slow
def test_two_reports_of_the_released_run_have_the_same_bytes(tmp_path):
    runs = [RunFolder(shutil.copytree(RELEASED / "toy", tmp_path / name)) for name in ("one", "two")]
    for run in runs:
        write_report(run, tmp_path / "no images")
    kinds = {".csv", ".md", ".tex", ".json", ".png", ".pdf", ".html"}
    first, second = ({path.relative_to(run.root): path.read_bytes() for path in run.root.rglob("*")
                      if path.suffix in kinds} for run in runs)  # fmt: skip
    assert [name for name in first if first[name] != second[name]] == []

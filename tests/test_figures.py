"""Every figure is drawn from made-up records, with alt text and its palette; the same figure gives the same bytes."""

import subprocess
import sys
import warnings

import pandas as pd
import pytest
from made_up import HOSTILE, frame_of, grpo_rows, made_up, made_up_arm, sft_rows
from matplotlib.colors import to_hex

from ladlib.errors import UserError
from ladlib.report import figures
from ladlib.runs import RunFolder

ANSWERS = frame_of([*made_up_arm("base", ["yes", "no"]), *made_up_arm("sft_grpo", ["no", "yes", "yes"])])
UNKNOWN = frame_of(made_up_arm("large", ["yes", "no"])).assign(p_yes=None)
POINTS = pd.DataFrame({"method": ["a", "b"], "recall": [50.0, None], "specificity": [50.0, 10.0]})
MODELS = pd.DataFrame({"method": ["base", "SFT", "SFT"], "arm": ["base", "sft", "sft"], "by_type": [10.0, 50.0, 90.0],
                       "balanced_accuracy": [50.0, 55.0, 61.0]})  # fmt: skip
DRAWN = {
    "strategy": lambda: figures.strategy(MODELS),
    "confusion": lambda: figures.confusion(ANSWERS),
    "categories": lambda: figures.categories(ANSWERS),
    "roc": lambda: figures.roc(ANSWERS),
    "training of SFT": lambda: figures.training(sft_rows()),
    "training of GRPO": lambda: figures.training(grpo_rows()),
    "training from scratch": lambda: figures.training([{"step": 1, "reward": 0.5, "spread": 1.0}]),
    "collapse": lambda: figures.collapse({"healthy": grpo_rows(30), "learning rate too high": grpo_rows(30)}),
    "operating_points": lambda: figures.operating_points({"x": POINTS}),
}
PALETTE = {value for name, value in vars(figures).items() if name.isupper() and isinstance(value, str)}
PALETTE = {to_hex(colour) for colour in PALETTE} | {"#ffffff", "#000000"}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_has_alt_text_titles_and_colours_of_the_palette(name):
    figure = DRAWN[name]()
    assert len(figure.alt) > 40 and "Panels: " in figure.alt
    assert all(axes.lines or axes.patches or axes.collections for axes in figure.axes)
    drawn = {to_hex(line.get_color()) for axes in figure.axes for line in axes.lines}
    assert drawn <= PALETTE
    inside, page = figure.get_tightbbox(), figure.get_size_inches()
    assert inside.x0 >= -0.05 and inside.y0 >= -0.05 and inside.x1 <= page[0] + 0.05 and inside.y1 <= page[1] + 0.05


def test_a_notebook_shows_a_figure_as_an_image_with_its_alt_text(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda data, raw: shown.append(data))
    figures.training(sft_rows())._ipython_display_()
    assert shown[0]["text/html"].startswith("<img") and "alt='Training by step" in shown[0]["text/html"]


@pytest.mark.parametrize("name", ["grpo-loop", "grpo-spread", "grpo-objective"])
def test_a_drawing_of_notebook_03_is_an_image_with_alt_text(name):
    html = figures.drawing(name).data
    assert "data:image/svg+xml;base64," in html and len(html.split("alt='")[1].split("'")[0]) > 60


def test_a_saved_figure_has_the_same_bytes_twice_and_embeds_its_fonts(tmp_path):
    for place in "ab":
        figures.save(figures.training(sft_rows()), RunFolder(tmp_path / place), "loss")
    for form in ("png", "pdf"):
        first, second = ((tmp_path / place / "figures" / f"loss.{form}").read_bytes() for place in "ab")
        assert first == second and len(first) > 1000
    assert b"/FontFile2" in first and b"/Type3" not in first and b"CreationDate" not in first


def test_the_confusion_matrix_counts_unparsed_answers_apart():
    rows = frame_of([*made_up_arm("sft", ["yes", "no"]), made_up("sft", "pushpins", "good", 9, "no", text="?")])
    texts = [text.get_text() for text in figures.confusion(rows).axes[0].texts]
    assert texts == ["2\n40%", "2\n40%", "1\n20%", "4\n50%", "4\n50%", "0\n0%"]


def test_categories_are_accuracies_of_good_and_logical_images_beside_always_yes():
    axes = figures.categories(ANSWERS).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["always yes", "base", "SFT + GRPO"]
    base, trained = (one.lines[0].get_ydata() for one in axes.containers)
    assert base.tolist() == [0.5, 0.5, 0.5] and trained.tolist() == [0.5, 0.5, 0.5]


def test_a_variant_without_probabilities_or_of_one_kind_of_image_has_no_curve():
    good = frame_of([made_up("base", "pushpins", "good", 0, "no")])
    axes = figures.roc(pd.concat([good, frame_of(made_up_arm("sft", ["yes", "no"])), UNKNOWN])).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["SFT: 50.0"]


def test_a_training_log_may_have_gaps_and_one_step():
    titles = [axes.get_title(loc="left") for axes in figures.training([{**grpo_rows(1)[0], "kl": None}]).axes]
    assert "Mean reward" in titles and len(titles) == 8


@pytest.mark.parametrize(
    ("draw", "given", "message"),
    [
        (figures.confusion, ANSWERS.head(0), "no answers"),
        (figures.categories, ANSWERS.head(0), "no answers"),
        (figures.roc, ANSWERS.head(0), "no answers"),
        (figures.training, [], "no rows"),
        (figures.collapse, {"healthy": []}, "no rows"),
    ],
)
def test_nothing_to_draw_is_refused(draw, given, message):
    with pytest.raises(UserError, match=message):
        draw(given)


@pytest.mark.parametrize("text", [HOSTILE, "\\alpha $x_1$ $\\frac{", "\u202eseY"])
def test_names_from_outside_are_drawn_as_text(text):
    rows = frame_of([made_up("base", "$x_1$", "logical", 0, "no", text=text)]).assign(category=text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks is drawn as a box
        assert figures.categories(rows, note=text).axes


def test_the_report_needs_no_torch_and_tables_and_cards_no_matplotlib():
    heavy = "print({'torch', 'transformers', 'trl', 'matplotlib'} & set(sys.modules))"
    code = f"import sys, ladlib.report.tables, ladlib.report.cards; {heavy}; import ladlib.report.page; {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "{'matplotlib'}"]

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ladlib.errors import UserError
from ladlib.report import comparison_text, figures, published, write_report
from ladlib.report.curves import running_mean
from ladlib.report.pictures import choose, verdict
from ladlib.report.rollouts import telling
from ladlib.report.stored import read_generations, read_run
from ladlib.report.style import printable
from ladlib.report.tables import categories, comparison, departures, markdown, readable, write
from ladlib.rewards import group_advantages
from ladlib.runs import RunFolder
from ladlib.schema import Generation, RunRecord, Sample
from ladlib.settings import PROFILES, load_profile

CATEGORIES = ("pushpins", "screw_bag")
HOSTILE = "<script>alert('$x_1$')</script> | a & b_c \x00"


def made_up(arm, category, anomaly, number, answer, text=None, seed=0):
    """A generation that no model wrote."""
    return Generation(
        id=f"{category}/test/{anomaly}/{number:03d}", arm=arm, seed=seed, dataset="mvtec_loco", category=category,
        anomaly=anomaly, defect="" if anomaly == "good" else "missing_part",
        label="no" if anomaly == "good" else "yes", reference="good.png", test="test.png",
        text=text or f"<think>made up</think><answer>{answer}</answer>", answer=None,
        p_yes=0.8 if answer == "yes" else 0.3, prompt_sha256="", images_sha256=("", ""),
        pixels=((28, 28), (28, 28)), finish="stop", prompt_tokens=1, completion_tokens=1, seconds=0.1,
    )  # fmt: skip


def made_up_arm(arm, answers, seed=0):
    kinds = ("good", "logical", "structural")
    return [
        made_up(arm, category, anomaly, number, answer, seed=seed)
        for category in CATEGORIES
        for anomaly in kinds
        for number, answer in enumerate(answers)
    ]


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_generations(run, arm, rows, seed=0):
    write_rows(run.generations(arm, seed), [row.model_dump(mode="json") for row in rows])


def sft_rows(count=6):
    return [{"step": step, "loss": 2.0 / step} for step in range(1, count + 1)]


def grpo_rows(count=6):
    keys = ("reward", "accuracy_reward", "format_reward", "reward_std", "frac_reward_zero_std", "completion_length",
            "clipped_share", "yes_rate", "kl", "entropy", "grad_norm", "seconds_generate", "seconds_reward",
            "seconds_update")  # fmt: skip
    return [{"step": step, **{key: 0.1 * step for key in keys}} for step in range(1, count + 1)]


def made_up_group(rewards=(2.0, 1.0, 0.0, 1.0), step=1):
    scored = zip(rewards, group_advantages(rewards), strict=True)
    tries = [
        {"text": HOSTILE, "accuracy": float(reward > 1), "format": float(reward > 0), "reward": reward, "advantage": up}
        for reward, up in scored
    ]
    return {"step": step, "id": "transistor/<b>", "category": "transistor", "label": "yes", "completions": tries}


def made_up_run(root, profile="toy"):
    run = RunFolder(root)
    run.write(RunRecord(profile=profile, seed=0))
    write_generations(run, "base", made_up_arm("base", ["yes", "no"]))
    hostile = made_up("sft_grpo", "pushpins", "logical", 9, "no", text=HOSTILE)
    write_generations(run, "sft_grpo", [*made_up_arm("sft_grpo", ["yes", "no", "yes"]), hostile])
    write_rows(run.log("sft", 0), sft_rows())
    write_rows(run.log("sft_grpo", 0), grpo_rows())
    write_rows(run.rollouts("sft_grpo", 0), [made_up_group()])
    return run


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    run = made_up_run(tmp_path_factory.mktemp("report") / "run")
    write_report(run)
    return run


def files_of(run):
    return {path.relative_to(run.root): path.read_bytes() for path in run.root.rglob("*") if path.is_file()}


# The report as a whole


def test_a_report_holds_metrics_tables_figures_and_a_page(reported):
    names = {path.as_posix() for path in files_of(reported)}
    assert {"metrics.json", "report.html"} < names
    assert {f"tables/{name}.{kind}" for name in ("comparison", "categories", "departures")
            for kind in ("csv", "md", "tex")} < names  # fmt: skip
    assert {f"figures/{name}.{kind}" for kind in ("png", "pdf") for name in (
        "categories", "confusion", "roc", "training-sft-seed0", "training-sft_grpo-seed0")} < names  # fmt: skip
    arms = {row["arm"] for row in json.loads(reported.metrics_json.read_text())}
    assert arms == {"base", "sft_grpo", "always_yes", "always_no", "base_rate"}


def test_the_same_stored_files_give_the_same_bytes(reported, tmp_path):
    copy = RunFolder(tmp_path / "elsewhere")
    for part in ("run.json", "generations", "logs"):
        take = shutil.copytree if (reported.root / part).is_dir() else shutil.copy
        (copy.root).mkdir(exist_ok=True)
        take(reported.root / part, copy.root / part)
    write_report(copy)
    first, second = files_of(reported), files_of(copy)
    assert {str(name) for name in first if first[name] != second.get(name)} == set()
    assert set(first) == set(second)


def test_what_a_model_wrote_cannot_break_the_page(reported):
    page = reported.report.read_text(encoding="utf-8")
    assert "<script" not in page and "\x00" not in page
    assert "&lt;script&gt;alert(" in page and "transistor/&lt;b&gt;" in page


def test_the_page_needs_nothing_from_elsewhere(reported):
    page = reported.report.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert len(sources) == 5 and set(sources) == {"data:image/png;base64,"}


def test_toy_numbers_are_announced_as_such(reported):
    assert "never what the 3B scores" in reported.report.read_text(encoding="utf-8")


def test_a_run_of_the_paper_profile_carries_no_toy_banner(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="paper", seed=0))
    write_generations(run, "base", made_up_arm("base", ["yes"]))
    page = write_report(run).read_text(encoding="utf-8")
    assert "never what the 3B scores" not in page
    assert load_profile("paper").label in page


def test_reporting_imports_neither_torch_nor_transformers():
    code = (
        "import sys, ladlib.report.figures, ladlib.report; print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Bad input


def test_a_run_without_generations_is_refused_with_the_mend(tmp_path):
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="toy", seed=0))
    with pytest.raises(UserError, match="no generations.*04_evaluation"):
        write_report(run)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json"}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="run.json"):
        write_report(RunFolder(tmp_path))


@pytest.mark.parametrize("line", ['{"id": "a"}\n', "not json\n"])
def test_a_damaged_line_is_refused_by_the_name_of_its_file(tmp_path, line):
    run = made_up_run(tmp_path)
    with run.generations("base", 0).open("a") as file:
        file.write(line)
    with pytest.raises(UserError, match="base-seed0.jsonl"):
        read_generations(run)


def test_an_empty_training_log_is_no_reason_to_refuse_the_rest(tmp_path):
    run = made_up_run(tmp_path)
    run.log("sft", 0).write_text("")
    assert read_run(run).logs["sft", 0] == []
    with pytest.raises(UserError, match="no rows"):
        figures.loss_curve([])


# Tables


@pytest.fixture(scope="module")
def stored(reported):
    return read_run(reported)


def test_the_comparison_has_the_run_then_the_trivial_then_the_published_rows(stored):
    frame = comparison(stored)
    assert list(frame["block"].unique()) == ["run", "trivial", "published"]
    assert list(frame["method"])[:4] == [
        "base (toy-base)", "SFT: not yet", "SFT + GRPO", "large (toy-large): not yet",
    ]  # fmt: skip
    lad = frame[frame["method"] == "LAD-Reasoner 3B"].iloc[0]
    assert (lad["accuracy"], lad["f1"], lad["label"]) == (60.4, 63.5, "published, other data")


def test_every_row_of_every_scored_table_says_what_it_is_of(stored):
    label = load_profile("toy").label
    for frame in (comparison(stored), categories(stored)):
        assert set(frame["label"]) == {label, published.LABEL}
    assert set(comparison(stored).query("block != 'published'")["label"]) == {label}


def test_the_compared_values_are_the_hand_worked_ones(stored):
    # base answers yes, no to two good and two logical images in each of two categories: half of each right
    base = comparison(stored).iloc[0]
    assert [base[key] for key in ("accuracy", "f1", "recall", "specificity", "accuracy_all")] == [50.0] * 5
    assert base["f1_all"] == 57.1  # TP 4, FP 2, FN 4: 8 / 14
    # sft_grpo: yes, no, yes to three images of a kind, and one unparsed logical one: TP 4, FN 3, FP 4, TN 2
    trained = comparison(stored).iloc[2]
    assert (trained["images"], trained["accuracy"], trained["unparsed"]) == (13, 46.2, 7.7)
    assert (trained["format"], trained["f1"]) == (92.3, 53.3)


def test_several_seeds_of_an_arm_are_averaged(tmp_path):
    run = made_up_run(tmp_path)
    write_generations(run, "base", made_up_arm("base", ["no", "no"], seed=1), seed=1)
    base = comparison(read_run(run)).iloc[0]
    assert (base["seeds"], base["recall"], base["specificity"]) == (2, 25.0, 75.0)


def test_the_terminal_table_names_every_method_and_label(reported):
    text = comparison_text(reported, width=140)
    for part in ("toy model on drawn images", "published, other data", "SFT + GRPO", "large (toy-large): not yet",
                 "always yes", "LAD-Reasoner 3B", "63.5"):  # fmt: skip
        assert part in text
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize("profile", PROFILES)
def test_departures_are_filled_from_the_profile(profile):
    profile = load_profile(profile)
    frame = departures(profile).set_index("item")
    assert frame.loc["Completions a prompt (G)", "ours"] == str(profile.grpo.group_size)
    assert not frame["ours"].str.contains(r"[{}]|^$").any()


def test_text_in_a_table_cannot_break_markdown_or_latex(tmp_path):
    frame = pd.DataFrame({"label": ["50 % of a_b & | <c>"], "value": [0.25]})
    assert "a_b & \\| \\<c>" in markdown(readable(frame))
    write(frame, tmp_path, "odd")
    assert r"50 \% of a\_b \&" in (tmp_path / "odd.tex").read_text()
    assert pd.read_csv(tmp_path / "odd.csv").equals(frame)


# Published numbers


def test_every_published_row_has_a_source_and_a_tag():
    for name in set(published.names()) - {"departures"}:
        frame = published.read(name)
        assert frame["source"].str.len().min() > 5, name
        assert set(frame["tag"]) <= {"P", "S", "I", "R", "N"}, name


def test_recovered_values_agree_with_the_published_accuracy_and_f1():
    for row in published.read("lad_reasoner").to_dict("records"):
        found, right = row["recall"] * 5.61, row["specificity"] * 5.75
        assert (found + right) / 11.36 == pytest.approx(row["accuracy"], abs=0.15)
        assert 200 * found / (found + 561 + 575 - right) == pytest.approx(row["f1"], abs=0.15)
        assert (row["recall"] + row["specificity"]) / 2 == pytest.approx(row["balanced_accuracy"], abs=0.1)


def test_the_72bs_categories_pool_to_its_published_accuracy():
    frame = published.read("lad_reasoner_categories")
    assert (100 * frame["correct"] / frame["n"]).round(1).tolist() == frame["accuracy"].tolist()
    assert 100 * frame["correct"].sum() / frame["n"].sum() == pytest.approx(62.1, abs=0.06)


def test_an_unknown_published_table_is_refused():
    with pytest.raises(UserError, match="loco_logical"):
        published.read("loco_logic")


def test_the_published_numbers_of_an_installed_package_come_first(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "only_here.csv").write_text("a,source\n1,b\n")
    monkeypatch.setattr(published.ladlib, "__file__", str(tmp_path / "__init__.py"))
    assert published.names() == ["only_here"]


# Figures


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


def test_category_bars_show_each_arm_and_the_trivial_line(stored):
    labels = figures.category_bars(stored.metrics).axes[0].get_legend_handles_labels()[1]
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


def test_the_telling_group_is_the_last_one_whose_rewards_differ():
    spread, flat = made_up_group(step=1), made_up_group(rewards=(1.0, 1.0), step=2)
    assert telling([spread, flat]) is spread
    assert telling([flat]) is flat
    assert telling([]) is None


def test_control_characters_are_shown_and_lines_kept():
    assert printable("a\x00\nб\u200f") == "a\ufffd\nб\ufffd"

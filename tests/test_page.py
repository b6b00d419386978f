"""report.html as a person meets it: in a browser, with images and without, and with texts that mean harm."""

import re
import shutil

import pytest
from axe import serious_violations
from jinja2.utils import htmlsafe_json_dumps
from made_up import HOSTILE, frame_of, made_up, made_up_arm, made_up_run, write_generations
from playwright.sync_api import expect

from ladlib.checksums import sha256
from ladlib.config import load_profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.pairing import pair
from ladlib.records import RunRecord
from ladlib.report.page import LARGEST, explore, write_report
from ladlib.results import load_run
from ladlib.runs import RunFolder
from ladlib.toy.datasets import write_loco
from ladlib.verify import verify

SIZES = {"train": 4, "good": 2, "logical": 2, "structural": 1}
RATIONALE = "a1 none same . hello . a1 red disc same ."
INERT = "</script><img src=x onerror=alert(1)>"


def answered(one, folder, arm, answer):
    test = one.test
    return made_up(arm, test.category, test.anomaly, 0, answer).model_copy(update={
        "id": test.id, "defect": test.defect, "reference": one.reference, "test": test.image,
        "images_sha256": (sha256(folder / one.reference), sha256(folder / test.image)),
        "text": f"<think>{RATIONALE}</think><answer>{answer}</answer>",
    })  # fmt: skip


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """The report of a run on a few drawn images that are still there: 25 pairs, two models."""
    run = RunFolder(tmp_path_factory.mktemp("pictured") / "run")
    run.write(RunRecord(profile="toy", seed=0))
    write_loco(run.data, load_profile("toy").toy.model_copy(update=SIZES))
    folder = find_dataset(run.data, "mvtec_loco")
    pairs = pair(read_dataset(run.data, "mvtec_loco"), seed=0)
    for arm, answer in (("base", "yes"), ("sft_grpo", "no")):
        write_generations(run, arm, [answered(one, folder, arm, answer) for one in pairs])
    write_report(run, check=verify)
    return run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The report of a run whose answers hold markup, the end of a script, and 50,000 characters; no image is there."""
    run = made_up_run(tmp_path_factory.mktemp("hostile") / "run")
    texts = (HOSTILE, INERT, "&lt;b&gt; <!--<script>", "word " * 10_000, "x" * 50_000)
    rows = [made_up("sft_grpo", "pushpins", "logical", place, "no", text=text) for place, text in enumerate(texts)]
    write_generations(run, "sft_grpo", rows)
    write_report(run)
    return run


@pytest.fixture
def open_page(browser):
    """Opens a run's report; afterwards the console was silent and nothing was fetched."""
    messages, requests, contexts = [], [], []

    def open_report(run, width=1400):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: (messages.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(run.report.as_uri())
        page.wait_for_selector("#explorer:not([hidden])")
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def shown(page):
    """How many answers fit the filters: ``Showing 1 to 10 of 25 entries ...``."""
    return int(re.search(r"of ([\d,]+) entr|^No", page.inner_text(".dt-info"))[1].replace(",", ""))


def column(page, title, number):
    cells = page.locator(f"[aria-label='{title}'] tbody td:nth-child({number})")
    return cells.all_inner_texts()


# The explorer


def test_filters_and_search_narrow_the_answers(pictured, open_page):
    page = open_page(pictured)
    assert page.locator("#model option:checked").inner_text() == "SFT + GRPO, seed 0"
    assert shown(page) == 25 and page.locator("#pairs tbody tr").count() == 10
    page.select_option("#category", "pushpins")
    assert shown(page) == 5
    page.select_option("#category", "")
    page.select_option("#verdict", "right")  # it always says no: the 10 good images
    assert shown(page) == 10
    page.select_option("#model", "base, seed 0")  # it always says yes
    assert shown(page) == 15
    page.select_option("#model", "")
    page.select_option("#verdict", "")
    page.fill("[aria-controls='pairs'][type=search]", "screw_bag/test/good")
    assert shown(page) == 4


def test_images_are_drawn_and_statements_marked(pictured, open_page):
    page = open_page(pictured)
    page.select_option("#kind", "good")
    assert page.locator("#pairs tbody tr").first.locator("img").count() == 2
    page.select_option("#kind", "structural")
    row = page.locator("#pairs tbody tr").first
    alts = [image.get_attribute("alt") for image in row.locator("img").all()]
    assert [alt.split(" of ")[0] for alt in alts] == ["reference image", "test image", "defect"]
    assert page.eval_on_selector_all("#pairs img", "all => all.every(image => image.naturalWidth > 0)")
    marks = [mark.get_attribute("aria-label") for mark in row.locator("pre [role=img]").all()]
    assert len(marks) == 3 and marks[1] == "not parsed"


def test_without_images_the_page_says_so_and_the_words_are_there(hostile, open_page):
    page = open_page(hostile)
    assert "There are no images" in page.inner_text("main")
    assert page.locator("#pairs pre").count() > 0 and page.locator("#pairs img").count() == 0


def test_an_image_that_is_not_the_evaluated_one_is_not_shown(pictured, tmp_path):
    shutil.copytree(pictured.data, tmp_path / "data")
    folder = find_dataset(tmp_path / "data", "mvtec_loco")
    answers = load_run(pictured).answers
    shutil.copy(folder / answers["reference"][0], folder / answers["test"][0])
    explored = explore(answers, tmp_path / "data", room=1_000_000)
    assert explored["pairs"][0][4:] == [None] * 3 and all(None not in one[4:6] for one in explored["pairs"][1:])
    assert not explored["answers"][0][6] and explored["answers"][1][6]


# Tables and checks


def test_a_table_sorts_by_its_header_with_the_keyboard_and_what_has_no_value_comes_last(hostile, open_page):
    page = open_page(hostile)
    head = page.locator("[aria-label='Comparison'] thead th").filter(has_text="specificity").first
    number = head.evaluate("head => head.cellIndex + 1")
    for direction, order in ((1, "ascending"), (-1, "descending")):
        head.locator("[role=button]").focus()
        page.keyboard.press("Enter")
        expect(head).to_have_attribute("aria-sort", order)  # DataTables orders the rows a moment later
        cells = column(page, "Comparison", number)
        values = [direction * float(cell) for cell in cells if cell != "–"]
        assert values == sorted(values) and len(set(values)) > 1 and "–" not in cells[: len(values)]


def test_checks_have_their_verdicts(pictured, hostile, open_page):
    assert column(open_page(pictured), "Checks", 1) == [check.verdict for check in verify(pictured)]
    assert "Nothing was checked" in hostile.report.read_text(encoding="utf-8")


# Texts that mean harm


def test_hostile_answers_are_shown_as_they_were_written(hostile, open_page):
    page = open_page(hostile)
    texts = [one.text_content() for one in page.locator("#pairs pre").all()]
    assert "<script>alert('$x_1$')</script> | a & b_c \ufffd" in texts
    assert INERT in texts and "&lt;b&gt; <!--<script>" in texts
    page.fill("[aria-controls='pairs'][type=search]", "onerror=alert")  # DataTables reads what it searches as HTML
    assert shown(page) == 1
    assert page.locator("img[src=x]").count() == 0  # and no dialog: see open_page


def test_nothing_a_model_wrote_is_markup_in_the_file(hostile):
    page = hostile.report.read_text(encoding="utf-8")
    body = page[: page.index('<script type="module">')]
    assert body.count("<script") == body.count("</script>") == 1 and "<img src=x" not in page and "\x00" not in page
    assert "<script>alert(" not in page
    assert re.search(r"script-src 'sha256-[\w+/=]{44}'\"", page)  # only the page's own script runs


# How it looks


@pytest.mark.parametrize("width", [1400, 390])
def test_a_page_fits_its_window_and_axe_finds_no_serious_violation(pictured, hostile, open_page, width):
    for run in (pictured, hostile):
        page = open_page(run, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious_violations(page) == []
        boxes = [box for box in page.locator("#pairs pre").all() if len(box.text_content()) >= 50_000]
        assert len(boxes) == 2 * (run is hostile)
        assert all(box.bounding_box()["height"] < 300 and box.get_attribute("tabindex") == "0" for box in boxes)
        assert page.eval_on_selector_all("img", "all => all.every(one => one.alt)")


# The file


def test_two_reports_of_the_same_files_are_the_same_bytes(pictured):
    files = [pictured.report, pictured.metrics_json, *pictured.tables.iterdir(), *pictured.figures.iterdir()]
    first = {file: file.read_bytes() for file in files}
    forms = {name: {file.suffix for file in files if file.stem == name} for name in ("comparison", "defects", "roc")}
    assert forms == {"comparison": {".csv", ".md", ".tex"}, "defects": {".csv", ".md", ".tex"}, "roc": {".png", ".pdf"}}
    write_report(pictured, check=verify)
    assert [file.name for file in files if file.read_bytes() != first[file]] == []


def test_toy_results_are_announced_as_such_and_others_are_not(hostile, tmp_path):
    banner = "They do not estimate the score of"
    page = hostile.report.read_text(encoding="utf-8")
    assert banner in page and page.count("<figure><img") == len({*hostile.figures.glob("*.png")})
    run = RunFolder(tmp_path)
    run.write(RunRecord(profile="paper", seed=0))
    write_generations(run, "base", made_up_arm("base", ["yes"]))
    page = write_report(run).read_text(encoding="utf-8")
    assert banner not in page and load_profile("paper").label in page


def test_pairs_and_then_images_are_left_out_where_there_is_no_room_for_them(pictured, hostile):
    answers = load_run(hostile).answers
    whole, few = (explore(answers, hostile.data, room) for room in (1_000_000, 60_000))
    assert whole["total"] == few["total"] == len(whole["pairs"]) > len(few["pairs"]) > 0
    answers = load_run(pictured).answers
    roomy, short = (explore(answers, pictured.data, room)["images"] for room in (1_000_000, 80_000))
    assert 0 < len(short) < len(roomy) and short == roomy[: len(short)]


def test_a_page_stays_below_10_mb_however_much_was_written(tmp_path):
    long = made_up_arm("base", ["yes"] * 20)
    rows = [one.model_copy(update={"text": f"{place} " + "<" * 120_000}) for place, one in enumerate(long)]
    page = htmlsafe_json_dumps(explored := explore(frame_of(rows), tmp_path, LARGEST))  # as it stands in the file
    assert 1_000_000 < len(page) < LARGEST and "cut here: 120,0" in explored["texts"][0]

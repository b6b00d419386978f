"""report.html as a person meets it: in a browser, with pictures and without, and with texts that mean harm."""

import hashlib
import json
import re
import shutil

import pytest
from axe import serious_violations
from made_up import HOSTILE, made_up, made_up_arm, made_up_run, write_generations

from ladlib.config import load_profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.pairing import pair
from ladlib.records import RunRecord
from ladlib.report import write_report
from ladlib.report.embedded import Source, embed
from ladlib.report.explorer import explore
from ladlib.report.stored import read_run
from ladlib.runs import RunFolder
from ladlib.toy.datasets import write_loco
from ladlib.toy.statements import claims, judged
from ladlib.toy.truth import read_scenes, write_rationales
from ladlib.verify import verify

SIZES = {"train": 2, "validation": 1, "good": 2, "logical": 2, "structural": 1}
SAID = "a1 none same . hello . a1 red disc same ."


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def judged_pair(one, folder, arm, answer):
    test = one.test
    return made_up(arm, test.category, test.anomaly, 0, answer).model_copy(update={
        "id": test.id, "defect": test.defect, "reference": one.reference, "test": test.image,
        "images_sha256": (sha256(folder / one.reference), sha256(folder / test.image)),
        "text": f"<think>{SAID}</think><answer>{answer}</answer>",
    })  # fmt: skip


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """A run on a few drawn images that are still there."""
    run = RunFolder(tmp_path_factory.mktemp("pictured") / "run")
    run.write(RunRecord(profile="toy", seed=0))
    write_loco(run.data, load_profile("toy").data.toy.model_copy(update=SIZES))
    folder = find_dataset(run.data, "mvtec_loco")
    pairs = pair(read_dataset(run.data, "mvtec_loco"), seed=0)
    for arm, answer in (("base", "yes"), ("sft_grpo", "no")):
        write_generations(run, arm, [judged_pair(one, folder, arm, answer) for one in pairs])
        write_rationales(run, arm, 0, folder)
    write_report(run, hold=verify)
    return run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose answers hold markup, the end of a script, and 50,000 characters."""
    run = made_up_run(tmp_path_factory.mktemp("hostile") / "run")
    texts = (HOSTILE, "</script><img src=x onerror=alert(1)>", "<!--<script>", "word " * 10_000, "x" * 50_000)
    rows = [made_up("sft_grpo", "pushpins", "logical", place, "no", text=text) for place, text in enumerate(texts)]
    write_generations(run, "sft_grpo", rows)
    write_report(run)
    return run


@pytest.fixture
def open_page(browser):
    """Opens a run's report; afterwards the console was silent and nothing was fetched."""
    said, asked, contexts = [], [], []

    def open_report(run, width=1400):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, bypass_csp=True))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(run.report.as_uri())
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def told(run):
    page = run.report.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def column(page, table, number):
    return page.eval_on_selector_all(
        f"[aria-label='{table}'] tbody tr:not(.block) td:nth-child({number})", "cells => cells.map(c => c.textContent)"
    )


# The explorer


def test_filters_narrow_the_shown_pairs_and_show_all_widens_them_again(pictured, open_page):
    page, total = open_page(pictured), len(told(pictured)["pairs"])
    assert total == 25 and page.locator("article").count() == 10
    page.select_option("#category", "pushpins")
    assert page.inner_text("#count") == f"1–5 of 5 fitting pairs, of {total}"
    page.select_option("#kind", "logical")
    assert page.locator("article").count() == 2
    assert all("pushpins/test/logical" in title for title in page.locator("article h3").all_inner_texts())
    page.click("#reset")
    assert page.inner_text("#count") == f"1–10 of {total} fitting pairs, of {total}"


def test_right_and_wrong_are_those_of_the_chosen_arm(pictured, open_page):
    page = open_page(pictured)
    assert page.locator("#arm option:checked").inner_text() == "SFT + GRPO, seed 0"
    page.select_option("#verdict", "right")  # it always says no: the 10 good images
    assert "of 10 fitting pairs" in page.inner_text("#count")
    page.select_option("#arm", label="base, seed 0")  # it always says yes
    assert "of 15 fitting pairs" in page.inner_text("#count")
    page.select_option("#verdict", "unparsed")
    assert page.inner_text("#count") == "0 fitting pairs, of 25" and page.locator("article").count() == 0


def test_a_defect_can_be_picked_out(pictured, open_page):
    page = open_page(pictured)
    defect = next(one["defect"] for one in told(pictured)["pairs"] if one["defect"])
    page.select_option("#defect", defect)
    expected = sum(one["defect"] == defect for one in told(pictured)["pairs"])
    assert page.locator("article").count() == expected > 0


def test_pages_are_turned_by_the_keyboard(pictured, open_page):
    page = open_page(pictured)
    first = page.locator("article h3").first.inner_text()
    page.locator(".next").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.inner_text("#count") == "21–25 of 25 fitting pairs, of 25"
    assert page.locator(".next").first.is_disabled() and page.locator("article h3").first.inner_text() != first


def test_reference_test_image_and_mask_are_shown_and_drawn(pictured, open_page):
    page = open_page(pictured)
    page.select_option("#kind", "good")
    assert page.locator("article").first.locator("img").count() == 2
    page.select_option("#kind", "structural")
    alts = [image.get_attribute("alt") for image in page.locator("article").first.locator("img").all()]
    assert [alt.split(" of ")[0] for alt in alts] == ["reference image", "test image", "mask"]
    assert page.eval_on_selector_all("article img", "all => all.every(image => image.naturalWidth > 0)")


def test_each_statement_is_marked_true_or_false_or_not_read(pictured, open_page):
    page = open_page(pictured)
    for card in page.locator("article").all():
        marks = [mark.get_attribute("aria-label") for mark in card.locator("pre [role=img]").all()]
        assert len(marks) == 3 and marks[1] == "not read"
        true = sum(mark == "true statement" for mark in marks)
        assert f"{true} of 2 statements true" in card.inner_text()


def test_what_the_other_arms_said_opens_beside_it(pictured, open_page):
    card = open_page(pictured).locator("article").first
    assert card.locator("pre").count() == 1
    card.locator("summary").click()
    card.locator("pre").nth(1).wait_for()
    assert "base, seed 0" in card.inner_text() and "answers yes" in card.inner_text()


def test_without_images_the_page_says_so_and_the_words_are_there(hostile, open_page):
    page = open_page(hostile)
    assert "There are no pictures" in page.inner_text("main")
    assert page.locator("article").count() > 0 and page.locator("article img").count() == 0


def test_an_image_that_is_not_the_one_that_was_judged_is_not_shown(pictured, tmp_path):
    shutil.copytree(pictured.data, tmp_path / "data")
    folder = find_dataset(tmp_path / "data", "mvtec_loco")
    first = read_run(pictured).generations[0]
    shutil.copy(folder / first.reference, folder / first.test)
    explored = explore(pictured, read_run(pictured), tmp_path / "data", room=1_000_000)
    assert explored["places"][0][1] is None and explored["pictured"] == 24
    assert all(not answer[4] for answer in explored["pairs"][0]["answers"].values())


# Tables and claims


def test_a_table_sorts_by_its_header_with_mouse_and_keyboard_and_says_how(hostile, open_page):
    page = open_page(hostile)
    head = page.locator("[aria-label='Per category, good and logical images'] thead th").nth(3)
    title = "Per category, good and logical images"
    head.locator("button").click()
    up = [float(cell) for cell in column(page, title, 4) if cell != "–"]
    assert head.get_attribute("aria-sort") == "ascending" and up == sorted(up) and len(set(up)) > 2
    page.keyboard.press("Enter")
    down = [float(cell) for cell in column(page, title, 4) if cell != "–"]
    assert head.get_attribute("aria-sort") == "descending" and down == up[::-1]
    assert page.locator(f"[aria-label='{title}'] th[aria-sort=none]").count() > 3


def test_rows_stay_in_their_block_and_what_has_no_value_comes_last(hostile, open_page):
    page = open_page(hostile)
    before = column(page, "Comparison", 1)
    page.locator("[aria-label='Comparison'] thead button").nth(7).click()  # AUROC, which published rows lack
    after = column(page, "Comparison", 1)
    bodies = page.locator("[aria-label='Comparison'] tbody")
    assert sorted(before) == sorted(after) and "LAD-Reasoner 3B" in bodies.nth(2).inner_text()
    values = bodies.first.locator("td:nth-child(8)").all_inner_texts()
    assert values == sorted(values, key=lambda cell: (cell == "–", cell)) and "–" in values
    assert bodies.first.locator("tr").first.get_attribute("class") == "block"


def test_the_verdict_on_each_claim_stands_first(pictured, hostile, open_page):
    page = open_page(pictured)
    assert column(page, "What was checked", 1) == [claim.verdict for claim in verify(pictured)]
    assert page.locator("main h2").first.inner_text() == "Claims"
    assert "No claim was checked" in hostile.report.read_text(encoding="utf-8")


# Texts that mean harm


def test_hostile_answers_are_shown_as_they_were_written(hostile, open_page):
    page = open_page(hostile)
    page.select_option("#arm", label="SFT + GRPO, seed 0")
    shown = [one.text_content() for one in page.locator("article > .words > pre").all()]
    assert "<script>alert('$x_1$')</script> | a & b_c \ufffd" in shown
    assert "</script><img src=x onerror=alert(1)>" in shown and "<!--<script>" in shown
    assert page.locator("img[src=x]").count() == 0  # and no dialog: see open_page


@pytest.mark.parametrize("width", [1400, 390])
def test_50000_characters_stay_in_a_box_that_scrolls_and_can_be_reached(hostile, open_page, width):
    page = open_page(hostile, width)
    page.select_option("#arm", label="SFT + GRPO, seed 0")
    boxes = [box for box in page.locator("article > .words > pre").all() if len(box.text_content()) >= 50_000]
    assert len(boxes) == 2
    for box in boxes:
        assert box.bounding_box()["height"] < 300 and box.get_attribute("tabindex") == "0"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_a_model_wrote_is_markup_in_the_file(hostile):
    page = hostile.report.read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2 and "<img src=x" not in page


# Layout and accessibility


@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_clipped(pictured, open_page, width):
    page = open_page(pictured, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1400:
        wide = "all => all.filter(box => box.scrollWidth > box.clientWidth).map(box => box.ariaLabel)"
        assert page.eval_on_selector_all(".scroll", wide) == []


def test_every_control_has_a_name_and_every_picture_a_text(pictured, open_page):
    page = open_page(pictured)
    assert page.eval_on_selector_all("select", "all => all.every(one => one.labels.length === 1)")
    assert page.eval_on_selector_all("button", "all => all.every(one => one.textContent.trim())")
    assert page.eval_on_selector_all("img", "all => all.every(one => one.alt)")


@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_no_serious_violation(pictured, hostile, open_page, width):
    for run in (pictured, hostile):
        assert serious_violations(open_page(run, width)) == []


# Bytes


def test_two_reports_of_the_same_run_are_the_same_bytes(pictured):
    first = pictured.report.read_bytes()
    assert write_report(pictured, hold=verify).read_bytes() == first


def test_answers_too_many_for_one_file_are_thinned_out_and_counted(hostile):
    stored = read_run(hostile)
    whole, few = (explore(hostile, stored, hostile.data, room) for room in (1_000_000, 60_000))
    assert whole["total"] == few["total"] == len(whole["pairs"]) > len(few["pairs"]) > 0


def test_a_page_stays_below_10_mb_however_much_was_written(tmp_path):
    run = made_up_run(tmp_path)
    rows = made_up_arm("base", ["yes"] * 4)
    long = [one.model_copy(update={"text": f"{place} " + "<" * 120_000}) for place, one in enumerate(rows)]
    write_generations(run, "base", long)
    assert write_report(run).stat().st_size < 10_000_000
    assert "cut here: 120,0" in run.report.read_text(encoding="utf-8")


def test_pictures_are_embedded_once_smaller_where_room_is_short_and_never_beyond_it(pictured):
    sources = [Source((path,)) for path in sorted(pictured.data.rglob("test/good/*.png"))]
    roomy, short, none = (embed([*sources, *sources], room) for room in (1_000_000, 12_000, 10))
    assert list(roomy) == sources and none == {}
    assert 0 < sum(map(len, short.values())) <= 12_000 < sum(map(len, roomy.values()))


# Statements


def test_sentences_are_judged_as_statements_are(pictured):
    scenes = read_scenes(find_dataset(pictured.data, "mvtec_loco"))
    one = read_run(pictured).generations[0]
    marks = judged(SAID, scenes[one.reference].scene, scenes[one.test].scene)
    said, unread = claims(SAID)
    assert len(marks) == len(said) + unread and marks.count(None) == unread == 1
    assert judged("", scenes[one.reference].scene, scenes[one.test].scene) == []

"""The executed notebooks as pages: nothing broken, nothing fetched, every picture told, every section found."""

import base64
import json
import os
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from axe import serious_violations
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.errors import UserError
from ladlib.pipeline import STAGES
from ladlib.records import RunRecord
from ladlib.runs import RunFolder
from ladlib.site import write_site
from ladlib.site.pages import address

LARGEST = 6_000_000  # bytes of one page
NAMES = [stage.name for stage in STAGES]
VIEW = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Explorer()"}


@pytest.fixture
def run(tmp_path):
    """A run of which one notebook was executed: a formula, a link, two sections of one name, a widget and its still."""
    run = RunFolder(tmp_path / "run")
    run.write(RunRecord(profile="smoke", seed=0))
    shown = [
        new_output("display_data", {"text/html": "<p class='ladlib-still'>first view</p>"}),
        new_output("display_data", VIEW),
        new_output("stream", text="<script>alert(1)</script>"),
    ]
    cells = [
        new_markdown_cell("# 03 · A title: more\n\n**The question.** Is $a_i < b$?\n\n## Again\n\nA *fi*rst word."),
        new_code_cell("look(here)", outputs=shown),
        new_markdown_cell("## Again\n\n$$ \\frac{1}{2} $$\n\nSee [02](02_sft.ipynb) and [all](solutions/)."),
    ]
    notebook = new_notebook(cells=cells, metadata={"widgets": {"x": {"state": {}}}})
    run.notebooks.mkdir(parents=True)
    nbformat.write(notebook, run.notebooks / "03_grpo.ipynb")
    return run


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def sections(site):
    script = (site / "search.js").read_text(encoding="utf-8")
    return json.loads(script.partition("SECTIONS = ")[2].partition(";  //")[0])


# One small run


def test_formulas_are_mathml_and_no_script_draws_them(run, tmp_path):
    page = soup(write_site(run, tmp_path / "site").parent / "03_grpo.html")
    assert [one.get("display") for one in page.main.find_all("math")] == ["inline", "block"]
    assert "$" not in page.main.get_text() and [one["src"] for one in page.find_all("script")] == ["search.js"]


def test_a_widget_goes_and_its_still_stays(run, tmp_path):
    page = soup(write_site(run, tmp_path / "site").parent / "03_grpo.html")
    assert page.select_one(".ladlib-still").get_text() == "first view"
    assert "Explorer()" not in page.get_text() and not page.select("script[type*=widget]")


def test_what_a_cell_printed_is_no_markup(run, tmp_path):
    page = soup(write_site(run, tmp_path / "site").parent / "03_grpo.html")
    assert "<script>alert(1)</script>" in page.main.get_text() and not page.main.find_all("script")


def test_every_section_can_be_pointed_at_and_is_found_with_its_code_and_words(run, tmp_path):
    site = write_site(run, tmp_path / "site").parent
    ours = [one for one in sections(site) if one[0] == "03_grpo.html"]
    assert [anchor for _, _, anchor, _, _ in ours][1:] == ["Again", "Again-2"]
    assert "first word. look(here) first view" in ours[1][4]
    page = soup(site / "03_grpo.html")
    assert [one["href"] for one in page.select(".heads a")] == []  # two sections need no table of contents
    assert [one["href"] for one in page.select("h2 .anchor-link")] == ["#Again", "#Again-2"]


@pytest.mark.parametrize(
    ("link", "page"),
    [
        ("02_sft.ipynb", "02_sft.html"), ("../05_compare_72b.ipynb", "../05_compare_72b.html"),
        ("README.md", "teaching.html"), ("solutions/", "index.html"),
    ],
)  # fmt: skip
def test_a_link_to_a_notebook_leads_to_its_page(link, page):
    assert address(link) == page


def test_stages_that_were_not_run_are_left_out_and_files_of_others_left_alone(run, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "CNAME").write_text("mine")
    site = write_site(run, tmp_path / "site").parent
    assert [name for name in NAMES if (site / f"{name}.html").exists()] == ["03_grpo"]
    assert (site / "CNAME").read_text() == "mine" and (site / "teaching.html").is_file()
    assert not (site / "report.html").exists() and "report.html" not in (site / "index.html").read_text()


def test_a_run_without_executed_notebooks_is_refused_and_nothing_written(run, tmp_path):
    (run.notebooks / "03_grpo.ipynb").unlink()
    told = CliRunner().invoke(app, ["site", "--run", str(run.root), "--out", str(tmp_path / "site")])
    assert told.exit_code == 2 and "no executed notebook" in told.output and not (tmp_path / "site").exists()


def test_a_torn_notebook_is_named(run, tmp_path):
    (run.notebooks / "03_grpo.ipynb").write_text('{"cells": [')
    with pytest.raises(UserError, match="03_grpo.ipynb is no readable notebook"):
        write_site(run, tmp_path / "site")


# The site of a whole run


@pytest.fixture(scope="module")
def site(smoke, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    told = CliRunner().invoke(app, ["site", "--run", str(smoke.root), "--out", str(out)])
    assert told.exit_code == 0 and told.output == f"Site: {out / 'index.html'}\n"
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): soup(path) for path in sorted(site.rglob("*.html"))}


@pytest.fixture
def page(browser):
    """A page of a browser; afterwards its console was silent and nothing was asked of any other machine."""
    said, asked = [], []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert said == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []


def is_notebook(name):
    return name.removesuffix(".html") in NAMES


@pytest.mark.slow
def test_no_link_is_dead(site, pages):
    dead = []
    for name, page in pages.items():
        for link in [one["href"] for one in page.find_all("a", href=True)]:
            target, _, anchor = link.partition("#")
            if not target.startswith(("http:", "https:")):
                path = os.path.normpath(site / Path(name).parent / target) if target else str(site / name)
                there = Path(path).is_file()
                found = there and (not anchor or pages[Path(path).relative_to(site).as_posix()].find(id=anchor))
                dead += [] if found else [(name, link)]
    assert dead == []


@pytest.mark.slow
def test_every_page_has_one_title_and_headings_in_order(pages):
    for name, page in pages.items():
        levels = [int(one.name[1]) for one in page.find_all(["h1", "h2", "h3", "h4", "h5"])]
        assert levels[0] == 1 and levels.count(1) == 1, name
        assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), name


@pytest.mark.slow
def test_every_picture_is_told_and_none_is_broken(site, pages, page):
    for name in filter(is_notebook, pages):
        page.goto((site / name).as_uri())
        assert page.eval_on_selector_all("img", "all => all.length && all.every(one => one.naturalWidth)"), name
        told = [one["alt"] for one in pages[name].find_all("img")]
        assert all(len(one.split()) >= 3 for one in told), told


@pytest.mark.slow
def test_no_page_is_larger_than_6_mb(site):
    assert {path.name: path.stat().st_size for path in site.rglob("*.*") if path.stat().st_size > LARGEST} == {}


@pytest.mark.slow
def test_the_search_finds_a_section_offline_and_leads_there(site, page):
    page.goto((site / "solutions" / "03_grpo.html").as_uri())
    page.fill("#search", "rewards advantages")
    first = page.locator("#found a").first
    assert "advantages" in first.inner_text() and "section" in page.inner_text("#told")
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/03_grpo.html#*")
    assert "advantages" in page.locator(":target").inner_text()
    page.fill("#search", "nothing-of-the-kind")
    assert page.inner_text("#told") == "0 sections" and page.locator("#found").is_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(site, pages, page, width):
    page.set_viewport_size({"width": width, "height": 900})
    for name in set(pages) - {"report.html"}:  # which has tests of its own
        page.goto((site / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


@pytest.mark.slow
def test_axe_finds_no_serious_violation(site, pages, page):
    for name in pages:
        page.goto((site / name).as_uri())
        assert serious_violations(page) == [], name


# What everybody's nbconvert makes of an executed copy


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nbconvert_makes_a_page_below_6_mb_with_stills_and_told_pictures(smoke, name):
    copy = smoke.notebooks / f"{name}.ipynb"
    html, _ = HTMLExporter().from_filename(str(copy))
    page, stills = BeautifulSoup(html, "html.parser"), copy.read_text(encoding="utf-8").count("class='ladlib-still'")
    assert len(html.encode()) < LARGEST
    assert len(page.select("figure.ladlib-still")) == stills
    told = [one["alt"] for one in page.find_all("img")]
    assert told and not [one for one in told if len(one.split()) < 3 or one.startswith("No description")]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_figures_in_an_executed_copy_are_told_and_of_256_colours(smoke, name):
    notebook = nbformat.read(smoke.notebooks / f"{name}.ipynb", as_version=4)
    outputs = [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]
    figures = [one.data for one in outputs if one.get("data", {}).get("text/html", "").startswith("<img")]
    assert len(figures) >= 2
    for one in figures:
        picture = BeautifulSoup(one["text/html"], "html.parser").img
        assert picture["alt"] == one["text/plain"]
        assert "`" not in picture["alt"] and "Figure size" not in picture["alt"]
        assert Image.open(BytesIO(base64.b64decode(picture["src"].split(",")[1]))).mode == "P"

"""``--skip-bad``: images that do not decode are left out, listed, and counted in every table; else they stop a run."""

import io
import json
import shutil

import pytest
from fake_notebooks import HEAD, execute_here, write_notebook
from layouts import write_ad, write_loco, write_visa
from made_up import made_up_run
from rich.console import Console
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.data import read_dataset
from ladlib.data.layout import FOLDERS
from ladlib.data.readable import link_readable
from ladlib.errors import UserError
from ladlib.pipeline import Stage, reproduce
from ladlib.report import comparison_text, write_report
from ladlib.runs import RunFolder

JUICE = f"{FOLDERS['mvtec_loco']}/juice_bottle"
BAD = {
    "mvtec_ad": f"{FOLDERS['mvtec_ad']}/cable/test/bent_wire/000.png",
    "visa": f"{FOLDERS['visa']}/pcb4/Data/Images/Normal/0001.JPG",
    "mvtec_loco": f"{JUICE}/test/good/001.png",
}
MASKS = {
    "mvtec_ad": f"{FOLDERS['mvtec_ad']}/cable/ground_truth/bent_wire/001_mask.png",
    "visa": f"{FOLDERS['visa']}/pcb4/Data/Masks/Anomaly/001.png",
    "mvtec_loco": f"{JUICE}/ground_truth/logical_anomalies/001/001.png",
}
WITH_MASK = {
    "mvtec_ad": "cable/test/bent_wire/001.png", "visa": "pcb4/Data/Images/Anomaly/001.JPG",
    "mvtec_loco": "juice_bottle/test/logical_anomalies/001.png",
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "ground_truth of mine"  # no place of masks, whatever its name
    write_loco(root / FOLDERS["mvtec_loco"])
    write_ad(root / FOLDERS["mvtec_ad"])
    write_visa(root / FOLDERS["visa"])
    return root


@pytest.mark.parametrize("dataset", BAD)
def test_what_does_not_decode_is_left_out_with_the_images_of_bad_masks(data, tmp_path, dataset):
    whole = {one.image for one in read_dataset(data, dataset)}
    for path in (BAD[dataset], MASKS[dataset]):
        (data / path).write_bytes(b"rotten")
    skipped = link_readable(data, tmp_path / "readable")
    images = [BAD[dataset].split("/", 1)[1], WITH_MASK[dataset]]
    assert sorted(one.image for one in skipped) == sorted(images) and {one.dataset for one in skipped} == {dataset}
    assert all("does not decode" in one.reason for one in skipped)
    assert {one.image for one in read_dataset(tmp_path / "readable", dataset)} == whole - set(images)


def test_the_links_hold_what_the_datasets_hold_and_a_second_call_makes_them_anew(data, tmp_path):
    assert link_readable(data, tmp_path / "readable") == []
    for dataset in BAD:
        assert read_dataset(tmp_path / "readable", dataset) == read_dataset(data, dataset)
    shutil.rmtree(data / FOLDERS["visa"])
    link_readable(data, tmp_path / "readable")
    assert not (tmp_path / "readable" / FOLDERS["visa"]).exists()


@pytest.fixture
def run(tmp_path, monkeypatch, data):
    """Runs a pipeline of one stage that reads all images; what it printed."""
    monkeypatch.setattr("ladlib.pipeline.run.closing", lambda folder: "")
    monkeypatch.setattr("ladlib.pipeline.execution.execute", execute_here)
    (tmp_path / "books").mkdir()
    stage = Stage("01_one", ("one.txt",))
    write_notebook(stage.notebook(tmp_path / "books"), HEAD, READ)

    def call(**options):
        out = io.StringIO()
        given = {"profile": "smoke", "run": str(tmp_path / "run"), "data": str(data)} | options
        reproduce(console=Console(file=out), notebooks=tmp_path / "books", stages=(stage,), **given)
        return out.getvalue()

    return call


READ = """
from pathlib import Path
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import open_image
images = [one.image for one in read_dataset(data, "mvtec_loco")]
[open_image(find_dataset(data, "mvtec_loco") / one) for one in images]
(Path(run) / "one.txt").write_text("\\n".join(images))
"""


def test_a_bad_image_stops_a_run_unless_it_is_to_be_skipped_then_it_is_listed(run, data, tmp_path):
    (data / BAD["mvtec_loco"]).write_bytes(b"")
    with pytest.raises(UserError, match=r"001\.png does not decode"):
        run()
    assert "done" in run(skip_bad=True)
    read = (tmp_path / "run" / "one.txt").read_text().splitlines()
    assert "juice_bottle/test/good/000.png" in read and "juice_bottle/test/good/001.png" not in read
    listed = json.loads((tmp_path / "run" / "skipped.json").read_text())["skipped"]
    assert [one["image"] for one in listed] == ["juice_bottle/test/good/001.png"]
    assert RunFolder(tmp_path / "run").read().parameters["skipped"] == 1
    assert "unchanged, skipped" in run(skip_bad=True), "nothing is decoded or run again"


def test_a_run_without_some_images_is_not_gone_on_with_as_if_it_had_all(run, data, tmp_path):
    (data / BAD["mvtec_loco"]).write_bytes(b"")
    run(skip_bad=True)
    with pytest.raises(UserError, match="was begun without 1 images .* --skip-bad"):
        run()
    shutil.copy(data / f"{JUICE}/test/good/000.png", data / BAD["mvtec_loco"])
    assert "done" in run(skip_bad=True), "a mended image is found"
    assert RunFolder(tmp_path / "run").read().parameters["skipped"] == 0
    run()


def test_every_table_says_how_many_were_left_out(tmp_path):
    folder = made_up_run(tmp_path / "run", profile="smoke")
    folder.open("smoke", 0, skipped=3)
    page = write_report(folder, tmp_path)
    said = "3 unreadable images left out"
    for name in ("comparison", "categories", "defects"):
        assert all(said in (folder.tables / f"{name}.{form}").read_text() for form in ("csv", "md", "tex")), name
    assert said in page.read_text() and said in comparison_text(folder, 200)


def test_drawn_datasets_have_nothing_to_skip(tmp_path):
    result = CliRunner().invoke(app, ["reproduce", "--profile", "smoke", "--run", str(tmp_path / "run"), "--skip-bad"])
    assert result.exit_code == 2 and "Name their folder with --data" in result.stderr

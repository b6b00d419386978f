"""How a notebook begins: profile, run folder, data."""

import pytest
from layouts import write_ad, write_loco

from ladlib.errors import UserError
from ladlib.notebook import reopen, start
from ladlib.runs import RunFolder, append_json, find_root

FEW = {"toy.train": 1, "toy.good": 1, "toy.logical": 1}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like the repository, from whose notebooks/ the code runs."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "ladlib"\n')
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def test_the_toy_datasets_are_drawn_into_the_run_once(tmp_path):
    session = start("smoke", run=str(tmp_path / "run"), overrides=FEW)
    assert session.is_toy and session.data == session.run.data == tmp_path / "run" / "data"
    picture = next(session.data.rglob("train/good/000.png"))
    written = picture.stat().st_mtime_ns
    start("smoke", run=str(tmp_path / "run"), overrides=FEW)
    assert picture.stat().st_mtime_ns == written


def test_relative_paths_are_read_from_the_repositorys_root(checkout, images):
    session = start("smoke", data="images", overrides={})
    assert session.run.root == checkout / "results" / "runs" / "smoke"
    assert session.data == images and not session.is_toy
    assert session.settings()["run folder"] == "results/runs/smoke"


def test_outside_a_checkout_relative_paths_are_read_from_the_current_folder(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    assert find_root(tmp_path) == tmp_path


def test_a_sentinel_leaves_the_profiles_value_and_the_values_in_force_are_recorded_and_shown(tmp_path, images):
    overrides = {"sft.steps": 7, "sft.learning_rate": -1.0, "model.base": "", "evaluate.limit": 0}
    session = start("smoke", data=str(images), run=str(tmp_path / "run"), overrides=overrides)
    assert session.profile.sft.steps == 7 and session.profile.evaluate.limit == 0
    assert session.profile.sft.learning_rate > 0 and session.profile.model.base == "toy-base"
    kept = RunFolder(tmp_path / "run").read().parameters
    assert (kept["sft.steps"], kept["model.base"], kept["data"]) == (7, "toy-base", str(images))
    for part in ("smoke test, nothing is learned", "sft.steps</th>", "torch", str(images)):
        assert part in session._repr_html_()
    start("smoke", data=str(images), run=str(tmp_path / "run"), overrides={"sft.steps": -1})
    assert RunFolder(tmp_path / "run").read().parameters["sft.steps"] == 2


def test_later_notebooks_read_the_base_model_that_sft_started_from_and_profiles_of_ones_own(tmp_path, images):
    (tmp_path / "mine.yaml").write_text(
        "label: mine\nmodel: {base: /models/one}\ntoy: {train: 1, good: 1, logical: 1, structural: 1}\n"
    )
    where = {"profile": str(tmp_path / "mine.yaml"), "data": str(images), "run": str(tmp_path / "run")}
    assert start(**where).model_name("base") == "/models/one"
    start(**where, overrides={"model.base": "/models/two"})
    again = start(**where)
    assert again.model_name("base") == "/models/two" and again.profile.model.base == "/models/one"
    profile = reopen(where["run"]).profile
    assert (profile.name, profile.model.base, profile.label) == ("mine", "/models/two", "mine, base model two")


def test_datasets_that_cannot_be_read_are_left_out_with_the_reason(tmp_path):
    write_loco(tmp_path / "mvtec_loco_anomaly_detection")
    write_ad(tmp_path / "mvtec_anomaly_detection", normals={"test": 1})
    samples, absent = start("smoke", data=str(tmp_path), run=str(tmp_path / "run")).datasets()
    assert list(samples) == ["mvtec_loco"] and len(samples["mvtec_loco"]) == 9
    assert "half copied" in absent["mvtec_ad"] and "no visa" in absent["visa"]


def test_what_a_notebook_wrote_is_listed_with_its_size_and_enters_the_checksums(checkout, images, monkeypatch):
    session = start("smoke", data="images")
    append_json(session.run.neighbours, {"id": "x"})
    monkeypatch.setattr("ladlib.neighbours.detect", lambda *args: session.run.neighbours)
    assert session.detect()["id"].tolist() == ["x"]
    table = session.written().set_index("path")
    folder = "results/runs/smoke"
    assert table["files"].to_dict() == {f"{folder}/run.json": 1, f"{folder}/baselines/neighbours.jsonl": 1}
    assert "baselines/neighbours.jsonl" in (session.run.root / "SHA256SUMS").read_text()


def test_where_the_released_answers_do_not_fit_the_large_row_stays_empty(tmp_path, monkeypatch, capsys):
    session = start("toy", run=str(tmp_path / "run"), overrides=FEW)
    assert session.evaluate("large").empty and not session.run.generations("large", 0).exists()
    assert "No answers of the larger stand-in model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("profile", "options", "message"),
    [
        ("smoke", {"data": "absent"}, "no folder .*absent"),
        ("paper", {}, "needs datasets"),
        ("smoke", {"overrides": {"sft.stpes": 3}}, "sft.stpes"),
    ],
)
def test_what_cannot_be_started_is_refused_and_nothing_is_written(checkout, profile, options, message):
    with pytest.raises(UserError, match=message):
        start(profile, **options)
    assert not (checkout / "results").exists()

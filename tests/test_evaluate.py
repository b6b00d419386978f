"""Evaluation with a tiny random model on a tiny MVTec LOCO AD: records, resuming, variants, stored answers."""

import gzip
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from chat_server import ChatServer
from layouts import write_pairs
from PIL import Image
from tiny import tiny_base, tiny_profile, write_data
from typer.testing import CliRunner

from ladlib import checksums, evaluate, generate
from ladlib.cli import app
from ladlib.config import Data, load_profile
from ladlib.data import read_dataset
from ladlib.data.pairing import pair
from ladlib.errors import UserError
from ladlib.generations import balanced_subsample, plan, subsample
from ladlib.models import load_processor
from ladlib.records import Generation, Pair, Sample, Variation
from ladlib.runs import RunFolder, read_jsonl
from ladlib.toy.datasets import write_datasets


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def profile():
    changes = {"batch_size": 2, "limit": 0, "variants": 4}
    evaluation = {f"evaluate__{name}": value for name, value in changes.items()}
    return tiny_profile(model__dtype="float32", model__max_new_tokens=12, **evaluation)


def run_base(profile, data, folder, **options):
    return evaluate.evaluate(profile, data, RunFolder(folder), 0, arm="base", model=tiny_base(), **options)


@pytest.fixture(scope="module")
def whole(data, profile, tmp_path_factory):
    """The file of a whole evaluation and that of its variants. Nobody changes them."""
    folder = tmp_path_factory.mktemp("whole")
    return [run_base(profile, data, folder, variant=variant) for variant in ("", "all")]


def timeless(path) -> list[dict]:
    """Records in order, without what may differ between two runs: the time, and digits that depend on the batch."""
    rows = [row | {"seconds": 0, "p_yes": round(row["p_yes"], 4)} for row in read_jsonl(path)]
    return sorted(rows, key=lambda row: (row["id"], row.get("factor", ""), row.get("level", "")))


@pytest.fixture
def asked(monkeypatch):
    """How many pairs the model is asked about."""
    seen, answer = [], evaluate.answer

    def watch(model, processor, images, *args, **options):
        seen.extend(images)
        return answer(model, processor, images, *args, **options)

    monkeypatch.setattr(evaluate, "answer", watch)
    return seen


def test_each_test_pair_gets_one_whole_record(data, whole):
    records = [Generation.model_validate(row) for row in read_jsonl(whole[0])]
    expected = sorted(sample.id for sample in read_dataset(data, "mvtec_loco") if sample.split == "test")
    assert sorted(one.id for one in records) == expected
    for one in records:
        assert 0 <= one.p_yes <= 1 and one.completion_tokens <= 12 and "/train/good/" in one.reference
        assert all(side % 28 == 0 for size in one.pixels for side in size)


@pytest.mark.parametrize("index", [0, 1], ids=["evaluation", "variants"])
def test_an_interrupted_evaluation_resumes_and_repeats_nothing(data, profile, whole, tmp_path, asked, index):
    variant, lines = ("", "all")[index], whole[index].read_text(encoding="utf-8").splitlines(keepends=True)
    path = run_base(profile, data, tmp_path, variant=variant)
    path.write_text("".join(lines[:2]) + lines[2][:40], encoding="utf-8")  # cut off in the third record
    asked.clear()
    run_base(profile, data, tmp_path, variant=variant)
    assert len(lines) - 2 <= len(asked) <= len(lines)  # whole batches
    assert timeless(path) == timeless(whole[index])
    asked.clear()
    run_base(profile, data, tmp_path, variant=variant)
    assert not asked


def test_records_of_another_setting_or_image_are_made_again(data, profile, tmp_path):
    path = run_base(profile, data, tmp_path, limit=1)
    shorter = tiny_profile(model__max_new_tokens=3, evaluate__limit=1)
    run_base(shorter, data, tmp_path)
    rows = read_jsonl(path)
    assert len(rows) == 3 and all(row["completion_tokens"] <= 3 for row in rows)
    changed = [rows[0] | {"text": "kept"}, rows[1] | {"text": "old", "images_sha256": ["0", "0"]}, rows[2]]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    run_base(shorter, data, tmp_path)
    texts = {row["id"]: row["text"] for row in read_jsonl(path)}
    assert texts[rows[0]["id"]] == "kept" and texts[rows[1]["id"]] == rows[1]["text"]


def test_a_file_of_something_else_is_refused_and_left_as_it_is(data, profile, tmp_path):
    path = RunFolder(tmp_path).generations("base", 0)
    path.parent.mkdir()
    path.write_text('{"mine": 1}\n')
    with pytest.raises(UserError, match="record 1 has no id"):
        run_base(profile, data, tmp_path)
    assert path.read_text() == '{"mine": 1}\n'


@pytest.mark.slow
def test_two_processes_with_a_copy_of_the_model_each_write_the_file_of_one(data, profile, whole, tmp_path):
    several = profile.model_copy(update={"parallel": profile.parallel.model_copy(update={"processes": 2})})
    assert timeless(run_base(several, data, tmp_path)) == timeless(whole[0])


def test_inspect_takes_images_of_any_size_and_refuses_what_is_none(data, profile, tmp_path):
    files = sorted((data / "mvtec_loco_anomaly_detection").glob("*/test/good/*.png"))
    verdict = evaluate.inspect(files[0], files[1], tiny_base(), profile)
    assert verdict.answer in ("yes", "no", None) and 0 <= verdict.p_yes <= 1 and verdict.seconds > 0
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UserError, match="does not decode"):
        evaluate.inspect(tmp_path / "a.png", tmp_path / "a.png", tiny_base(), profile)


@pytest.mark.parametrize(("options", "tokens"), [([], 4), (["--profile", "smoke"], 20)])
def test_inspect_shows_images_as_large_as_the_checkpoint_saw_them(tmp_path, monkeypatch, options, tokens):
    folder, seen = shutil.copytree(tiny_base(), tmp_path / "model"), []
    load_processor(str(folder), Data(min_pixels=4 * 784, max_pixels=4 * 784)).save_pretrained(folder)
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    answer = generate.answer
    monkeypatch.setattr(generate, "answer", lambda *given: seen.append(given[2][0]) or answer(*given))
    result = CliRunner().invoke(app, ["inspect", *[str(tmp_path / "a.png")] * 2, "--model", str(folder), *options])
    assert result.exit_code == 0 and ("other sizes" in result.stderr) == bool(options)
    assert [image.width * image.height <= tokens * 784 for image in seen[0]] == [True, True]
    assert seen[0][0].width == (56 if tokens == 4 else 112)


# The shipped model answers as it did when greedy_answers.jsonl was written. It is made anew with the model or the
# drawn images only: ``evaluate(load_profile("smoke", **{"model.max_new_tokens": 160}), ...)``.

STORED = {row["id"]: row for row in read_jsonl(Path(__file__).with_name("greedy_answers.jsonl"))}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    write_datasets(root, load_profile("smoke").toy)
    return root


@pytest.mark.parametrize("shared_prefix", [False, True], ids=["generate", "shared prefix"])
def test_greedy_texts_and_p_yes_are_the_stored_ones(drawn, tmp_path, shared_prefix):
    values = {"model.max_new_tokens": 160, "model.shared_prefix": shared_prefix}
    path = evaluate.evaluate(load_profile("smoke", **values), drawn, RunFolder(tmp_path), 0, arm="base", model="")
    rows = {row["id"]: row for row in read_jsonl(path)}
    assert len(rows) == 15 and rows.keys() == STORED.keys()
    for name, stored in STORED.items():
        assert {key: rows[name][key] for key in stored} == stored | {"p_yes": pytest.approx(stored["p_yes"], abs=1e-4)}


# Which pairs


def test_a_limit_takes_the_same_few_of_each_category_and_kind(data):
    pairs = pair(read_dataset(data, "mvtec_loco"), 0)
    chosen = subsample(pairs, 1)
    assert sorted(one.test.anomaly for one in chosen) == ["good", "logical", "structural"]
    assert chosen == subsample(list(reversed(pairs)), 1)[::-1] and subsample(pairs, 0) == pairs


def test_the_subsample_is_even_over_category_and_kind_and_keeps_its_pairs_when_it_grows():
    def made(category, anomaly, number):
        name = f"{category}/test/{anomaly}/{number}"
        known = {"dataset": "mvtec_loco", "category": category, "split": "test", "anomaly": anomaly}
        return Pair(test=Sample(id=name, image=f"{name}.png", **known), reference="r.png")

    kinds = ("good", "logical", "structural")
    pairs = [made(category, kind, n) for category in "abc" for kind in kinds for n in range(20)]
    few, more = balanced_subsample(pairs, 12), balanced_subsample(list(reversed(pairs)), 60)
    assert set(Counter((one.test.category, one.test.anomaly) for one in few).values()) == {2}
    assert "structural" not in {one.test.anomaly for one in more} and more[:12] == few


# Variants


def test_every_pair_is_judged_once_under_every_variant_which_changes_one_thing(data, whole):
    records = [Variation.model_validate(row) for row in read_jsonl(whole[1])]
    counts = Counter((one.id, one.factor, one.level) for one in records)
    assert len(records) == 4 * 7 and set(counts.values()) == {1}  # usual, blind, swapped, 2 references, 2 wordings
    assert not any(one.anomaly == "structural" for one in records)
    usual = {one.id: one for one in records if one.factor == "none"}
    shown = {"blind": ("reference", "reference"), "swapped": ("test", "reference")}
    for one in records:
        first = usual[one.id]
        assert one.shown == shown.get(one.factor, ("reference", "test"))
        assert (one.reference != first.reference) == (one.factor == "reference")
        assert (one.prompt_sha256 != first.prompt_sha256) == (one.factor == "wording")
        assert one.label == first.label and one.images_sha256[1] == first.images_sha256[1]


def test_the_model_gets_the_images_that_a_variant_names(data, profile, tmp_path, asked):
    path = run_base(profile.replace({"evaluate.variants": 1}), data, tmp_path, variant="all")
    given = {
        row["factor"]: [image.tobytes() for image in two] for row, two in zip(read_jsonl(path), asked, strict=True)
    }
    reference, test = given["none"]
    assert given["blind"] == [reference, reference] and given["swapped"] == [test, reference]
    assert given["reference"][0] != reference and given["reference"][1] == test
    assert given["wording"] == [reference, test]


def test_one_variant_comes_beside_the_usual_answers_and_none_where_the_profile_wants_none(data, profile, tmp_path):
    assert {task.variant.factor for task in plan(profile, data, "blind")} == {"none", "blind"}
    with pytest.raises(UserError, match="no variant 'upside down'"):
        plan(profile, data, "upside down")
    off = profile.replace({"evaluate.variants": 0})
    assert run_base(off, data, tmp_path, variant="all") is None and not list(tmp_path.iterdir())


# Stored answers: all that fit, or one line and nothing written

PAIRS = 12


def served_profile(**changes):
    values = {"evaluate.limit": 0, "endpoint.model": "m", "endpoint.label": "FP8, vLLM 0.11"}
    return load_profile("smoke", **values | changes)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), PAIRS // 2, PAIRS // 2)


@pytest.fixture(scope="module")
def stored(pairs, tmp_path_factory):
    """What another machine stored."""
    server, run = ChatServer(), RunFolder(tmp_path_factory.mktemp("elsewhere"))
    profile = served_profile(**{"endpoint.url": server.url, "endpoint.concurrency": 1})
    path = evaluate.evaluate(profile, pairs, run, 0, arm="large", endpoint=True)
    server.close()
    return path


def replay(pairs, run, file, seed=0):
    return evaluate.evaluate(served_profile(), pairs, run, seed, arm="large", stored=file)


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def changed(stored, folder, drop=False, twice=False, gone=False, **fields):
    """A copy of ``stored`` with its first line changed, left out or there twice; or a file that is not there."""
    rows = read_jsonl(stored)
    rows[:1] = [] if drop else [rows[0] | fields] * (2 if twice else 1)
    path = folder / "changed.jsonl"
    if not gone:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["jsonl", "jsonl.gz"])
def test_stored_answers_become_the_runs_own_records_once(stored, pairs, run, tmp_path, capsys, packed):
    file = tmp_path / "large-seed0.jsonl.gz" if packed else stored
    if packed:
        file.write_bytes(gzip.compress(stored.read_bytes()))
    path = replay(pairs, run, file, seed=3)
    assert path == run.generations("large", 3) and f"large: {PAIRS} stored answers" in capsys.readouterr().out
    replay(pairs, run, file, seed=3)
    assert read_jsonl(path) == [row | {"seed": 3} for row in read_jsonl(stored)]


def test_a_corrected_file_replaces_the_one_before_and_its_texts_are_parsed_again(stored, pairs, run, tmp_path):
    replay(pairs, run, stored)
    corrected = changed(stored, tmp_path, text="<answer>yes or no</answer>", answer="yes")
    row, *others = read_jsonl(replay(pairs, run, corrected))
    assert row["answer"] is None and len(others) == PAIRS - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gone": True}, "There is no file"),
        ({"drop": True}, "lacks 1 of 12 pairs, first juice_bottle/test/"),
        ({"twice": True}, "answers 1 pairs twice"),
        ({"arm": "base"}, "holds answers of the arm base, not of large"),
        ({"images_sha256": ["0", "0"]}, "was judged from other images"),
        ({"reference": "juice_bottle/train/good/999.png"}, "was judged from other images"),
        ({"pixels": [[28, 28], [28, 28]]}, "was seen at"),
        ({"p_yes": None, "served": ""}, "says neither p_yes nor what served it"),
        ({"finish": "tired"}, "finish"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(stored, pairs, run, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        replay(pairs, run, changed(stored, tmp_path, **change))
    assert not run.generations("large", 0).exists()


def test_changed_answers_are_made_again_and_refused_where_they_were_paid_for(data, profile, stored, pairs, tmp_path):
    path = run_base(profile, data, tmp_path / "own", limit=1)
    checksums.write(RunFolder(tmp_path / "own"))
    path.write_text(re.sub('"p_yes": [^,]+', '"p_yes": 0.625', path.read_text()))
    assert [row["p_yes"] for row in read_jsonl(path)] == [0.625] * 3
    assert all(row["p_yes"] != 0.625 for row in read_jsonl(run_base(profile, data, tmp_path / "own", limit=1)))
    paid = RunFolder(shutil.copytree(stored.parents[1], tmp_path / "paid"))
    file, url = paid.generations("large", 0), {"endpoint.url": "http://127.0.0.1:9/v1"}
    checksums.write(paid)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    half = file.read_bytes()
    with pytest.raises(UserError, match="large-seed0.jsonl was changed .* answers of m, FP8.* restore it, or move"):
        evaluate.evaluate(served_profile(**url), pairs, paid, 0, arm="large", endpoint=True)
    assert file.read_bytes() == half


def test_answers_that_were_paid_for_are_not_replaced_by_a_file(stored, pairs, tmp_path):
    with pytest.raises(UserError, match="holds 12 answers of m, FP8, vLLM 0.11"):
        replay(pairs, RunFolder(stored.parents[1]), changed(stored, tmp_path, text="<answer>no</answer>"))

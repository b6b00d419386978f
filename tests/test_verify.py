"""`ladlib verify`: what is whole holds; whatever was changed, lost or out of band fails by name."""

import json
import math
import shutil

import numpy as np
import pytest
from made_up import CATEGORIES, made_up, made_up_run, write_generations
from test_tables import write_varied
from typer.testing import CliRunner

import ladlib.verify
from ladlib.cli import app
from ladlib.errors import UserError
from ladlib.metrics import score, score_trivial
from ladlib.parsing import parse_answer
from ladlib.records import RunRecord, StageRecord
from ladlib.results import load_answers
from ladlib.runs import RunFolder
from ladlib.verify import verify

STAGE = StageRecord(
    name="02_sft", started="2026-01-01T00:00:00+00:00", seconds=1.0, inputs_sha256="1",
    outputs=("checkpoints/sft-seed0", "generations"),
)  # fmt: skip


def judged(arm, seed, right, images=40, drawing=""):
    """Generations of which a share ``right`` is right, which ones depending on the seed."""
    shares = np.random.default_rng((seed, len(arm))).permutation(images) / images
    return [
        _judged(arm, seed, category, anomaly, number, share < right, drawing)
        for category in CATEGORIES
        for anomaly in ("good", "logical")
        for number, share in enumerate(shares)
    ]


def _judged(arm, seed, category, anomaly, number, is_right, drawing):
    answer = "yes" if is_right == (anomaly == "logical") else "no"
    row = made_up(arm, category, anomaly, number, answer, seed=seed)
    hashes = (f"{category}{drawing}", f"{row.id}{drawing}")
    return row.model_copy(update={"answer": parse_answer(row.text), "images_sha256": hashes})


def whole(root, arms, profile="toy", images=40, drawing="", **parameters):
    """A finished run: ``arms`` maps (arm, seed) to the share it has right."""
    run = RunFolder(root)
    record = RunRecord(profile=profile, seed=0, parameters=parameters, versions={"torch": "2"}, hardware={"cores": 2})
    run.write(record.model_copy(update={"stages": (STAGE,)}))
    run.checkpoint("sft", 0).mkdir(parents=True)
    for (arm, seed), right in arms.items():
        write_generations(run, arm, judged(arm, seed, right, images, drawing), seed)
    answers = load_answers(run)
    run.metrics_json.write_text(json.dumps(score(answers) + score_trivial(answers)))
    return run


RUN = {("base", 0): 0.6, ("sft", 0): 0.65, ("sft_grpo", 0): 0.75}
BANDS = {"base": (0.6,), "sft": (0.65, 0.675, 0.65), "sft_grpo": (0.75, 0.775, 0.8)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("verify") / "run", RUN)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    arms = {(arm, seed): right for arm, shares in BANDS.items() for seed, right in enumerate(shares)}
    return whole(tmp_path_factory.mktemp("verify") / "study", arms)


@pytest.fixture
def run(made, tmp_path, monkeypatch, study):
    """A copy to spoil, held against the made-up study."""
    monkeypatch.setattr(ladlib.verify, "STUDY", study)
    return RunFolder(shutil.copytree(made.root, tmp_path / "run"))


def told(run, verdict):
    return [claim.line for claim in verify(run) if claim.verdict == verdict]


def only_failure(run):
    (line,) = told(run, "failed")
    return line


def change(path, number, **fields):
    lines = path.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | fields)
    path.write_text("".join(f"{line}\n" for line in lines))


# The command


def command(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_a_script_reads_the_same_claims_as_one_object(run):
    told, lines = json.loads(command(run.root, "--json").stdout), command(run.root).output.splitlines()
    assert all(one["subject"] in line for one, line in zip(told["claims"], lines[:-2], strict=True))
    assert lines[-1].endswith(f": {told['passed']} passed, {told['failed']} failed, {told['skipped']} skipped")


def test_a_whole_run_holds_line_by_line_and_exits_with_0(run):
    result = command(run.root)
    lines = result.output.splitlines()
    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in lines[:-2]} <= {"passed", "note", "skipped"}
    assert lines[-1] == "25 checks: 15 passed, 0 failed, 10 skipped"  # without seals, images and real data


def test_one_failed_claim_exits_with_1(run):
    change(run.generations("sft", 0), 3, answer=None)
    result = command(run.root)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "25 checks: 14 passed, 1 failed, 10 skipped"


def test_the_command_has_help_with_an_example():
    result = command("--help")
    assert result.exit_code == 0 and "ladlib verify results/runs/toy" in result.output


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "{"),
        ("run.json", '{"profile": "tyo", "seed": 0}'),
        ("run.json", None),
        ("metrics.json", "[{]"),
        ("metrics.json", "[1]"),
        ("generations/sft-seed0.jsonl", "{\n"),
        ("generations/sft-seed0.jsonl", "[]\n"),
        ("logs/sft-seed0.jsonl", "nothing\n"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exits_with_2(run, name, text):
    path = run.root / name
    path.parent.mkdir(exist_ok=True)
    path.unlink() if text is None else path.write_text(text)
    result = command(run.root)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1 and not result.stdout


def test_a_score_that_is_no_probability_is_one_line_and_exits_with_2(run):
    change(run.generations("sft", 0), 3, p_yes=math.nan)
    result = command(run.root)
    assert result.exit_code == 2 and "p_yes: Input should be a finite number" in result.stderr


def test_what_is_no_run_folder_is_one_line_and_exits_with_2(run, tmp_path):
    for path in (tmp_path / "nowhere", run.run_json, run.root / "generations"):
        result = command(path)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, path


# A run that agrees with itself


def test_a_changed_answer_fails_and_is_named(run):
    row = json.loads(run.generations("sft", 0).read_text().splitlines()[3])
    other = "no" if row["answer"] == "yes" else "yes"
    change(run.generations("sft", 0), 3, answer=other)
    line = only_failure(run)
    assert line.startswith("failed  answers: sft-seed0 ") and row["id"] in line and f"stores {other}" in line


def test_a_missing_record_fails_and_is_named(run):
    path = run.generations("sft", 0)
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join(others))
    images, metrics = told(run, "failed")
    assert f"images: sft-seed0 judged {json.loads(first)['id']} 0 times" in images
    assert "metrics.json: sft 0" in metrics


def test_a_record_that_is_there_twice_fails_and_is_named(run):
    path = run.generations("sft", 0)
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[0])
    assert any("2 times" in line for line in told(run, "failed"))


def test_a_doctored_metric_fails_and_is_named(run):
    rows = json.loads(run.metrics_json.read_text())
    rows[0]["accuracy"] += 1e-6
    run.metrics_json.write_text(json.dumps(rows))
    assert f"base 0 logical {rows[0]['category']} accuracy is {rows[0]['accuracy']}" in only_failure(run)


@pytest.mark.parametrize(("rows", "told"), [(slice(1, None), "is missing"), (slice(None), "is of nothing")])
def test_a_row_of_metrics_too_few_or_too_many_fails(run, rows, told):
    kept = json.loads(run.metrics_json.read_text())
    added = [kept[0] | {"seed": 7}] if told == "is of nothing" else []
    run.metrics_json.write_text(json.dumps(kept[rows] + added))
    assert told in only_failure(run)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"prompt_sha256": "other"}, "another prompt"),
        ({"images_sha256": ["other", "other"]}, "other images"),
        ({"reference": "other.png"}, "other images"),
        ({"defect": "other"}, "another truth"),
    ],
)
def test_an_arm_that_was_asked_something_else_fails(run, fields, told):
    change(run.generations("sft", 0), 3, **fields)
    line = only_failure(run)
    assert told in line and "sft-seed0" in line


def test_a_label_that_contradicts_the_kind_of_anomaly_fails(run):
    change(run.generations("sft", 0), 0, label="yes")
    assert any("is good, labelled yes" in line for line in told(run, "failed"))


def test_a_lost_checkpoint_fails_but_a_released_copy_needs_none(run):
    (run.root / "data").mkdir()
    run.checkpoint("sft", 0).rmdir()
    assert "checkpoints/sft-seed0 is missing" in only_failure(run)
    shutil.rmtree(run.root / "checkpoints")
    shutil.rmtree(run.root / "data")
    (line,) = [claim.line for claim in verify(run) if claim.subject == "outputs of the stages"]
    assert line.startswith("passed") and "a released copy" in line


def test_a_record_without_versions_fails(run):
    run.write(run.read().model_copy(update={"versions": {}}))
    assert "versions are missing" in only_failure(run)


# A toy run and the study


def against(root, shares, study, **options):
    """The lines about the study of a run in which sft_grpo has ``shares`` right."""
    found = verify(whole(root, {("sft_grpo", 0): shares}, **options), study)
    return {
        claim.subject.removeprefix("sft_grpo-seed0 "): claim for claim in found if "sft_grpo-seed0" in claim.subject
    }


@pytest.mark.parametrize(("right", "side"), [(0.5, "(below)"), (1.0, "(above)")])
def test_a_number_out_of_the_seed_band_fails_and_is_named(tmp_path, study, right, side):
    claim = against(tmp_path, right, study)["balanced accuracy"]
    assert (claim.verdict, claim.found) == ("failed", f"{100 * right:.1f} {side}")
    assert "study 75.0 to 80.0 over 3 seeds" in claim.expected and "160 shared images" in claim.expected


def test_part_of_the_images_is_held_against_the_same_part_of_the_study(tmp_path, study):
    run = whole(tmp_path, {("base", 0): 0.6})
    rows = [one for one in judged("sft_grpo", 0, 0.75) if int(one.id[-3:]) < 24]
    write_generations(run, "sft_grpo", rows)
    claim = {claim.subject: claim for claim in verify(run, study)}["sft_grpo-seed0 balanced accuracy"]
    assert claim.verdict == "passed" and "96 shared images" in claim.expected
    assert "study 75.0 to 80.0" not in claim.expected


def test_other_images_are_not_compared_with_the_study(tmp_path, study):
    lines = [check.line for check in verify(whole(tmp_path, {("base", 0): 0.6}, drawing="other"), study)]
    assert "skipped base-seed0: the study has too few of its good and logical images" in lines


def test_an_arm_with_one_seed_may_still_round_otherwise(tmp_path, study):
    lines = {claim.subject: claim for claim in verify(whole(tmp_path, {("base", 0): 0.6}), study)}
    assert "study 60.0, tolerance 2.0, on 160 shared images" in lines["base-seed0 balanced accuracy"].expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"grpo.steps": 7}, "grpo has other settings in this run"),
        ({"profile": "smoke"}, "it is of profile toy, this run of profile smoke"),
    ],
)
def test_another_experiment_is_not_held_against_the_study(tmp_path, study, options, reason):
    run = whole(tmp_path, RUN, **options)
    (line,) = [claim.line for claim in verify(run, study) if claim.subject == "study"]
    assert line.startswith("skipped") and reason in line


def test_without_a_released_study_the_line_says_so(made, study, tmp_path):
    lines = [claim.line for claim in verify(made, RunFolder(tmp_path))]
    assert "skipped study: no released study in this installation" in lines
    assert any("the released study itself" in claim.found for claim in verify(study, study))


def test_an_arm_that_the_study_lacks_is_skipped(tmp_path, study):
    lines = [claim.line for claim in verify(whole(tmp_path, {("sft_long", 0): 0.6}), study)]
    assert "skipped sft_long-seed0: the study has no such arm" in lines


# The paper


def test_a_run_on_real_data_is_checked_against_the_papers_numbers(tmp_path):
    checks = verify(whole(tmp_path, {("base", 0): 0.6, ("sft_grpo", 0): 0.8}, profile="paper"), RunFolder("none"))
    lines = {check.subject: check for check in checks}
    assert (lines["claim accuracy"].verdict, lines["claim accuracy"].expected) == ("failed", "60.4 ± 2.9")
    assert lines["claim concise"].verdict == "passed" and "study" not in lines


# Answers to changed inputs, and the detector's


def test_what_is_not_there_is_not_checked_and_what_is_whole_passes(run, tmp_path):
    both = {"sensitivity", "nearest neighbour"}
    assert not both & {check.subject for check in verify(run)}
    checks = {
        check.subject: check.verdict
        for check in verify(write_varied(made_up_run(tmp_path / "varied")), RunFolder("none"))
    }
    assert {checks[name] for name in both} == {"passed"}


@pytest.mark.parametrize(
    ("name", "values", "fault"),
    [
        ("sensitivity", {"answer": "yes"}, "its text says no"),
        ("sensitivity", {"text": "<think>x</think><answer>yes</answer>"}, "its text says yes"),
        ("sensitivity", {"label": "yes"}, "labelled yes"),
        ("sensitivity", {"level": "other"}, "0 times"),
        ("sensitivity", {"id": "pushpins/test/good/001"}, "0 times"),
        ("nearest neighbour", {"answer": "yes"}, "another answer"),
        ("nearest neighbour", {"distance": 1.5}, "another answer"),
        ("nearest neighbour", {"label": "no"}, "labelled no"),
        ("nearest neighbour", {"image_sha256": "other"}, "another image"),
        ("nearest neighbour", {"id": "pushpins/test/good/900"}, "(and 1 more)"),
    ],
)
def test_a_changed_line_of_them_fails_by_name(tmp_path, name, values, fault):
    run = write_varied(made_up_run(tmp_path))
    change(run.sensitivity("sft_grpo", 0) if name == "sensitivity" else run.neighbours, 4, **values)
    (check,) = [check for check in verify(run, RunFolder("none")) if check.subject == name]
    assert check.verdict == "failed" and fault in check.found


# An endpoint without probabilities


def test_an_endpoints_arm_is_not_compared_with_the_study_and_an_own_model_must_tell_p_yes(run):
    rows = judged("large", 0, 0.5)
    unknown = [row.model_copy(update={"p_yes": None}) for row in rows]
    write_generations(
        run, "large", [row.model_copy(update={"served": "72B, FP8", "prompt_sha256": "q"}) for row in unknown]
    )
    checks = {check.subject: check for check in verify(run)}
    assert checks["inputs"].verdict == "passed"
    assert checks["large-seed0"].verdict == "skipped" and "72B, FP8" in checks["large-seed0"].found
    write_generations(run, "large", unknown)
    with pytest.raises(UserError, match="p_yes of"):
        verify(run)

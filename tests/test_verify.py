"""`ladlib verify`: what is whole passes; whatever was changed, lost or out of band fails by name."""

import json
import math
import shutil

import numpy as np
import pytest
from made_up import CATEGORIES, made_up, write_generations, write_rows
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
RUN = {("base", 0): 0.6, ("sft", 0): 0.65, ("sft_grpo", 0): 0.75}
STUDY = {"base": (0.6,), "sft": (0.65, 0.675, 0.65), "sft_grpo": (0.75, 0.775, 0.8)}
NO_STUDY = RunFolder("none")


def judged(arm, seed, share, images=40, drawing=""):
    """Generations of which a ``share`` is right, which ones depending on the seed."""
    ranks = np.random.default_rng((seed, len(arm))).permutation(images) / images
    rows = []
    for category in CATEGORIES:
        for anomaly in ("good", "logical"):
            for number, rank in enumerate(ranks):
                answer = "yes" if (rank < share) == (anomaly == "logical") else "no"
                row = made_up(arm, category, anomaly, number, answer, seed=seed)
                hashes = (f"{category}{drawing}", f"{row.id}{drawing}")
                rows.append(row.model_copy(update={"answer": parse_answer(row.text), "images_sha256": hashes}))
    return rows


def whole(root, arms, profile="toy", images=40, drawing="", **parameters):
    """A finished run: ``arms`` maps (arm, seed) to the share it has right."""
    run = RunFolder(root)
    fields = {"parameters": parameters, "versions": {"torch": "2"}, "hardware": {"cores": 2}, "stages": (STAGE,)}
    run.write(RunRecord(profile=profile, seed=0, **fields))
    run.checkpoint("sft", 0).mkdir(parents=True)
    for (arm, seed), share in arms.items():
        write_generations(run, arm, judged(arm, seed, share, images, drawing), seed)
    answers = load_answers(run)
    run.metrics_json.write_text(json.dumps(score(answers) + score_trivial(answers)))
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("verify") / "run", RUN)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    arms = {(arm, seed): share for arm, shares in STUDY.items() for seed, share in enumerate(shares)}
    return whole(tmp_path_factory.mktemp("verify") / "study", arms)


@pytest.fixture
def run(made, tmp_path, monkeypatch, study):
    """A copy to spoil, compared with the made-up study."""
    monkeypatch.setattr(ladlib.verify, "STUDY", study)
    return RunFolder(shutil.copytree(made.root, tmp_path / "run"))


def failures(run, released=None):
    return [check.line for check in verify(run, released) if check.verdict == "failed"]


def change(path, number, **fields):
    lines = path.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | fields)
    path.write_text("".join(f"{line}\n" for line in lines))


def command(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


# The command


def test_a_whole_run_exits_with_0_and_one_failed_check_with_1(run):
    result = command(run.root)
    lines = result.output.splitlines()
    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in lines[:-2]} <= {"passed", "note", "skipped"}
    assert lines[-1] == "22 checks: 12 passed, 0 failed, 10 skipped"  # without checksums, images and real data
    printed = json.loads(command(run.root, "--json").stdout)
    assert all(check["subject"] in line for check, line in zip(printed["claims"], lines[:-2], strict=True))
    change(run.generations("sft", 0), 3, answer=None)
    result = command(run.root)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "22 checks: 11 passed, 1 failed, 10 skipped"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "{"),
        ("run.json", '{"profile": "tyo", "seed": 0}'),
        ("run.json", None),
        ("metrics.json", "[{]"),
        ("metrics.json", "[1]"),
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


# A run that agrees with itself


def lose_a_record(run):
    path = run.generations("sft", 0)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def double_a_record(run):
    path = run.generations("sft", 0)
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[0])


def edit_metrics(edit):
    def spoil(run):
        rows = json.loads(run.metrics_json.read_text())
        edit(rows)
        run.metrics_json.write_text(json.dumps(rows))

    return spoil


def edit_answer(**fields):
    return lambda run: change(run.generations("sft", 0), 3, **fields)


@pytest.mark.parametrize(
    ("spoil", "faults"),
    [
        (edit_answer(answer=None), ["answers: sft-seed0 pushpins/test/good/003 stores no answer, its text says "]),
        (edit_answer(text="?"), ["its text says no answer", "metrics.json: sft 0 "]),
        (lose_a_record, ["images: sft-seed0 judged pushpins/test/good/000 0 times", "metrics.json: sft 0 "]),
        (double_a_record, ["images: sft-seed0 judged pushpins/test/good/000 2 times", "metrics.json: sft 0 "]),
        (edit_answer(prompt_sha256="other"), ["inputs: sft-seed0 pushpins/test/good/003 has another prompt"]),
        (edit_answer(images_sha256=["other", "other"]), ["003 has other images"]),
        (edit_answer(reference="other.png"), ["003 has other images"]),
        (edit_answer(defect="other"), ["003 has another truth"]),
        (edit_answer(label="yes"), ["003 is good, labelled yes", "metrics.json: sft 0 "]),
        (edit_metrics(lambda rows: rows[0].update(accuracy=0.1)), ["metrics.json: base 0 logical pushpins accuracy"]),
        (edit_metrics(lambda rows: rows.pop(0)), ["base 0 logical pushpins is missing"]),
        (edit_metrics(lambda rows: rows.append(rows[0] | {"seed": 7})), ["base 7 logical pushpins is of nothing"]),
        (lambda run: run.write(run.read().model_copy(update={"versions": {}})), ["run.json: versions are missing"]),
    ],
)
def test_what_was_changed_fails_by_name(run, spoil, faults):
    spoil(run)
    lines = failures(run)
    assert len(lines) == len(faults)
    assert all(fault in line for fault, line in zip(faults, lines, strict=True)), lines


def test_a_lost_checkpoint_fails_but_a_released_copy_needs_none(run):
    (run.root / "data").mkdir()
    run.checkpoint("sft", 0).rmdir()
    assert failures(run) == ["failed  outputs of the stages: checkpoints/sft-seed0 is missing"]
    shutil.rmtree(run.root / "checkpoints")
    shutil.rmtree(run.root / "data")
    (line,) = [check.line for check in verify(run) if check.subject == "outputs of the stages"]
    assert line.startswith("passed") and "a released copy" in line


def add_other_answers(run):
    """Answers to two conditions, all right, and those of the detector."""
    rows = [row.model_dump(mode="json") for row in judged("sft_grpo", 0, 1.0, images=2)]
    levels = [{"factor": factor, "shown": ["reference", "test"]} for factor in ("none", "wording")]
    write_rows(run.sensitivity("sft_grpo", 0), [row | level | {"level": ""} for level in levels for row in rows])
    fields = ["id", "dataset", "category", "anomaly", "defect", "label", "test"]
    detections = [
        row.model_dump(include=set(fields))
        | {"image_sha256": row.images_sha256[1], "nearest": "n.png", "threshold": 1.0, "trained_on": 4}
        | {"distance": 2.0 if row.label == "yes" else 0.5, "answer": row.label}
        for row in judged("sft_grpo", 0, 0.75, images=4)
    ]
    write_rows(run.neighbours, detections)


@pytest.mark.parametrize(
    ("name", "values", "fault"),
    [
        ("sensitivity", {"answer": "yes"}, "its text says no"),
        ("sensitivity", {"text": "<think>x</think><answer>yes</answer>"}, "its text says yes"),
        ("sensitivity", {"label": "yes"}, "labelled yes"),
        ("sensitivity", {"level": "other"}, "0 times"),
        ("sensitivity", {"id": "pushpins/test/good/001"}, "2 times"),
        ("nearest neighbour", {"answer": "no"}, "another answer"),
        ("nearest neighbour", {"distance": 0.5}, "another answer"),
        ("nearest neighbour", {"label": "no"}, "labelled no"),
        ("nearest neighbour", {"image_sha256": "other"}, "another image"),
        ("nearest neighbour", {"id": "pushpins/test/good/900"}, "(and 1 more)"),
    ],
)
def test_a_changed_answer_to_a_changed_input_or_of_the_detector_fails_by_name(tmp_path, name, values, fault):
    run = whole(tmp_path, {("sft_grpo", 0): 0.75}, images=4)
    add_other_answers(run)
    assert compared(run, NO_STUDY, name).verdict == "passed"
    change(run.sensitivity("sft_grpo", 0) if name == "sensitivity" else run.neighbours, 4, **values)
    check = compared(run, NO_STUDY, name)
    assert check.verdict == "failed" and fault in check.found


# A toy run and the study


def compared(run, study, subject="sft_grpo-seed0 balanced accuracy"):
    (check,) = [check for check in verify(run, study) if check.subject == subject]
    return check


@pytest.mark.parametrize(("share", "side"), [(0.5, "(below)"), (1.0, "(above)")])
def test_a_number_out_of_the_seed_band_fails_and_is_named(tmp_path, study, share, side):
    check = compared(whole(tmp_path, {("sft_grpo", 0): share}), study)
    assert (check.verdict, check.found) == ("failed", f"{100 * share:.1f} {side}")
    assert "study 75.0 to 80.0 over 3 seeds" in check.expected and "160 shared images" in check.expected


def test_part_of_the_images_is_compared_with_the_same_part_of_the_study(tmp_path, study):
    run = whole(tmp_path, {("base", 0): 0.6})
    write_generations(run, "sft_grpo", [row for row in judged("sft_grpo", 0, 0.75) if int(row.id[-3:]) < 24])
    check = compared(run, study)
    assert check.verdict == "passed" and "96 shared images" in check.expected
    assert "study 75.0 to 80.0" not in check.expected
    base = compared(run, study, "base-seed0 balanced accuracy")  # one seed, and other processors round otherwise
    assert "study 60.0, tolerance 2.0, on 160 shared images" in base.expected


@pytest.mark.parametrize(
    ("arms", "options", "subject", "reason"),
    [
        (RUN, {"grpo.steps": 7}, "study", "grpo has other settings in this run"),
        (RUN, {"profile": "smoke"}, "study", "it is of profile toy, this run of profile smoke"),
        ({("sft_long", 0): 0.6}, {}, "sft_long-seed0", "the study has no such arm"),
        ({("base", 0): 0.6}, {"drawing": "other"}, "base-seed0", "the study has too few of its good and logical"),
    ],
)
def test_another_experiment_is_not_compared_with_the_study(tmp_path, study, arms, options, subject, reason):
    check = compared(whole(tmp_path, arms, **options), study, subject)
    assert check.verdict == "skipped" and reason in check.found


def test_without_a_released_study_the_line_says_so(made, study):
    assert compared(made, NO_STUDY, "study").line == "skipped study: no released study in this installation"
    assert compared(study, study, "study").line == "skipped study: this is the released study itself"


def test_an_endpoints_arm_is_not_compared_with_the_study_and_an_own_model_must_tell_p_yes(run, study):
    unknown = [row.model_copy(update={"p_yes": None}) for row in judged("large", 0, 0.5)]
    served = {"served": "72B, FP8", "prompt_sha256": "q"}
    write_generations(run, "large", [row.model_copy(update=served) for row in unknown])
    assert compared(run, study, "inputs").verdict == "passed"
    check = compared(run, study, "large-seed0")
    assert check.verdict == "skipped" and "72B, FP8" in check.found
    write_generations(run, "large", unknown)
    with pytest.raises(UserError, match="p_yes of"):
        verify(run)


def test_a_run_on_real_data_is_checked_against_the_papers_numbers(tmp_path):
    run = whole(tmp_path, {("base", 0): 0.6, ("sft_grpo", 0): 0.8}, profile="paper")
    lines = {check.subject: check for check in verify(run, NO_STUDY)}
    assert (lines["claim accuracy"].verdict, lines["claim accuracy"].expected) == ("failed", "60.4 ± 2.9")
    assert lines["claim concise"].verdict == "passed" and "study" not in lines

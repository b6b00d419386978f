"""What an endpoint does not tell, P(anomalous), is a dash in every table and never a number."""

import json

import pandas as pd
import pytest
from made_up import CATEGORIES, made_up, made_up_arm, made_up_run, write_generations

from ladlib.errors import UserError
from ladlib.metrics import score, score_trivial
from ladlib.report.page import write_report
from ladlib.report.stored import read_generations, read_run
from ladlib.report.study_paired import difference, read_answers
from ladlib.report.tables import categories, comparison, readable
from ladlib.verify import verify

SERVED = "Qwen2.5-VL-72B-Instruct, FP8, vLLM 0.11"


def untold(answers, **fields):
    """The large model's answers through an endpoint without logprobs."""
    fields = {"p_yes": None, "served": SERVED} | fields
    return [row.model_copy(update=fields) for row in made_up_arm("large", answers)]


def measure(rows, name):
    (found,) = [row[name] for row in score(rows) if (row["subset"], row["category"]) == ("logical", "pooled")]
    return found


@pytest.fixture
def run(tmp_path):
    run = made_up_run(tmp_path / "run")
    write_generations(run, "large", untold(["yes", "no", None]))
    return run


def test_an_arm_whose_probabilities_are_not_told_has_no_ranking_and_all_other_scores():
    rows, known = untold(["yes", "no"]), made_up_arm("large", ["yes", "no"])
    for name in ("auroc", "average_precision"):
        assert measure(rows, name) is None and measure(known, name) is not None
    assert measure(rows, "balanced_accuracy") == measure(known, "balanced_accuracy")


def test_one_answer_without_its_probability_takes_the_ranking_away():
    first, *others = made_up_arm("large", ["yes", "no"])
    assert measure([first.model_copy(update={"p_yes": None}), *others], "auroc") is None


def test_a_completion_without_an_answer_or_a_probability_ranks_wrong_and_is_not_left_out():
    rows = [made_up("large", "pushpins", "logical", 0, "yes"), made_up("large", "pushpins", "good", 0, "no")]
    assert measure(rows, "auroc") == 1.0
    silent = made_up("large", "pushpins", "logical", 1, None, text="?").model_copy(update={"p_yes": None})
    assert measure([*rows, silent], "auroc") == 0.5  # of two pairs one is in order


def test_where_nothing_could_be_read_and_nothing_is_told_there_is_no_ranking_either():
    assert measure(untold([None, None]), "auroc") is None


def test_tables_show_a_dash_and_name_the_model_quantisation_and_engine(run):
    stored = read_run(run)
    large = comparison(stored).query("block == 'run'").set_index("method").loc[f"large ({SERVED})"]
    assert pd.isna(large["auroc"]) and large["images"] == 12 and large["accuracy"] == 33.3
    shown = readable(comparison(stored)).set_index("method")
    assert shown.loc[f"large ({SERVED})", "AUROC"] == "–"
    rows = categories(stored).query("method == @named", local_dict={"named": f"large ({SERVED})"})
    assert set(rows["category"]) >= set(CATEGORIES) and rows["auroc"].isna().all()


def test_the_report_is_written_and_its_metrics_hold_null(run):
    write_report(run)
    rows = json.loads(run.metrics_json.read_text())
    assert {row["auroc"] for row in rows if row["arm"] == "large"} == {None}
    assert SERVED in run.report.read_text() and SERVED in (run.tables / "comparison.md").read_text()


def test_tables_of_nothing_but_such_an_arm_can_be_made_too(tmp_path):
    run = made_up_run(tmp_path / "run")
    for arm in ("base", "sft_grpo"):
        run.generations(arm, 0).unlink()
    write_generations(run, "large", untold(["yes", "no"]))
    frame = categories(read_run(run))
    assert frame["auroc"].isna().sum() == len(frame) - 12  # of the three trivial arms


def test_a_paired_difference_of_rankings_is_not_known():
    answers = read_answers([*untold(["yes", "no"]), *made_up_arm("sft_grpo", ["yes", "no"])])
    arms = [[answers["large", 0]], [answers["sft_grpo", 0]]]
    assert pd.isna(difference("likelihood", *arms)[0].value) and difference("strict", *arms)[0].value == 0


def test_verify_holds_such_a_run_and_does_not_hold_the_arm_against_the_study(run):
    rows = [row.model_copy(update={"prompt_sha256": "question"}) for row in untold(["yes", "no", "yes"])]
    write_generations(run, "large", rows)
    stored = read_generations(run)
    run.metrics_json.write_text(json.dumps(score(stored) + score_trivial(stored)))
    claims = {claim.subject: claim for claim in verify(run)}
    assert claims["inputs"].verdict == "held" and claims["metrics.json"].verdict == "held"
    assert claims["large-seed0"].verdict == "skipped" and SERVED in claims["large-seed0"].found


def test_verify_refuses_a_model_of_this_machine_that_tells_no_probability(run):
    write_generations(run, "base", [row.model_copy(update={"p_yes": None}) for row in made_up_arm("base", ["yes"])])
    with pytest.raises(UserError, match="p_yes of"):
        verify(run)

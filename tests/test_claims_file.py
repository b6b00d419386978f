"""results/claims.yml: every claim can be measured, and has the status it deserves."""

import numpy as np
import pytest
from made_up import made_up, write_rows
from test_tables import checked, run_of, study_arm
from test_verify import whole

from ladlib import claims, published
from ladlib.claims import Expected, Measured, read_claims
from ladlib.report import analysis
from ladlib.results import load_run
from ladlib.runs import RELEASED, RunFolder
from ladlib.statistics import wilson
from ladlib.verify import verify

CLAIMS = read_claims()


def test_every_quantity_decides_a_claim_and_every_claim_has_its_own_name():
    assert {one.quantity for one in CLAIMS} == set(claims.QUANTITIES)
    assert len({one.id for one in CLAIMS}) == len(CLAIMS)


def test_the_papers_tolerances_are_95_percent_sampling_errors():
    row = published.read("lad_reasoner").set_index("method").loc["LAD-Reasoner 3B"]
    low, high = wilson(round(row["accuracy"] * 11.36), 1136)
    table = published.recovered_tables()["LAD-Reasoner 3B"][0]
    draws = np.random.default_rng(0).multinomial(1136, np.array(table) / 1136, 5000).T
    f1 = np.std(published.MEASURES["f1"](*draws))
    tolerances = [one.expected.tolerance for one in CLAIMS if one.id in ("accuracy", "f1")]
    assert tolerances == pytest.approx([50 * (high - low), 196 * f1], abs=0.15)


@pytest.mark.parametrize(
    ("expected", "found", "holds"),
    [
        ({"at_least": 5}, (5, 1, 9), True),
        ({"at_least": 5}, (4.9, 1, 9), False),
        ({"at_least": 5, "above": 0}, (6, -1, 9), False),
        ({"at_most": 0.05}, (0.05, 0, 1), True),
        ({"at_most": 0.05}, (0.06, 0, 1), False),
        ({"equals": 60, "tolerance": 2}, (62, 0, 0), True),
        ({"equals": 60, "tolerance": 2}, (57.9, 0, 0), False),
    ],
)
def test_a_value_is_held_against_what_was_expected(expected, found, holds):
    assert Expected(**expected).holds(Measured(*found, "images")) is holds


def test_an_expectation_reads_as_a_sentence():
    assert Expected(at_least=-5, above=-5).text == "at least -5, interval above -5"
    assert Expected(equals=60.4, tolerance=2.9).text == "60.4 ± 2.9"


@pytest.fixture(scope="module")
def toy_frame():
    return claims.table(load_run(RELEASED / "toy")).set_index("id")


def test_real_data_are_not_testable_on_the_toy_and_the_toy_not_on_real_data(toy_frame, tmp_path):
    assert set(toy_frame.loc[toy_frame["basis"] == "real data", "status"]) == {"not testable here"}
    real = claims.table(load_run(whole(tmp_path, {("sft_grpo", 0): 0.6}, profile="paper"))).set_index("id")
    assert set(real.loc[real["basis"] == "toy study", "status"]) == {"not testable here"}
    assert real.loc["accuracy", "status"] == "holds" and real.loc["accuracy", "measured"] == pytest.approx(60, abs=1)
    assert real.loc["concise", "status"] == "holds"


def test_what_published_figures_decide_is_the_same_everywhere(toy_frame):
    decided = toy_frame[toy_frame["basis"] == "published figures"]
    assert len(decided) == 6
    assert decided.loc["accuracy-gain", "measured"] == pytest.approx(0.44, abs=0.01)  # pooled z test, 667 against 686
    assert decided.loc["always-anomalous", "status"] == "does not hold"


def test_as_text_an_unmeasured_claim_has_dashes_and_a_p_two_decimals(toy_frame):
    shown = claims.readable(toy_frame.reset_index()).set_index("claim")
    assert (
        shown.loc["Rationales are concise and readable", ["measured", "interval", "interval over"]].tolist()
        == ["–"] * 3
    )
    assert shown.loc["The trained 3B is more accurate than its base (60.4 against 58.8)", "measured"] == "0.44"


# In `ladlib verify`


def lines(run, released=None):
    return {claim.subject: claim for claim in verify(run, released) if claim.subject.startswith("claim ")}


def test_a_toy_run_informs_and_never_fails_on_what_it_says_to_our_claims():
    found = lines(RunFolder(RELEASED / "toy"), RunFolder("none"))
    assert len(found) == len(CLAIMS) and {claim.verdict for claim in found.values()} == {"note", "skipped"}


# What decides claims about the toy


def outcome(root, rationales=None, **arms):
    """Rows of claims about the toy by id, of a run whose arms have these generations and checked rationales."""
    run = run_of(root, **arms)
    for (arm, seed), rows in (rationales or {}).items():
        write_rows(run.rationales(arm, seed), rows)
    return claims.table(load_run(run)).query("basis == 'toy study'").set_index("id")


def test_claims_about_the_toy_hold_or_not_or_cannot_be_tested(tmp_path):
    arms = {"base": study_arm("base", 0.4), "sft": study_arm("sft", 0.6), "sft_grpo": study_arm("sft_grpo", 0.9, 3)}
    rationales = {("sft", 0): checked(0.8), ("sft_grpo", 0): checked(0.9)}
    rows = outcome(tmp_path, rationales, **arms)
    for name in ("toy-gain", "toy-over-sft", "toy-true", "toy-no-less-true", "toy-categories"):
        assert rows.loc[name, "status"] == "holds", name
    assert rows.loc["toy-true", "measured"] == 90.0 and rows.loc["toy-no-less-true", "measured"] == pytest.approx(10)
    assert set(rows.loc[["toy-over-longer-sft", "toy-near-large"], "status"]) == {"not testable here"}


def test_one_bad_seed_misses_the_bar_of_every_seed_and_is_the_one_shown(tmp_path):
    trained = [one for one in study_arm("sft_grpo", 0.9, 3) if one.seed != 1]
    bad = [one.model_copy(update={"seed": 1}) for one in study_arm("sft_grpo", 0.3)]
    row = outcome(tmp_path, base=study_arm("base", 0.5), sft_grpo=[*trained, *bad]).loc["toy-gain"]
    single = analysis.differences(load_run(tmp_path)).query("arm == 'base' and reading == 'strict' and seeds == '1'")
    assert row["status"] == "does not hold" and row["measured"] == single["difference"].item()


def test_a_category_below_chance_is_named_and_missed(tmp_path):
    wrong = [made_up("sft_grpo", "screw_bag", kind, number, "no" if kind == "logical" else "yes")
             for kind in ("good", "logical") for number in range(20)]  # fmt: skip
    right = [one for one in study_arm("sft_grpo", 0.9) if one.category == "pushpins"]
    row = outcome(tmp_path, sft_grpo=[*right, *wrong]).loc["toy-categories"]
    assert row["status"] == "does not hold" and "screw bag" in row["over"]


def test_images_of_one_kind_decide_nothing(tmp_path):
    arms = {arm: [made_up(arm, "pushpins", "good", 0, "no")] for arm in ("base", "sft_grpo")}
    rows = outcome(tmp_path, **arms)
    assert set(rows.loc[["toy-gain", "toy-gain-lenient", "toy-gain-auroc"], "status"]) == {"not testable here"}

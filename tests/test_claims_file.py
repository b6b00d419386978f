"""results/claims.yml: every claim can be measured, and has the status it deserves."""

import numpy as np
import pytest
from made_up import write_generations, write_rows
from test_verify import judged, whole

from ladlib import claims, published
from ladlib.claims import Measured, holds, read_claims
from ladlib.results import load_run
from ladlib.runs import RELEASED, RunFolder
from ladlib.statistics import wilson
from ladlib.verify import verify

CLAIMS = read_claims()


def test_every_quantity_decides_a_claim_and_every_claim_has_its_own_name():
    assert {claim["quantity"] for claim in CLAIMS} == set(claims.QUANTITIES)
    assert len({claim["id"] for claim in CLAIMS}) == len(CLAIMS)
    assert {claim["basis"] for claim in CLAIMS} == {"real data", "published figures", "toy study"}


def test_the_papers_tolerances_are_95_percent_sampling_errors():
    low, high = wilson(686, 1136)
    table = published.recovered_tables()["LAD-Reasoner 3B"][0]
    draws = np.random.default_rng(0).multinomial(1136, np.array(table) / 1136, 5000).T
    f1 = np.std(published.MEASURES["f1"](*draws))
    expected = {claim["id"]: claim["expected"].split(" ± ") for claim in CLAIMS}
    tolerances = [float(expected[name][1]) for name in ("accuracy", "f1")]
    assert tolerances == pytest.approx([50 * (high - low), 196 * f1], abs=0.15)


@pytest.mark.parametrize(
    ("expected", "measured", "is_kept"),
    [
        ("at least 5", (5, 1, 9), True),
        ("at least -5", (-5.1, 1, 9), False),
        ("at least 5, interval above 0", (6, -1, 9), False),
        ("at most 0.05", (0.05, 0, 1), True),
        ("at most 0.05", (0.06, 0, 1), False),
        ("60 ± 2", (62, 0, 0), True),
        ("60 ± 2", (57.9, 0, 0), False),
    ],
)
def test_a_value_is_compared_with_what_was_expected(expected, measured, is_kept):
    assert holds(expected, Measured(*measured, "images")) is is_kept


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


def test_a_toy_run_informs_and_never_fails_on_what_it_says_to_our_claims():
    checks = verify(RunFolder(RELEASED / "toy"), RunFolder("none"))
    verdicts = [check.verdict for check in checks if check.subject.startswith("claim ")]
    assert len(verdicts) == len(CLAIMS) and set(verdicts) == {"note", "skipped"}


# What decides claims about the toy


def outcome(root, **shares):
    """Rows of claims about the toy by id, of a run whose arms have these shares right, a seed each."""
    run = whole(root, {(arm, seed): share for arm, seeds in shares.items() for seed, share in enumerate(seeds)})
    for (arm, seed), true in {("sft", 0): 4, ("sft_grpo", 0): 5}.items():
        row = {"anomaly": "good", "statements": 5, "true": true, "unread": 0, "words": 20, "names_difference": None,
               "implied": "no", "answer": "no", "agrees": True}  # fmt: skip
        write_rows(run.rationales(arm, seed), [row])
    return claims.table(load_run(run)).query("basis == 'toy study'").set_index("id")


def test_claims_about_the_toy_hold_or_not_or_cannot_be_tested(tmp_path):
    rows = outcome(tmp_path, base=[0.4], sft=[0.6], sft_grpo=[0.9, 0.9, 0.9])
    for name in ("toy-gain", "toy-over-sft", "toy-true", "toy-no-less-true", "toy-agree", "toy-categories"):
        assert rows.loc[name, "status"] == "holds", name
    assert rows.loc["toy-gain", "measured"] == pytest.approx(50)
    assert rows.loc["toy-true", "measured"] == 100 and rows.loc["toy-no-less-true", "measured"] == pytest.approx(20)
    assert set(rows.loc[["toy-over-longer-sft", "toy-near-large"], "status"]) == {"not testable here"}


def test_one_bad_seed_misses_the_bar_of_every_seed_and_is_the_one_shown(tmp_path):
    row = outcome(tmp_path, base=[0.5], sft_grpo=[0.9, 0.3, 0.9]).loc["toy-gain"]
    assert row["status"] == "does not hold" and row["measured"] == pytest.approx(-20)


def test_a_category_below_chance_is_named_and_missed(tmp_path):
    run = whole(tmp_path, {("sft_grpo", 0): 0.9})
    weak = [row for row in judged("sft_grpo", 0, 0.1) if row.category == "screw_bag"]
    strong = [row for row in judged("sft_grpo", 0, 0.9) if row.category == "pushpins"]
    write_generations(run, "sft_grpo", [*strong, *weak])
    row = claims.table(load_run(run)).set_index("id").loc["toy-categories"]
    assert row["status"] == "does not hold" and "screw bag" in row["over"]


def test_images_of_one_kind_decide_nothing(tmp_path):
    run = whole(tmp_path, {("base", 0): 0.5, ("sft_grpo", 0): 0.5})
    for arm in ("base", "sft_grpo"):
        write_generations(run, arm, [row for row in judged(arm, 0, 0.5) if row.anomaly == "good"])
    rows = claims.table(load_run(run)).set_index("id")
    assert set(rows.loc[["toy-gain", "toy-gain-lenient", "toy-gain-auroc"], "status"]) == {"not testable here"}

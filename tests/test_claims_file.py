"""results/claims.yml: every claim can be measured, is shown where it says, and has the status it deserves."""

import nbformat
import pytest
from test_verify import whole

from ladlib.release import ROOT
from ladlib.report import claims, published_quantities, study_quantities
from ladlib.report.claims import Expected, claims_frame, claims_text, read_claims
from ladlib.report.stored import read_run
from ladlib.report.study_quantities import Measured
from ladlib.runs import RELEASED, RunFolder
from ladlib.verify import paper, verify

CLAIMS = read_claims()
QUANTITIES = {
    "real data": claims.REAL,
    "published figures": published_quantities.QUANTITIES,
    "toy study": study_quantities.QUANTITIES,
}


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.id)
def test_a_claim_is_measured_by_a_known_quantity_and_shown_in_a_cell_that_is_there(one):
    assert one.quantity in QUANTITIES[one.basis]
    notebook = nbformat.read(ROOT / "notebooks" / f"{one.shown.notebook}.ipynb", nbformat.NO_CONVERT)
    assert one.shown.cell in {cell.id for cell in notebook.cells if cell.cell_type == "code"}


def test_every_quantity_decides_a_claim_and_every_claim_has_its_own_name():
    assert {one.quantity for one in CLAIMS} == {name for group in QUANTITIES.values() for name in group}
    assert len({one.id for one in CLAIMS}) == len(CLAIMS)


def test_the_papers_tolerances_are_the_sampling_errors_that_verify_uses():
    row = claims.published_quantities.published.read("lad_reasoner").set_index("method").loc["LAD-Reasoner 3B"]
    errors = paper._accuracy_error(row, paper.IMAGES), paper._f1_error(row, paper.IMAGES)
    tolerances = [one.expected.tolerance for one in CLAIMS if one.id in ("accuracy", "f1")]
    assert tolerances == pytest.approx([100 * error for error in errors], abs=0.1)


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
    return claims_frame(read_run(RunFolder(RELEASED / "toy")), {}).set_index("id")


def test_real_data_are_not_testable_on_the_toy_and_the_toy_not_on_real_data(toy_frame, tmp_path):
    assert set(toy_frame.loc[toy_frame["basis"] == "real data", "status"]) == {"not testable here"}
    real = claims_frame(read_run(whole(tmp_path, {("sft_grpo", 0): 0.6}, profile="paper")), {}).set_index("id")
    assert set(real.loc[real["basis"] == "toy study", "status"]) == {"not testable here"}
    assert real.loc["accuracy", "status"] == "holds" and real.loc["accuracy", "measured"] == pytest.approx(60, abs=1)
    assert real.loc["concise", "status"] == "holds"


def test_what_published_figures_decide_is_the_same_everywhere(toy_frame):
    decided = toy_frame[toy_frame["basis"] == "published figures"]
    assert len(decided) == 6
    assert decided.loc["accuracy-gain", "measured"] == pytest.approx(0.44, abs=0.01)  # pooled z test, 667 against 686
    assert decided.loc["always-anomalous", "status"] == "does not hold"


def test_as_text_an_unmeasured_claim_has_dashes_and_a_p_two_decimals(toy_frame):
    shown = claims_text(toy_frame.reset_index()).set_index("claim")
    assert (
        shown.loc["Rationales are concise and readable", ["measured", "interval", "interval over"]].tolist()
        == ["–"] * 3
    )
    assert shown.loc["The trained 3B is more accurate than its base (60.4 against 58.8)", "measured"] == "0.44"


# In `ladlib verify`


def lines(run, released=None):
    return {claim.subject: claim for claim in verify(run, released) if claim.subject.startswith("claim ")}


def test_a_toy_run_informs_and_never_fails_on_what_it_says_to_our_claims():
    found = lines(RunFolder(RELEASED / "toy"))
    assert len(found) == len(CLAIMS) and {claim.verdict for claim in found.values()} == {"note", "skipped"}

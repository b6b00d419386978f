"""What a run says to the claims of ``results/claims.yml``. It informs and never fails: one run is one draw."""

from ladlib.report.claims import claims_frame, claims_text
from ladlib.report.stored import Stored
from ladlib.report.study_spoken import read_summaries
from ladlib.runs import RunFolder
from ladlib.verify.claim import Claim, skipped

UNTESTED = "not testable here"


def claims(run: RunFolder, stored: Stored) -> list[Claim]:
    """A line for each claim of the file."""
    frame = claims_frame(stored, read_summaries(run, {(one.arm, one.seed) for one in stored.generations}))
    shown = zip(frame.to_dict("records"), claims_text(frame).to_dict("records"), strict=True)
    return [_claim(row, text) for row, text in shown]


def _claim(row: dict, text: dict) -> Claim:
    subject = f"claim {row['id']}"
    if row["status"] == UNTESTED:
        return skipped(subject, UNTESTED)
    found = f"{row['status']}, {text['measured']} ({text['interval']})"
    return Claim(verdict="note", subject=subject, found=found, expected=row["expected"])

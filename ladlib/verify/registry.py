"""A run held against ``results/claims.yml``.

What published figures decide must come out as recorded on any run, and all the rest on the released study. What
another run says to a claim informs and never fails: it is one draw.
"""

from ladlib.report.claims import claims_frame, claims_text
from ladlib.report.stored import Stored
from ladlib.report.study_spoken import read_summaries
from ladlib.runs import RunFolder
from ladlib.verify.claim import Claim

UNTESTED = "not testable here"


def claims(run: RunFolder, stored: Stored, released: RunFolder) -> list[Claim]:
    """A line for each claim of the file."""
    frame = claims_frame(stored, read_summaries(run, {(one.arm, one.seed) for one in stored.generations}))
    own = run.root.resolve() == released.root.resolve()
    shown = zip(frame.to_dict("records"), claims_text(frame).to_dict("records"), strict=True)
    return [_claim(row, text, own) for row, text in shown]


def _claim(row: dict, text: dict, is_released: bool) -> Claim:
    subject, bar = f"claim {row['id']}", f"{row['expected']}; recorded: {row['recorded']}"
    if row["status"] == UNTESTED:
        verdict = "failed" if is_released and row["recorded"] != UNTESTED else "skipped"
        return Claim(verdict=verdict, subject=subject, found=UNTESTED, expected=bar)
    found = f"{row['status']}, {text['measured']} ({text['interval']})"
    if is_released or row["basis"] == "published figures":
        verdict = "held" if row["status"] == row["recorded"] else "failed"
        return Claim(verdict=verdict, subject=subject, found=found, expected=bar)
    return Claim(verdict="note", subject=subject, found=found, expected=bar)

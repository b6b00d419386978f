"""A person's look at written conversations: a page to decide on, and what was decided applied to the file.

    write_page(Path("sft.jsonl"), Path("data"), Path("review.html"))
    rows = apply_review(rows, Path("review.csv"))

The paper's pairs were "manually reviewed" (third-party summary); how is not known.
"""

from ladlib.review.decisions import apply_review
from ladlib.review.page import write_page

__all__ = ["apply_review", "write_page"]

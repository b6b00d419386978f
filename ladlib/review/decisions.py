"""``review.csv``: a row a conversation with what a person decided.

    id,decision,question,answer
    0f3a...,accept,"...","..."

accept keeps a conversation, edit replaces its words by those of the row, reject leaves it out. What has no row is
kept as it is, and counts as not reviewed.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from ladlib.errors import UserError
from ladlib.records import Record, Written
from ladlib.sanitize import escape_csv

Verdict = Literal["accept", "edit", "reject"]
COLUMNS = ("id", "decision", "question", "answer")


class Decision(Record):
    """A row of the review."""

    line: int  # where it begins in the file
    id: str
    decision: Verdict
    question: str
    answer: str


def apply_review(rows: Sequence[Written], file: Path) -> list[Written]:
    """``rows`` without the rejected ones, the edited ones with their new words.

    Raises :class:`UserError` that names the line for a decision or an id that does not exist, an id decided twice,
    an edit without words, and words that were changed in an accepted row.
    """
    known = {one.id: one for one in rows}
    decided: dict[str, Decision] = {}
    for one in read_review(file):
        place = f"{file}, line {one.line}"
        if one.id not in known:
            raise UserError(
                f"{place}: no conversation has the id {one.id!r}; its words or images are others now.",
                "Take the row out, or review the file anew with `ladlib data review`.",
            )
        if one.id in decided:
            raise UserError(f"{place}: {one.id!r} was decided in line {decided[one.id].line}.", "Keep one of the two.")
        if one.decision == "accept" and _words(one) != _words(known[one.id]):
            raise UserError(f"{place}: accepted, with other words than were written.", "Make the decision `edit`.")
        decided[one.id] = one
    return [new for one in rows if (new := _decided(one, decided.get(one.id)))]


def _words(one: Decision | Written) -> tuple[str, str]:
    """A spreadsheet may have changed line ends, and spaces at the edges."""
    return " ".join(one.question.split()), " ".join(one.answer.split())


def _decided(one: Written, found: Decision | None) -> Written | None:
    if found is None:
        return one
    if found.decision == "reject":
        return None
    words = {"question": found.question, "answer": found.answer} if found.decision == "edit" else {}
    return one.model_copy(update={"reviewed": found.decision} | words)


def read_review(file: Path) -> list[Decision]:
    """The rows of ``file``. Raises :class:`UserError` where it is not there or a row cannot be read."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:  # Excel begins UTF-8 with a mark
            return _rows(file, csv.reader(opened, strict=True))
    except OSError as error:
        raise UserError(
            f"There is no review file {file}.", "Download it from the page of `ladlib data review`."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text.", "Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"{file} is no CSV file: {error}.", "Download it from the review page again.") from error


def _rows(file: Path, lines) -> list[Decision]:
    head = [name.strip().lower() for name in next(lines, [])]
    if missing := [name for name in COLUMNS if name not in head]:
        raise UserError(
            f"{file}, line 1: no column {missing[0]!r}.", f"Save it with commas and the columns {','.join(COLUMNS)}."
        )
    rows, begins = [], lines.line_num + 1
    for cells in lines:
        if any(cell.strip() for cell in cells):
            rows.append(_decision(file, begins, dict(zip(head, cells, strict=False))))
        begins = lines.line_num + 1
    return rows


def _decision(file: Path, line: int, row: dict[str, str]) -> Decision:
    place = f"{file}, line {line}"
    if short := [name for name in COLUMNS if name not in row]:
        raise UserError(f"{place}: the row ends before its {short[0]}.", "Mend the row, or take it out.")
    decision, words = row["decision"].strip().lower(), [_plain(row[name]) for name in ("question", "answer")]
    if decision not in get_args(Verdict):
        raise UserError(f"{place}: {row['decision']!r} is no decision.", f"Use one of {', '.join(get_args(Verdict))}.")
    if decision == "edit" and not all(words):
        raise UserError(f"{place}: edited to no words.", "Give question and answer, or make the decision `reject`.")
    return Decision(line=line, id=row["id"].strip(), decision=decision, question=words[0], answer=words[1])


def _plain(text: str) -> str:
    plain = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    # The page puts an apostrophe before what a spreadsheet would run.
    return plain[1:] if plain.startswith("'") and escape_csv(plain[1:]) == plain else plain

"""The one kind of error that a user can put right, and small files read whole or refused with it."""

import json
from collections import Counter
from pathlib import Path

from pydantic import ValidationError


class UserError(Exception):
    """Something the user can put right: bad input, a missing file, an unknown name.

    ``what`` names the file, parameter or value that is wrong; ``hint`` says what to do. The
    command line prints ``str(error)`` as its only line and exits with code 2.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)  # as they are, so that it can be handed from process to process
        self.what, self.hint = what, hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}"


def first_problem(error: ValidationError, whole: str = "the file") -> str:
    """The first problem of a record as "field: message"; the field is ``whole`` where it concerns all of it."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or whole}: {problem['msg']}"


def read_text(path: Path, hint: str) -> str:
    """The UTF-8 text of ``path``. Raises :class:`UserError` where it cannot be read or is no such text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing.", hint) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", hint) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text.", hint) from error


def read_json(path: Path, hint: str, once: bool = False) -> object:
    """What the JSON of ``path`` says. Raises as :func:`read_text` and :func:`parse_json`."""
    return parse_json(read_text(path, hint), str(path), hint, once)


def parse_json(text: str, place: str, hint: str, once: bool = False) -> object:
    """What ``text``, found at ``place``, says.

    Raises :class:`UserError` for what is no JSON or too deeply nested; with ``once`` also for a key that stands
    twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_once if once else None)
    except RecursionError as error:
        raise UserError(f"{place} is nested too deeply.", hint) from error
    except ValueError as error:
        raise UserError(f"{place} is not JSON: {error}.", hint) from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """One of two values of a key would be lost without a word."""
    (key, times), *_ = Counter(key for key, _ in pairs).most_common(1) or [("", 0)]
    if times > 1:
        raise ValueError(f"the key {key!r} stands in it {times} times")
    return dict(pairs)

"""The error that a user can put right, and small files read whole or refused with it."""

import json
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
    """The UTF-8 text of ``path``, without a byte order mark. UserError where it cannot be read or is no such text."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path} is no regular file.", hint)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing.", hint) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", hint) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text.", hint) from error


def read_json(path: Path, hint: str, once: bool = False) -> object:
    """The content of the JSON file ``path``. Raises as :func:`read_text` and :func:`parse_json`."""
    return parse_json(read_text(path, hint), str(path), hint, once)


def parse_json(text: str, place: str, hint: str, once: bool = False) -> object:
    """The content of ``text``, which was read from ``place``.

    Raises :class:`UserError` for what is no JSON or too deeply nested; with ``once`` also for an object with a key
    twice, since one of its two values would be lost without a word.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if once else None)
    except RecursionError as error:
        raise UserError(f"{place} is nested too deeply.", hint) from error
    except ValueError as error:
        raise UserError(f"{place} is not JSON: {error}.", hint) from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands in it {keys.count(twice)} times")
    return values

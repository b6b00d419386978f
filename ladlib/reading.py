"""Small files read whole: whatever is wrong with one is an error that names it and the mend."""

import json
from collections import Counter
from pathlib import Path

from ladlib.errors import UserError


def read_text(path: Path, mend: str) -> str:
    """The UTF-8 text of ``path``. Raises :class:`UserError` where it cannot be read or is no such text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing.", mend) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", mend) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text.", mend) from error


def read_json(path: Path, mend: str, once: bool = False) -> object:
    """What the JSON of ``path`` says. Raises as :func:`read_text` and :func:`parse_json`."""
    return parse_json(read_text(path, mend), str(path), mend, once)


def parse_json(text: str, place: str, mend: str, once: bool = False) -> object:
    """What ``text``, found at ``place``, says.

    Raises :class:`UserError` for what is no JSON or too deeply nested; with ``once`` also for a key that stands
    twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_once if once else None)
    except RecursionError as error:
        raise UserError(f"{place} is nested too deeply.", mend) from error
    except ValueError as error:
        raise UserError(f"{place} is not JSON: {error}.", mend) from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """One of two values of a key would be lost without a word."""
    (key, times), *_ = Counter(key for key, _ in pairs).most_common(1) or [("", 0)]
    if times > 1:
        raise ValueError(f"the key {key!r} stands in it {times} times")
    return dict(pairs)

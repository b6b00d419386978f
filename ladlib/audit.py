"""The pins of a lock file held against OSV, the open database of vulnerabilities (https://osv.dev).

    python -m ladlib.audit requirements.lock

``make lint`` runs it. Names and versions are all that is sent. A database that cannot be reached is said, and is no
failure: a machine without a network can be linted too. pip-audit asks the same database and brings thirty packages.
"""

import re
import sys
from pathlib import Path

import httpx

from ladlib.errors import UserError, read_text

DATABASE = "https://api.osv.dev/v1/querybatch"
TIMEOUT = 20.0  # seconds
ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that stay, by their id, each with the reason."""


def read_pins(lock: Path) -> list[tuple[str, str]]:
    """(name, version) of each ``name==version`` line of ``lock``. Raises :class:`UserError` where there is none."""
    text = read_text(lock, "Name a lock file, such as requirements.lock.")
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, flags=re.MULTILINE)
    if not pins:
        raise UserError(f"{lock} holds no pins.", "Name a lock file, such as requirements.lock.")
    return pins


def ask(pins: list[tuple[str, str]], database: str = DATABASE) -> dict[tuple[str, str], list[str]]:
    """The ids of the known vulnerabilities of each pin that has any.

    Raises httpx.HTTPError where the database gives no answer, ValueError where it gives another than expected.
    """
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in pins]
    answer = httpx.post(database, json={"queries": queries}, timeout=TIMEOUT).raise_for_status().json()
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != len(pins):
        raise ValueError("it answers in another form")
    found = {pin: [one["id"] for one in result.get("vulns", ())] for pin, result in zip(pins, results, strict=True)}
    return {pin: ids for pin, ids in found.items() if ids}


def audit(lock: Path, database: str = DATABASE) -> tuple[list[str], bool]:
    """Lines to print, and whether nothing is wrong: no known vulnerability but those accepted."""
    pins = read_pins(lock)
    try:
        found = ask(pins, database)
    except (httpx.HTTPError, ValueError) as error:
        return [f"not audited: {database} gives no answer ({' '.join(str(error).split())})"], True
    told = {f"{name} {version}: {one}": ACCEPTED.get(one) for (name, version), ids in found.items() for one in ids}
    lines = [f"{what}{f', accepted: {reason}' if reason else ''}" for what, reason in told.items()]
    left = [what for what, reason in told.items() if reason is None]
    return [*lines, f"audited: {len(pins)} pins, {len(left)} vulnerabilities that are not accepted"], not left


if __name__ == "__main__":
    try:
        told, is_clean = audit(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(str(error))
    print("\n".join(told))
    sys.exit(0 if is_clean else 1)

"""What axe-core, the rules of WCAG run in a page, finds that would stop those who read by screen reader or keyboard."""

from collections.abc import Collection

from axe_playwright_python.sync_playwright import Axe

OPTIONS = {"resultTypes": ["violations"], "preload": False}  # a page opened as a file may not fetch its own styles


def serious_violations(page, within: str = ":root", known: Collection[str] = ()) -> list[tuple[str, str]]:
    """(rule, HTML of the first place) of each serious or critical one ``within`` a selector, ``known`` rules apart."""
    options = OPTIONS | {"rules": {rule: {"enabled": False} for rule in known}}
    found = Axe().run(page, context=within, options=options).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]

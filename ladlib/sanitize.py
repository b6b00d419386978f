"""Text from outside, made safe to show: control characters and marks that turn the writing direction are seen.

>>> escape_terminal("a\\x1b[31mb")
'a\\\\x1b[31mb'
"""

import re
import unicodedata
from html import escape

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four of East Asian width
NUMBERS = re.compile(r"[+-]?[\d.]+(?:e[+-]?\d+)?(?: ?%)?(?:[–,;] ?[+-]?[\d.]+(?: ?%)?)*")


def strip_control(text: str) -> str:
    """The text with control characters shown as U+FFFD: a raw completion may hold any."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def escape_html(text: str) -> str:
    """Text from outside as HTML text: markup is shown and not obeyed, also inside an attribute."""
    return escape(strip_control(text), quote=True)


def escape_terminal(text: str) -> str:
    """``text`` as one line that a terminal takes as text, each odd character as its escape: a name stays findable."""
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else ascii(letter)[1:-1]
        for letter in " ".join(text.split())
    )


def escape_csv(text: str) -> str:
    """``text`` as a spreadsheet shows it and does not run it: with an apostrophe before what would be a formula.

    (OWASP, "CSV injection".) Numbers and intervals stay as they are.

    >>> escape_csv("=HYPERLINK(1)"), escape_csv("-1.5")
    ("'=HYPERLINK(1)", '-1.5')
    """
    return f"'{text}" if text.lstrip().startswith(FORMULA) and not NUMBERS.fullmatch(text) else text

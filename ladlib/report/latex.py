r"""Tables for print: booktabs, as wide as the text of an A4 page with margins of 25 mm, long ones over several pages.

The document needs ``\usepackage{array,booktabs,longtable}`` and nothing else:

>>> print(latex(pd.DataFrame({"method": ["a_b"], "Acc": ["61.4"]})).splitlines()[5])
a\_b & 61.4 \\
"""

import re
from collections.abc import Sequence

import pandas as pd

LONGEST_TABULAR = 45  # rows that still fit one page
LONGEST_CELL = 34  # characters that a cell holds in one line; longer columns are wrapped
WIDEST_LINE = 98  # characters of a row that fit the page beside each other
WIDE = 0.86  # of the text's width, for what is wrapped; the rest is the space between columns
NUMBER = re.compile(r"[-+–]?(\d[\d.,]*( %)?)?( ?(\(|–|to) ?[-+]?\d.*)?|below [\d.]+")
NAMED = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": "'", "[": "{[}", "*": "{*}", "−": "$-$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "α": r"$\alpha$", "β": r"$\beta$", "ε": r"$\varepsilon$", "λ": r"$\lambda$",
    "π": r"$\pi$", "ρ": r"$\rho$", "σ": r"$\sigma$",
}  # fmt: skip  # [ and * would be read as options of the line end before them
KNOWN = frozenset("–—‘’“”…")  # beside Latin-1, which every LaTeX since 2020 sets


def escaped(text: str) -> str:
    """``text`` as LaTeX sets it, in one line; a character that LaTeX may not know stands there by its number."""
    return "".join(map(_character, " ".join(text.split())))


def _character(one: str) -> str:
    if one in NAMED:
        return NAMED[one]
    return one if one in KNOWN or (one.isprintable() and one < "\u0100") else f"{{[}}U+{ord(one):04X}]"


def latex(frame: pd.DataFrame, unprinted: Sequence[str] = ()) -> str:
    """A frame of text as a ``tabular``, or a ``longtable`` where one page is too short.

    A column ``label`` becomes a heading above the rows that share it. Columns ``unprinted`` are left out.
    """
    shown = frame.drop(columns=[one for one in (*unprinted, "label") if one in frame])
    labels = frame["label"] if "label" in frame else pd.Series("", index=frame.index)
    kind = "longtable" if len(frame) > LONGEST_TABULAR else "tabular"
    heading = [
        _line(shown.columns, broken=_wraps(shown)),
        r"\midrule",
        *([r"\endhead", r"\bottomrule", r"\endfoot"] * (kind == "longtable")),
    ]
    body, above = [], ""
    for label, row in zip(labels, shown.to_numpy().tolist(), strict=True):
        if label != above:
            body += [r"\addlinespace"] * bool(body) + [
                rf"\multicolumn{{{shown.shape[1]}}}{{l}}{{\itshape {escaped(label)}}} \\"
            ]
        body.append(_line(row, broken=_wraps(shown)))
        above = label
    foot = [r"\bottomrule"] * (kind == "tabular")
    lines = [
        rf"\begin{{{kind}}}{{@{{}}{_columns(shown)}@{{}}}}",
        r"\toprule",
        *heading,
        *body,
        *foot,
        rf"\end{{{kind}}}",
    ]
    return "\n".join([r"\begingroup\footnotesize\setlength{\tabcolsep}{4pt}%", *lines, r"\endgroup", ""])


def _line(cells: Sequence[object], broken: bool) -> str:
    """One row; ``broken`` lets names break behind an underscore, a full stop or a slash."""
    line = " & ".join(escaped(str(cell)) for cell in cells) + r" \\"
    return re.sub(r"(\\_|\\textgreater\{\}|(?<=[a-z])[./+](?=[a-z]))", r"\1\\allowbreak{}", line) if broken else line


def _widths(frame: pd.DataFrame) -> dict[str, int]:
    """The longest cell of each column, in characters, its heading among them."""
    return {name: max(map(len, [str(name), *frame[name].astype(str)])) for name in frame}


def _wraps(frame: pd.DataFrame) -> bool:
    """Whether the rows are too long for a page, so that cells go over several lines."""
    widths = _widths(frame).values()
    return max(widths, default=0) > LONGEST_CELL or sum(widths) > WIDEST_LINE


def _columns(frame: pd.DataFrame) -> str:
    """Numbers to the right, words to the left; long words share what the short columns leave of the width."""
    widths = _widths(frame)
    if not _wraps(frame):
        return "".join("r" if all(map(NUMBER.fullmatch, frame[name].astype(str))) else "l" for name in frame)
    shares = {name: max(min(width, 90), 14) ** 0.7 for name, width in widths.items()}
    whole = sum(shares.values())
    return "".join(
        rf">{{\raggedright\arraybackslash\hspace{{0pt}}}}p{{{WIDE * share / whole:.3f}\linewidth}}"
        for share in shares.values()
    )

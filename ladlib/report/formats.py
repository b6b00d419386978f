r"""A frame of text as Markdown, CSV or LaTeX: safe in each, whatever a model or a file name brings.

LaTeX needs ``\usepackage{array,booktabs,longtable}`` and is as wide as an A4 page with margins of 25 mm.
"""

import re
from collections.abc import Sequence

import pandas as pd

from ladlib.sanitize import escape_csv, strip_control

MISSING = "–"
LONGEST_TABULAR = 45  # rows that still fit one page
LONGEST_CELL = 34  # characters that a cell holds in one line; longer columns are wrapped
WIDEST_LINE = 98  # characters of a row that fit the page
WIDE = 0.86  # of the text's width, for what is wrapped; the rest is the space between columns
NUMBER = re.compile(r"[-+–]?(\d[\d.,]*( %)?)?( ?(\(|–|to) ?[-+]?\d.*)?|below [\d.]+")
NAMED = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": "'", "[": "{[}", "*": "{*}", "−": "$-$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "α": r"$\alpha$", "β": r"$\beta$", "ε": r"$\varepsilon$", "λ": r"$\lambda$",
    "π": r"$\pi$", "ρ": r"$\rho$", "σ": r"$\sigma$",
})  # fmt: skip  # [ and * would be read as options of the line end before them
LITERAL = str.maketrans({"\\": "\\\\", "|": "\\|", "<": "\\<", "\n": " "})  # what Markdown shows as it is
UNKNOWN = re.compile("[^ -~¡-¬®-ÿ–—‘’“”…]")  # what is no Latin-1, which every LaTeX since 2020 sets


def cell_text(value: object) -> str:
    """``61.4``, ``12``, a text as it is; a dash for None and NaN."""
    if isinstance(value, float):
        return MISSING if pd.isna(value) else f"{value:.1f}"
    return MISSING if value is None or value is pd.NA else str(value)


def banded(mean: float, low: float, high: float) -> str:
    """``61.2 (60.3–62.5)``; the mean alone where the band has no width, a dash without a value."""
    if pd.isna(mean):
        return MISSING
    return f"{mean:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{mean:.1f} ({low:.1f}–{high:.1f})"


def csv(frame: pd.DataFrame) -> str:
    """``frame`` as CSV whose texts no spreadsheet takes for formulas, and no terminal for commands."""
    safe = frame.map(lambda cell: escape_csv(strip_control(cell)) if isinstance(cell, str) else cell)
    return safe.to_csv(index=False, lineterminator="\n")


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table of a frame of text; ``to_markdown`` would escape neither pipes nor line ends in cells."""
    lines = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    text = "".join("| " + " | ".join(str(cell).translate(LITERAL) for cell in line) + " |\n" for line in lines)
    return text.replace("](", "]\\(")


def escape_latex(text: str) -> str:
    """``text`` as LaTeX sets it, in one line; a character that LaTeX may not know is given by its number."""
    named = " ".join(text.split()).translate(NAMED)
    return UNKNOWN.sub(lambda one: f"{{[}}U+{ord(one[0]):04X}]", named)


def latex(frame: pd.DataFrame, unprinted: Sequence[str] = ()) -> str:
    """A frame of text as a ``tabular``, or a ``longtable`` where one page is too short.

    A column ``label`` becomes a heading above the rows that share it. Columns ``unprinted`` are left out.
    """
    shown = frame.drop(columns=[*unprinted, "label"], errors="ignore").astype(str)
    labels = frame["label"] if "label" in frame else pd.Series("", index=frame.index)
    widths = {name: max(map(len, [str(name), *shown[name]])) for name in shown}
    wraps = max(widths.values(), default=0) > LONGEST_CELL or sum(widths.values()) > WIDEST_LINE
    kind = "longtable" if len(frame) > LONGEST_TABULAR else "tabular"
    body, above = [_line(shown.columns, wraps), r"\midrule"], ""
    body += [r"\endhead", r"\bottomrule", r"\endfoot"] * (kind == "longtable")
    for number, (label, row) in enumerate(zip(labels, shown.to_numpy().tolist(), strict=True)):
        if label != above:
            body += [r"\addlinespace"] * bool(number)
            body += [rf"\multicolumn{{{shown.shape[1]}}}{{l}}{{\itshape {escape_latex(label)}}} \\"]
        body.append(_line(row, wraps))
        above = label
    body += [r"\bottomrule"] * (kind == "tabular")
    layout = _shares(widths) if wraps else "".join("lr"[all(map(NUMBER.fullmatch, shown[name]))] for name in shown)
    begin = [r"\begingroup\footnotesize\setlength{\tabcolsep}{4pt}%", rf"\begin{{{kind}}}{{@{{}}{layout}@{{}}}}"]
    return "\n".join([*begin, r"\toprule", *body, rf"\end{{{kind}}}", r"\endgroup", ""])


def _line(cells: Sequence[str], wraps: bool) -> str:
    """One row; where cells wrap, names may break behind an underscore, a full stop or a slash."""
    line = " & ".join(map(escape_latex, cells)) + r" \\"
    return re.sub(r"(\\_|\\textgreater\{\}|(?<=[a-z])[./+](?=[a-z]))", r"\1\\allowbreak{}", line) if wraps else line


def _shares(widths: dict[str, int]) -> str:
    """Wrapped columns, wider where cells are longer, but less than in proportion."""
    shares = [max(min(width, 90), 14) ** 0.7 for width in widths.values()]
    form = r">{{\raggedright\arraybackslash\hspace{{0pt}}}}p{{{:.3f}\linewidth}}"
    return "".join(form.format(WIDE * share / sum(shares)) for share in shares)

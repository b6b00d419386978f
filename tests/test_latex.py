"""The printed tables: they compile as they are, and fit the page."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from made_up import made_up_arm, made_up_run, write_generations

from ladlib.report.latex import escaped, latex
from ladlib.report.page import write_report
from ladlib.report.study import write_study
from ladlib.report.tables import readable, write
from ladlib.runs import RELEASED, RunFolder

MEAN = r"_ & % # $ { } ~ ^ \ [x] *y* <b> | → 中 ‮ \end{tabular} $x_1$ " + "\x00"
PAGE = r"""\documentclass[a4paper]{article}
\usepackage[margin=25mm]{geometry}
\usepackage{array,booktabs,longtable}
\begin{document}
%s
\end{document}
"""


@pytest.fixture(scope="module")
def typeset(tmp_path_factory):
    """Sets tables in one document and gives its log; skips where there is no TeX."""
    engine = next(filter(shutil.which, ("tectonic", "pdflatex", "lualatex")), None)
    if engine is None:
        pytest.skip("neither tectonic nor pdflatex nor lualatex is on the path: the tables are not compiled")

    def compiled(files):
        folder = tmp_path_factory.mktemp("tex")
        inputs = "\n".join(rf"\noindent\input{{{file.resolve()}}}\clearpage" for file in files)
        (folder / "tables.tex").write_text(PAGE % inputs, encoding="utf-8")
        options = ["--keep-logs"] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
        done = subprocess.run([engine, *options, "tables.tex"], cwd=folder, capture_output=True, text=True,
                              errors="replace")  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:]
        assert (folder / "tables.pdf").stat().st_size > 1000
        return (folder / "tables.log").read_text(encoding="utf-8", errors="replace")

    return compiled


def stored_only(name, root):
    """A copy of what a released run was made from."""
    keep = shutil.ignore_patterns("tables", "figures", "samples")
    return RunFolder(shutil.copytree(RELEASED / name, root / name, ignore=keep))


def overfull(log):
    return [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide", log)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy", "study"])
def test_every_table_of_a_released_run_compiles_and_fits_the_page(name, tmp_path, typeset):
    run = stored_only(name, tmp_path)
    write_report(run, tmp_path / "no images")
    if name == "study":
        write_study(run)
    files = sorted(run.tables.glob("*.tex"))
    assert len(files) >= 5
    for file in files:
        assert overfull(typeset([file])) == [], file.name


def test_names_that_mean_harm_compile(tmp_path, typeset):
    run = made_up_run(tmp_path / "run")
    rows = [one.model_copy(update={"category": MEAN, "defect": MEAN * bool(one.defect), "served": MEAN})
            for one in made_up_arm("large", ["yes", "no"])]  # fmt: skip
    write_generations(run, "large", rows)
    write_report(run)
    typeset(sorted(run.tables.glob("*.tex")))


def test_cells_that_begin_with_an_option_of_the_line_end_compile(tmp_path, typeset):
    write(pd.DataFrame({"a": ["1", "[2pt]", "*", MEAN], "b": ["x"] * 4}), tmp_path, "odd")
    typeset([tmp_path / "odd.tex"])


def test_a_table_of_500_rows_goes_over_several_pages(tmp_path, typeset):
    frame = pd.DataFrame({"category": ["pushpins"] * 500, "right": range(500)})
    text = latex(readable(frame))
    assert text.count(r"\begin{longtable}") == 1 and r"\endhead" in text
    (tmp_path / "long.tex").write_text(text, encoding="utf-8")
    assert int(re.search(r"\((\d+) pages", typeset([tmp_path / "long.tex"]))[1]) > 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 50 %", r"a\_b \& 50 \%"),
        ("\\", r"\textbackslash{}"),
        ("a\nb", "a b"),
        ("[x]", "{[}x]"),
        ("中\u202e\x00", "{[}U+4E2D]{[}U+202E]{[}U+0000]"),
        ("57.3–65.3", "57.3–65.3"),
    ],
)
def test_text_is_set_as_it_is_written(text, expected):
    assert escaped(text) == expected


def test_rows_stand_below_what_their_numbers_are_of():
    lines = latex(pd.DataFrame({"m": ["a", "b"], "Acc": ["1.0", "–"], "label": ["toy", "published"]})).splitlines()
    toy, published = (next(place for place, line in enumerate(lines) if name in line) for name in ("toy", "published"))
    assert (lines[toy + 1], lines[published + 1]) == (r"a & 1.0 \\", r"b & – \\")
    assert lines[1].endswith("{@{}lr@{}}")

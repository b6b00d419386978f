"""A run's executed notebooks and its report as pages that open without a server and without a network.

    write_site(RunFolder("results/runs/toy"), Path("site"))

Formulas are MathML, pictures lie inside the pages, and the search reads an index that is a script beside them: a
double click on ``index.html`` is enough, and nothing is asked of any other machine.
"""

import shutil
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from pygments.formatters import HtmlFormatter

from ladlib.errors import UserError
from ladlib.pipeline.stages import STAGES, notebooks_folder
from ladlib.report.stored import profile_of
from ladlib.runs import RunFolder, write_text
from ladlib.site.pages import Page, page_of

BESIDE = ("appendix/*.ipynb", "README.md", "solutions/*.ipynb")
"""What belongs to every site as it lies in the notebooks folder, without outputs."""


def write_site(run: RunFolder, out: Path) -> Path:
    """Write the site of ``run`` into the folder ``out``; returns its first page.

    Stages that were not run are left out. Pages of an earlier site are replaced, and other files in ``out`` stay as
    they are. Raises :class:`UserError` where the run has no executed notebook.
    """
    record = run.read()
    executed, beside = _executed(run), _beside()
    given = {
        "executed": executed, "beside": beside, "record": record, "profile": profile_of(record),
        "report": run.report.is_file(), "times": {one.name: one.seconds for one in record.stages},
    }  # fmt: skip
    for page in (*executed, *beside):
        _write(out / page.address, "page.html.j2", page=page, up="../" * page.address.count("/"), **given)
    _write(out / "index.html", "index.html.j2", page=None, up="", **given)
    _write(out / "site.css", "site.css.j2", code=HtmlFormatter(style="xcode").get_style_defs(".highlight"))
    sections = [
        (page.address, page.title, one.anchor, one.heading, one.text)
        for page in (*executed, *beside)
        for one in page.sections
    ]
    _write(out / "search.js", "search.js.j2", sections=sections)
    if run.report.is_file():
        shutil.copyfile(run.report, out / "report.html")
    return out / "index.html"


def _executed(run: RunFolder) -> list[Page]:
    files = [stage.notebook(run.notebooks) for stage in STAGES]
    pages = [page_of(file, file.name) for file in files if file.is_file()]
    if not pages:
        raise UserError(
            f"{run.root} holds no executed notebook.", "Run `ladlib reproduce` with --run, or give another."
        )
    return pages


def _beside() -> list[Page]:
    folder = notebooks_folder()
    files = [file for pattern in BESIDE for file in sorted(folder.glob(pattern))]
    return [page_of(file, file.relative_to(folder).as_posix()) for file in files]


def _write(path: Path, template: str, **given: object) -> None:
    environment = Environment(
        loader=PackageLoader("ladlib.site", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    write_text(path, environment.get_template(template).render(given))

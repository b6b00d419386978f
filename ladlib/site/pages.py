"""One notebook, or the page for teachers, as the inside of a page: HTML, its title, and its sections for the search."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nbformat
from bs4 import BeautifulSoup, NavigableString, Tag
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from ladlib.errors import UserError

HEADINGS = ("h1", "h2", "h3")
SILENT = ("style", "script", "annotation")
APART = ("p", "li", "td", "th", "tr", "pre", "div", "figcaption", "caption")  # two words, though no space parts them
VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Section:
    """What stands below one heading of ``level`` 1 to 3: ``anchor`` is its id, ``text`` all that can be searched."""

    level: int
    anchor: str
    heading: str
    text: str


@dataclass(frozen=True)
class Page:
    """``address`` is relative to the site, ``body`` HTML, ``lead`` the paragraph that says what it is about."""

    address: str
    title: str
    lead: str
    body: str
    sections: tuple[Section, ...]


def page_of(file: Path, name: str) -> Page:
    """The page of a notebook or a Markdown file that has the path ``name`` in the notebooks folder.

    Raises :class:`UserError` for a notebook that cannot be read.
    """
    inside = _from_notebook(file) if file.suffix == ".ipynb" else _from_markdown(file.read_text(encoding="utf-8"))
    soup = BeautifulSoup(inside, "html.parser")
    _name_headings(soup)
    _turn_links(soup)
    _reach_by_keyboard(soup)
    sections = _sections(soup)
    lead = " ".join(soup.p.get_text().split()) if soup.p else ""
    return Page(address(name), sections[0].heading, lead, str(soup), sections)


def address(name: str) -> str:
    """Where on the site the file ``name`` of the notebooks folder lies; a folder is told on the first page.

    >>> address("appendix/grpo_from_scratch.ipynb"), address("README.md"), address("../solutions/")
    ('appendix/grpo_from_scratch.html', 'teaching.html', '../index.html')
    """
    path = PurePosixPath(name)
    if name.endswith("/"):
        return str(path.with_name("index.html"))
    return str(path.with_name("teaching.html") if path.name == "README.md" else path.with_suffix(".html"))


def _from_notebook(file: Path) -> str:
    try:
        notebook = nbformat.read(file, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise UserError(f"{file} is no readable notebook.", "Run its stage again.") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":  # a widget needs a kernel; the still beside it does not
            cell.outputs = [one for one in cell.outputs if VIEW not in one.get("data", {})]
    notebook.metadata.pop("widgets", None)
    exporter = _Exporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    return exporter.from_notebook_node(notebook)[0]


def _from_markdown(text: str) -> str:
    return MarkdownWithMath(renderer=_Renderer(escape=False)).render(text)


class _Renderer(IPythonRenderer):
    """Formulas as MathML, which a browser draws and a screen reader reads without any script."""

    def block_math(self, body: str) -> str:
        return convert(body.strip(), display="block")

    def inline_math(self, body: str) -> str:
        return convert(body.strip())


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: object, source: str) -> str:
        return _from_markdown(source)


def _name_headings(soup: BeautifulSoup) -> None:
    """Ids of headings without repetition, so that each can be pointed at."""
    seen = Counter()
    for heading in soup.find_all(HEADINGS):
        name = heading.get("id") or "top"
        seen[name] += 1
        heading["id"] = f"{name}-{seen[name]}" if seen[name] > 1 else name
        if link := heading.find("a", class_="anchor-link"):
            link["href"], link["aria-label"] = f"#{heading['id']}", "Link to this section"


def _turn_links(soup: BeautifulSoup) -> None:
    for link in soup.find_all("a", href=True):
        if not link["href"].startswith(("#", "http:", "https:", "mailto:")):
            link["href"] = address(link["href"])


def _reach_by_keyboard(soup: BeautifulSoup) -> None:
    """What is wider than the page scrolls in a box of its own, by the arrow keys too."""
    for table in soup.select("table:not(.output_subarea table)"):
        table.wrap(soup.new_tag("div", attrs={"class": "output_subarea"}))
    for box in soup.select(".output_subarea:has(table, pre), pre:not(.output_subarea pre)"):
        box["tabindex"] = "0"


def _sections(soup: BeautifulSoup) -> tuple[Section, ...]:
    """Every heading with the text below it, code and tables included."""
    found: list[tuple[Tag, list[str]]] = []
    for part in soup.descendants:
        if isinstance(part, Tag):
            if part.name in HEADINGS:
                found.append((part, []))
            elif part.name in APART and found:
                found[-1][1].append(" ")
        elif type(part) is NavigableString and found and not part.find_parent((*SILENT, *HEADINGS)):
            found[-1][1].append(str(part))
    return tuple(
        Section(
            int(heading.name[1]), heading["id"], heading.get_text().removesuffix("¶"), " ".join("".join(texts).split())
        )
        for heading, texts in found
    )

"""Lock, pyproject.toml and environment.yml in step, and what the wheel must carry."""

import ast
import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import ladlib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DECLARED = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
TEST_EXTRA = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["test"]]
BUILD = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
# Module names that are not the name of the distribution they come from.
MODULE = {"ipython": "IPython", "pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml", "beautifulsoup4": "bs4"}
# Used without an import: the kernel that papermill starts, and JupyterLab for `make lab`.
WITHOUT_IMPORT = {"ipykernel", "jupyterlab", "accelerate"}
# Imported, and always there: transformers needs the first, ipykernel and nbclient the second, openai the third.
COME_WITH = {"huggingface_hub", "jupyter_client", "httpx2"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock() -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines())
    pins = {}
    for requirement in (Requirement(line) for line in lines if line):
        (one,) = requirement.specifier
        assert one.operator == "==" and not requirement.url
        pins[canonical(requirement.name)] = one.version
    return pins


LOCK = read_lock()


@pytest.mark.parametrize("requirement", DECLARED + TEST_EXTRA + BUILD, ids=lambda r: r.name)
def test_what_pyproject_asks_for_is_locked_at_a_version_that_satisfies_it(requirement):
    assert requirement.specifier.contains(LOCK[canonical(requirement.name)])


def test_the_lock_pins_torch_exactly_and_no_accelerator_packages():
    assert LOCK["torch"] == "2.13.0"
    assert not [name for name in LOCK if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_lock_is_closed_over_what_the_packages_need():
    """Every requirement of a locked and installed package is locked, too; torch's own are the index's choice."""
    installed = {canonical(one.name): one.requires or [] for one in metadata.distributions()}
    missing = set()
    for name in LOCK.keys() & installed.keys() - {"torch"}:  # others are locked for another platform or Python
        for need in map(Requirement, installed[name]):
            if (need.marker is None or need.marker.evaluate({"extra": ""})) and canonical(need.name) not in LOCK:
                missing.add(f"{name} needs {need.name}")
    assert not missing


def test_the_stated_python_is_new_enough_for_every_pin_and_the_same_everywhere():
    bound = PROJECT["project"]["requires-python"].removeprefix(">=")
    wanted = {one.name: SpecifierSet(one.metadata["Requires-Python"] or "") for one in metadata.distributions()}
    assert not [name for name, python in wanted.items() if canonical(name) in LOCK and bound not in python]
    for name in ("README.md", "Makefile"):
        assert f"Python {bound} or newer" in (ROOT / name).read_text()


def test_conda_users_get_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["project"]["name"]
    python = next(line for line in environment["dependencies"] if str(line).startswith("python="))
    assert python.split("=")[1] in ("3.11", "3.12", "3.13")
    pip = next(line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    assert pip == ["-r requirements.lock", "-e ."]


def imported_packages(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"ladlib"}


def test_every_package_that_is_imported_is_declared_and_every_declared_one_is_used():
    declared = {MODULE.get(canonical(one.name), canonical(one.name)) for one in DECLARED}
    imported = imported_packages(ROOT / "ladlib")
    assert imported <= declared | COME_WITH
    notebooks = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))
    unused = declared - imported - imported_packages(ROOT / "tests") - WITHOUT_IMPORT
    assert {name for name in unused if f"import {name}" not in notebooks} == set()


def test_citation_and_licence_say_the_same_as_pyproject():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    assert citation["version"] == ladlib.__version__
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert any("2504.12749" in str(reference) for reference in citation["references"])


def test_ci_runs_the_tests_and_the_makefile_has_the_promised_targets():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"reproduce", "test", "env", "lab", "report", "lint"} <= targets


@pytest.mark.parametrize("folder", [".", "notebooks", "results", "ladlib/profiles"])
def test_every_link_of_a_readme_leads_to_a_file_or_a_heading(folder):
    page = ROOT / folder / "README.md"
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        if not link.startswith("https://"):
            file = page.parent / path if path else page
            assert file.exists() and (not heading or heading in headings(file)), link


def headings(file: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    lines = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_no_notebook_source_carries_outputs():
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")], path.name

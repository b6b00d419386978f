"""``make docs``: pages without a dead link that ask nothing of any other machine. Skipped where Sphinx is missing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WIDGET = '{"output_type": "display_data", "metadata": {}, "data": {"application/vnd.jupyter.widget-view+json": {}}}'


def test_the_pages_open_from_a_folder(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_nb")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "notebooks"))
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    executed = tmp_path / "results" / "runs" / "toy" / "notebooks" / "02_sft.ipynb"
    executed.parent.mkdir(parents=True)
    source = (ROOT / "notebooks" / "02_sft.ipynb").read_text(encoding="utf-8")
    printed = '{"output_type": "stream", "name": "stdout", "text": "<script>printed</script>"}'
    executed.write_text(source.replace('"outputs": []', f'"outputs": [{WIDGET}, {printed}]'), encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "docs", "site"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)

    pages = {page: page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 12 and sum(text.count("<math") for text in pages.values()) > 20
    assert "&lt;script&gt;printed" in pages[tmp_path / "site" / "notebooks" / "02_sft.html"]
    for page, text in pages.items():
        assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="https?:', text), page
        links = [link for link in re.findall(r'<a [^>]*href="([^"#]+)', text) if not re.match(r"\w+:", link)]
        assert [link for link in links if not (page.parent / link).resolve().exists()] == [], page

"""What all tests share: nothing is fetched from a network, and threads do not fight over cores."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples in every run of a continuous integration; new ones wherever a person tests.
settings.register_profile("ci", derandomize=True)
# Minutes: HYPOTHESIS_PROFILE=long python -m pytest tests/test_any_input.py tests/test_parsing.py
settings.register_profile("long", max_examples=10_000, deadline=None)
if profile := os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else ""):
    settings.load_profile(profile)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A whole run of the smoke profile through the real pipeline. Nobody changes it."""
    from rich.console import Console

    from ladlib.pipeline import reproduce

    root = tmp_path_factory.mktemp("runs") / "smoke run"
    return reproduce("smoke", run=str(root), console=Console(quiet=True))


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, where a machine has one."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("neither chromium nor google-chrome is on the path")
    with sync_playwright() as play:
        yield play.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture(scope="session")
def qwen_files() -> Path:
    """Qwen2.5-VL's own tokenizer, processor settings and chat template, where a machine has them.

    Set ``LADLIB_QWEN_FILES`` to a folder with vocab.json, merges.txt, tokenizer_config.json,
    preprocessor_config.json, chat_template.json and config.json, as in a model's repository; its weights
    are not needed. The files themselves are not part of this project.
    """
    folder = os.environ.get("LADLIB_QWEN_FILES", "")
    if not folder or not (Path(folder) / "vocab.json").is_file():
        pytest.skip("LADLIB_QWEN_FILES names no folder with Qwen2.5-VL's tokenizer")
    return Path(folder)

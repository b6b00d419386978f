"""What all tests share: nothing is fetched from a network, and threads do not fight over cores."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

WORKER = os.environ.get("PYTEST_XDIST_WORKER")  # where several processes share the tests
if WORKER:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in what a test starts
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
BLOCKED = Path(__file__).with_name("blocked")  # on the path of Python, it lets nothing connect to another machine
for name in OFFLINE:
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples in every run of a continuous integration; new ones wherever a person tests.
settings.register_profile("ci", derandomize=True)
# Minutes: HYPOTHESIS_PROFILE=long python -m pytest tests/test_any_input.py tests/test_parsing.py
settings.register_profile("long", max_examples=10_000, deadline=None)
if profile := os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else ""):
    settings.load_profile(profile)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A whole run of the smoke profile through the real pipeline, made once for all processes. Nobody changes it."""
    from rich.console import Console

    from ladlib.pipeline import reproduce
    from ladlib.runs import RunFolder

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if WORKER else folder
    run, whole = RunFolder(folder / "runs" / "smoke run"), folder / "smoke.whole"
    with FileLock(folder / "smoke.lock"):
        if not whole.exists():
            with pytest.MonkeyPatch.context() as patch:  # its kernels reach nothing but this machine: test_no_network
                for name in OFFLINE:
                    patch.delenv(name)
                patch.setenv("PYTHONPATH", f"{BLOCKED}:{os.environ.get('PYTHONPATH', '')}")
                patch.setenv("TRIED", str(run.root.parent / "tried"))
                reproduce("smoke", run=str(run.root), console=Console(quiet=True))
            whole.touch()
    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Small datasets that no test changes."""
    from tiny import write_data

    return write_data(tmp_path_factory.mktemp("data"))


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

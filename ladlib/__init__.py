"""ladlib: LAD-Reasoner (arXiv 2504.12749) as code one can run, read and teach from.

    import ladlib as lad

    session = lad.start(profile="toy")
    lad.figures.roc(session.evaluate("sft_grpo"))

Submodules are imported on first use, so that a notebook loads matplotlib or torch only in the cell that needs it.
"""

import os
import warnings
from importlib import import_module

__version__ = "0.1.0"

# TRL's trainers would tell Hugging Face that they are used; nothing here connects to anything unasked.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# tqdm would ask for a widget in every notebook; the stages tell their progress in lines (ladlib.progress).
warnings.filterwarnings("ignore", message="IProgress not found")

IN_REPORT = ("analysis", "cards", "figures", "formats", "page", "tables", "widgets")
FUNCTIONS = {"start": "notebook", "reopen": "notebook", "load_run": "results", "load_study": "results"}


def __getattr__(name: str) -> object:
    if name in FUNCTIONS:
        return getattr(import_module(f"ladlib.{FUNCTIONS[name]}"), name)
    path = f"ladlib.report.{name}" if name in IN_REPORT else f"ladlib.{name}"
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise AttributeError(f"module 'ladlib' has no attribute {name!r}") from None

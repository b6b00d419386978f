"""ladlib: LAD-Reasoner (arXiv 2504.12749) as code one can run, read and teach from."""

import os
import warnings

__version__ = "0.1.0"

# TRL's trainers would tell Hugging Face that they are used; nothing here connects to anything unasked.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# tqdm would ask for a widget in every notebook; the stages tell their progress in lines (ladlib.progress).
warnings.filterwarnings("ignore", message="IProgress not found")

"""ladlib: LAD-Reasoner (arXiv 2504.12749) as code one can run, read and teach from."""

import warnings

__version__ = "0.1.0"

# tqdm would ask for a widget in every notebook; the stages tell their progress in lines (ladlib.progress).
warnings.filterwarnings("ignore", message="IProgress not found")

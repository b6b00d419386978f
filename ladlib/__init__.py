"""ladlib: LAD-Reasoner (arXiv 2504.12749) as code one can run, read and teach from."""

__version__ = "0.1.0"

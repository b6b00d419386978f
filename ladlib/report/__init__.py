"""Tables, figures and one page from what a run has stored. Needs no model and no torch.

>>> from ladlib.report import write_report
>>> write_report(RunFolder("results/runs/toy"))  # doctest: +SKIP
PosixPath('results/runs/toy/report.html')
"""

from ladlib.report.page import write_report
from ladlib.report.tables import comparison_text

__all__ = ["comparison_text", "write_report"]

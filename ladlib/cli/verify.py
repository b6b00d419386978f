"""The command that holds a run against what is committed: verify."""

from pathlib import Path
from typing import Annotated

import typer

from ladlib.errors import UserError

VERIFY_EXAMPLES = "Examples:\n\n  ladlib verify results/runs/toy\n\n  ladlib verify results/released/toy"


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder, or a released copy of one.")],
) -> None:
    """Hold a run against the released study and the paper's table, a line a claim; exit 1 if one fails.

    Loads no model. Tolerances stand in the lines.
    """
    if not run.is_dir():
        raise UserError(f"There is no folder {run}.", "Give a run folder, such as results/runs/toy.")
    from rich.console import Console

    from ladlib.runs import RunFolder
    from ladlib.verify import verify as hold

    console = Console(highlight=False)
    claims = hold(RunFolder(run))
    for claim in claims:
        console.print(claim.line, markup=False, soft_wrap=True)
    verdicts = [claim.verdict for claim in claims if claim.verdict != "note"]
    counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("held", "failed", "skipped"))
    console.print(f"\n{len(verdicts)} claims: {counts}")
    raise typer.Exit(1 if "failed" in verdicts else 0)

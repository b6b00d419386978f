"""The command that holds a run against what is committed: verify."""

from pathlib import Path
from typing import Annotated

import typer

from ladlib.cli.options import Json, answer
from ladlib.errors import UserError

VERIFY_EXAMPLES = (
    "Examples:\n\n  ladlib verify results/runs/toy"
    "\n\n  ladlib verify results/released/toy"
    "\n\n  ladlib verify results/runs/toy --json"
)
VERDICTS = ("held", "failed", "skipped")


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder, or a released copy of one.")],
    as_json: Json = False,
) -> None:
    """Hold a run against the released study and the paper's table, a line a claim; exit 1 if one fails.

    Loads no model. Tolerances stand in the lines.
    """
    if not run.is_dir():
        raise UserError(f"There is no folder {run}.", "Give a run folder, such as results/runs/toy.")
    from ladlib.runs import RunFolder
    from ladlib.verify import verify as hold

    claims = hold(RunFolder(run))
    counts = {kind: sum(claim.verdict == kind for claim in claims) for kind in VERDICTS}
    if as_json:
        answer({"run": str(run), **counts, "claims": [claim.model_dump() for claim in claims]})
    else:
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        typer.echo("\n".join([*(claim.line for claim in claims), "", f"{sum(counts.values())} claims: {told}"]))
    raise typer.Exit(1 if counts["failed"] else 0)

"""The command line. Heavy imports live inside the commands, so that ``--help`` answers at once."""

import errno
import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from ladlib import __version__
from ladlib.cli import bench, conversations, data, model, runs, study, verify
from ladlib.errors import UserError
from ladlib.sanitize import escape_terminal

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Commands(TyperGroup):
    """Tells what a user can hint in one line and exits with 2; shows a failed stage and exits with 1."""

    def invoke(self, ctx: typer.Context) -> object:
        from ladlib.pipeline.stages import StageFailed

        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(escape_terminal(str(error)), err=True)
            raise typer.Exit(2) from error
        except OSError as error:
            if not error.filename and error.errno not in FULL:
                raise
            where = f"{error.filename}: " if error.filename else ""
            typer.echo(escape_terminal(f"{where}{error.strerror}. {_hint(error)}"), err=True)
            raise typer.Exit(2) from error
        except StageFailed as error:
            typer.echo(f"\n{error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("\nStopped. What is done is kept: the same command goes on from there.", err=True)
            raise typer.Exit(130) from error


def _hint(error: OSError) -> str:
    """What to do about a file that the system refuses, where nothing nearer to it said so."""
    if error.errno in FULL:
        return "The disk is full: make room and run the same command again, what is done is kept."
    return "Check the path and its permissions, or name another folder."


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # no frames in a pipe or a file
    context_settings={"help_option_names": ["-h", "--help"]},
)
data.app.command(epilog=conversations.SFT_EXAMPLES)(conversations.sft)
app.add_typer(data.app, name="data")
app.command(epilog=runs.REPRODUCE_EXAMPLES)(runs.reproduce)
app.command(epilog=runs.REPORT_EXAMPLES)(runs.report)
app.command(epilog=model.INSPECT_EXAMPLES)(model.inspect)
app.command(epilog=model.PRETRAIN_EXAMPLES)(model.pretrain)
app.command(epilog=study.STUDY_EXAMPLES)(study.study)
app.add_typer(bench.app, name="bench")
app.command(epilog=runs.DOCTOR_EXAMPLES)(runs.doctor)
app.command(epilog=verify.VERIFY_EXAMPLES)(verify.verify)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ladlib {__version__}")
        raise typer.Exit()


@app.callback(
    epilog="Examples:\n\n  ladlib reproduce                      the toy profile, minutes on a CPU"
    "\n\n  ladlib inspect normal.png test.png    one verdict with its rationale"
    "\n\n  ladlib doctor --profile paper         can this machine run it?"
)
def ladlib(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """LAD-Reasoner (arXiv 2504.12749): judge a test image against a normal one, with a rationale."""

"""The command data sft: a file of conversations for stage 1."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ladlib.errors import UserError

SFT_EXAMPLES = (
    "Examples:\n\n  ladlib data sft --data /data/anomaly --out sft.jsonl"
    "\n\n  ladlib data sft --data /data/anomaly --out sft.jsonl --writer endpoint"
    " --endpoint http://localhost:8000/v1 --model gemma-3-27b --input-price 0.1 --output-price 0.2"
    "\n\n  ladlib data sft --data /data/anomaly --out sft.jsonl --review review.csv"
)

Datasets = Annotated[Path, typer.Option(help="Folder that holds MVTec AD, VisA and MMAD.")]


class Writer(StrEnum):
    """Who words a conversation."""

    TEMPLATE = "template"
    ENDPOINT = "endpoint"


def sft(
    data: Datasets,
    out: Annotated[Path, typer.Option(help="File to write, such as sft.jsonl.")],
    profile: Annotated[str, typer.Option(help="Says how many, and how large images are: smoke ... paper.")] = "paper",
    seed: Annotated[int, typer.Option(help="Seed of the choice and the order.")] = 0,
    writer: Annotated[Writer, typer.Option(help="MMAD's annotations as they are, or a model that merges them "
        "with what it sees.")] = Writer.TEMPLATE,
    endpoint: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, up to /v1.")] = None,
    model: Annotated[str | None, typer.Option(help="Name that the model is served under.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at a time.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="0: as many as come.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for a whole reply.")] = None,
    input_price: Annotated[float | None, typer.Option(help="Dollars for a million tokens.")] = None,
    output_price: Annotated[float | None, typer.Option(help="Dollars for a million tokens.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of a reply. Default: 1024.")] = None,
    ask_again: Annotated[bool, typer.Option("--ask-again", help="Ask again for replies in another form.")] = False,
    review: Annotated[Path | None, typer.Option(help="The file's review.csv with decisions, to be applied.")] = None,
) -> None:  # fmt: skip
    """Build the conversations of stage 1 from MMAD's annotations; train on them with data.sft_file in a profile.

    An endpoint's replies are kept beside the file, in sft-replies.jsonl, and none is asked for twice. Its key comes
    from the environment: LADLIB_API_KEY or OPENAI_API_KEY.
    """
    from ladlib.config import load_profile
    from ladlib.sft_data import make_conversations, refuse_other, write_sft_file
    from ladlib.sft_writer import MAX_TOKENS, apply_review, by_template, write, write_review

    given = {
        "url": endpoint, "model": model, "concurrency": concurrency, "requests_per_minute": requests_per_minute,
        "timeout": timeout, "input_price": input_price, "output_price": output_price,
    }  # fmt: skip
    changed = {f"endpoint.{name}": value for name, value in given.items() if value is not None}
    if writer is Writer.TEMPLATE and (changed or max_tokens or ask_again):
        raise UserError("The template asks no endpoint.", "Add --writer endpoint, or leave its options out.")
    settings = load_profile(profile, **changed, **{"data.sft_file": None})
    refuse_other(out)  # before anything is paid for
    if review and not review.is_file():
        raise UserError(f"There is no review file {review}.", "`ladlib data sft` without --review writes one.")
    made = make_conversations(settings, data, seed)
    if writer is Writer.ENDPOINT:
        replies = out.parent / "sft-replies.jsonl"  # of all files in this folder: another name pays nothing again
        rows = write(settings, data, made, replies, max_tokens=max_tokens or MAX_TOKENS, again=ask_again)
    else:
        rows = by_template(made, data)
    rows = write_sft_file(out, apply_review(rows, review) if review else rows)
    typer.echo(_told(out, rows, len(made), bool(review)))
    table = out.with_suffix(".review.csv")
    if not review and write_review(table, rows):
        typer.echo(f"To review: {table}: fill its column decision in any spreadsheet, then add --review {table}")


def _told(out: Path, rows: list, made: int, reviewed: bool) -> str:
    images = len({(one.pair.test.dataset, one.pair.id) for one in rows})
    lines = [f"Written: {out}: {len(rows)} of {made} conversations, about {images} images"]
    if reviewed:
        counts = {what: sum(one.reviewed == key for one in rows) for key, what in _REVIEWED.items()}
        lines.append("Review: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return "\n".join(lines)


_REVIEWED = {"accept": "accepted", "edit": "edited", "": "not reviewed"}

"""What stage 1 shows and asks: conversations with their images, and the tokens that carry the loss.

>>> HTML(highlighted([("Question? ", False), ("Yes.", True)]))  # doctest: +SKIP
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ladlib.records import Conversation

LINE, GAP = 13.2, 9.0  # points: a line of a card, and the space below a part


def kinds_frame(conversations: Iterable[Conversation]) -> pd.DataFrame:
    """A row a type of question: how many, about how many images, and one answer of each."""
    frame = pd.DataFrame([{"type": one.kind, "image": one.pair.id, "an answer": one.answer} for one in conversations])
    told = frame.groupby("type").agg(
        **{"conversations": ("image", "size"), "images": ("image", "nunique"), "an answer": ("an answer", "first")}
    )
    return told.sort_values("conversations", ascending=False).reset_index()


def is_answered(conversation: Conversation, text: str) -> bool:
    """Whether ``text`` is the right answer, word for word."""
    return text.strip() == conversation.answer.strip()


def right_frame(conversations: Sequence[Conversation], answers: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Share of answers that are the right one word for word, a row a type of question, a column an asked model."""
    rows = pd.DataFrame({"type": [one.kind for one in conversations]})
    for name, texts in answers.items():
        rows[name] = [is_answered(one, text) for one, text in zip(conversations, texts, strict=True)]
    grouped = rows.groupby("type")
    shares = grouped[list(answers)].mean().map("{:.0%}".format)
    return shares.assign(questions=grouped.size()).reset_index()

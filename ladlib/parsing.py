"""The one parser of completions, for the rewards of GRPO and for every metric.

>>> parse("<think>Two washers in both.</think><answer>no</answer>")
Reading(think='Two washers in both.', answer='no', well_formed=True)

Departures from VLM-R1's ``yes_no_reward`` and ``format_reward`` (the paper's own rules are unknown):

1. The answer block must hold ``yes`` or ``no`` and nothing else; VLM-R1 takes the first of the two words in
   it, so the template's own ``yes or no`` would earn the reward for every anomalous image.
2. No answer is ``None``, which equals no label; in VLM-R1 two empty matches compare equal and count as
   correct.
3. Each tag may occur once; VLM-R1's expression lets further tags hide inside the thinking.

Format and accuracy are separate rewards, so the answer is read on its own: a completion with one clear answer
block and no thinking is right or wrong like any other, and only not well formed.
"""

import re
from typing import cast

from ladlib.records import Answer, Record

THINK, END_THINK, ANSWER, END_ANSWER = TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# A tag of either kind in any case, or the start of a special token such as <|image_pad|>.
_MARKUP = re.compile(r"</?(?:think|answer)|<\|", re.IGNORECASE)
_FORM = re.compile(r"\s*<think>(.*)</think>\s*<answer>.*</answer>\s*", re.DOTALL)
_WORD = re.compile(r"\b(yes|no)\b")


class Reading(Record):
    """What a completion says, and whether it says it in the asked-for form."""

    think: str | None  # the text of the only think block, stripped; None where there is not exactly one
    answer: Answer | None
    well_formed: bool


def parse(text: str) -> Reading:
    """Read a raw completion. Never raises; takes time linear in its length."""
    think, answer = _block(text, THINK, END_THINK), parse_answer(text)
    return Reading(think=think, answer=answer, well_formed=answer is not None and _is_well_formed(text))


def parse_answer(text: str) -> Answer | None:
    """The answer of the one and only answer block that stands outside the thinking, else ``None``.

    ``yes`` and ``no`` count in any case, with white space around them and with one final full stop, which
    changes nothing about what is meant. Invisible characters, look-alike letters, other words and a second
    answer block do not: the metric counts them as unparsed.
    """
    block = _block(text, ANSWER, END_ANSWER)
    if block is None or _ends_inside_thinking(text[: text.find(ANSWER)]):
        return None
    word = block.removesuffix(".").lower()
    return cast(Answer, word) if word in ("yes", "no") else None


def lenient_answer(text: str) -> Answer | None:
    """The strict answer; without one, the last whole word ``yes`` or ``no`` after the thinking, in any case.

    Never used for a reward or a headline metric; it shows how much of a score is a matter of form. Where the thinking
    never ends, an ``<answer>`` ends it.
    """
    if answer := parse_answer(text):
        return answer
    # Lowered first: matching with IGNORECASE would also take the long s (U+017F) for an s.
    tail = text.lower().rpartition(END_THINK)[2]
    if THINK in tail:
        _, opened, rest = tail.rpartition(ANSWER)
        tail = rest if opened else ""
    words = _WORD.findall(tail)
    return cast(Answer, words[-1]) if words else None


def _block(text: str, opening: str, closing: str) -> str | None:
    """The stripped text of the block, where each of its two tags occurs exactly once and in order."""
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    start, end = text.find(opening) + len(opening), text.find(closing)
    return text[start:end].strip() if start <= end else None


def _ends_inside_thinking(head: str) -> bool:
    """Whether the last think tag before the answer opened and did not close."""
    return head.rfind(THINK) > head.rfind(END_THINK)


def _is_well_formed(text: str) -> bool:
    """One think block, then one answer block, white space between and around them and nothing else."""
    if any(text.count(tag) != 1 for tag in TAGS):
        return False  # checked first: with each tag once, the expression has one way to match and stays linear
    form = _FORM.fullmatch(text)
    return bool(form and form[1].strip()) and not _MARKUP.search(form[1])

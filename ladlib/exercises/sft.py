"""Exercises of notebook 02: what carries the loss, where it would start from no knowledge, and how much was read."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

from ladlib.exercises.exercise import Exercise, near

MASKED = -100  # the label of a token without loss, as PyTorch's cross entropy skips it


def _learned(labels: Sequence[int]) -> int:
    return sum(label != MASKED for label in labels)


# about: the labels of one conversation, a token each
loss_share = Exercise(
    kind=Real,
    empty="`labels` has one entry a token, and -100 where a token carries no loss. Count, then divide.",
    is_right=near(lambda labels: _learned(labels) / len(labels)),
    mistakes=(
        (
            near(lambda labels: 1 - _learned(labels) / len(labels)),
            "That is the share that is only read. Look again at which labels are -100.",
        ),
        (near(_learned), "That is their number. Divide it by the number of all tokens."),
        (near(lambda labels: 100 * _learned(labels) / len(labels)), "Right in per cent; a share is asked for, 0 to 1."),
    ),
    otherwise="Tokens whose label is not -100, divided by `len(labels)`.",
    why="Nearly all of the work is reading; all of the teaching is in the few tokens of the answer.",
)

# about: how many different tokens there are
uniform_loss = Exercise(
    kind=Real,
    empty="Such a model gives every token the same probability. Which? And what is minus its logarithm?",
    is_right=near(math.log),
    mistakes=(
        (near(math.log2), "That is in bits. The loss uses the natural logarithm."),
        (near(math.log10), "That is the logarithm to base ten. The loss uses the natural one."),
        (near(lambda size: 1 / size), "That is the probability of each token. The loss is minus its logarithm."),
        (near(lambda size: -math.log(size)), "Minus the logarithm of a number below 1 is positive."),
    ),
    otherwise="With V tokens each has probability 1/V, and the loss is -log(1/V).",
    why="So much it costs to know nothing. To be sure of something else costs more, so a curve may begin above this: "
    "where does the one of section 5 begin, and where does it end?",
)


class Training(NamedTuple):
    """How long a training was."""

    steps: int
    batch_size: int  # conversations a step
    conversations: int


# about: a Training
passes = Exercise(
    kind=Real,
    empty="How many conversations does one step read, and how many are read in all?",
    is_right=near(lambda one: one.steps * one.batch_size / one.conversations),
    mistakes=(
        (near(lambda one: one.steps / one.conversations), "A step reads a whole batch, not one conversation."),
        (
            near(lambda one: one.conversations / (one.steps * one.batch_size)),
            "Upside down: that is the part of the training that one pass over the data takes.",
        ),
        (
            near(lambda one: one.steps * one.batch_size),
            "So many were read. Divide by how many different ones there are.",
        ),
    ),
    otherwise="Steps times batch size, divided by the number of conversations.",
    why="The paper trains three epochs; compare. Steps alone, without the batch, say nothing about how much was seen.",
)

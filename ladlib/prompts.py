"""The one prompt of the task, and those of the supervised stage. The reason stands beside each choice.

The paper's wording is unknown; only its template is quoted: ``<think>...</think><answer> yes or no </answer>``
(paper, via a review). The suffix follows VLM-R1's, and the question names what LOCO calls logical.
"""

from jinja2 import TemplateError

from ladlib.errors import UserError

Message = dict[str, object]

_TASK = (
    "The {normal} image shows a normal product. Does the {judged} image break its logic: is a part missing, extra or "
    "swapped, is there a wrong number of parts, or is a relation between parts broken? "
)
_FORM = (
    "First output the thinking process in <think> </think> tags, then output the final answer, yes or no, "
    "in <answer> </answer> tags."
)

# The reference comes first: many test images share it, so the shared prefix is longest.
QUESTION = _TASK.format(normal="first", judged="second") + _FORM

# The same question of two images that come the other way round.
TEST_FIRST = _TASK.format(normal="second", judged="first") + _FORM

# The task in other words, to see how far an answer hangs on them: the same form, and yes is anomalous in all.
WORDINGS = {
    "short": "The first image shows a normal product. Is the second image anomalous? " + _FORM,
    "compare": (
        "Compare the second image with the first, which shows a normal product. Do its parts differ in kind, in "
        "number or in how they are arranged? " + _FORM
    ),
    "inspector": (
        "You inspect products. The first image is a good one. Would you reject the product in the second image "
        "because a part is missing, extra, swapped or in a wrong place? " + _FORM
    ),
    "rules": (
        "The product in the first image follows all rules of its kind. Does the product in the second image break "
        "one of these rules? " + _FORM
    ),
}

MISRENDERED = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
ANSWER_OPENING = "<answer>"  # P(yes) is read from the token after it


def user_message(question: str, images: int) -> Message:
    """A user turn with ``images`` placeholders before the question."""
    placeholders = [{"type": "image"} for _ in range(images)]
    return {"role": "user", "content": [*placeholders, {"type": "text", "text": question}]}


def rlad_messages() -> list[Message]:
    """The conversation that asks for a verdict on (reference image, test image)."""
    return [user_message(QUESTION, images=2)]


def prompt_text(processor, question: str, images: int) -> str:
    """The question in the processor's chat template, up to where the answer begins."""
    return processor.apply_chat_template([user_message(question, images)], tokenize=False, add_generation_prompt=True)


def check_template(processor, name: str) -> None:
    """Raises :class:`UserError` unless the chat template of ``name`` makes a prompt with two images."""
    what, hint = f"The chat template of {name}", "Copy the model's chat_template.jinja again."
    if not processor.chat_template:
        raise UserError(f"{what} is missing.", hint)
    if len(str(processor.chat_template)) > 2**20:
        raise UserError(f"{what} has more than a megabyte.", hint)
    try:
        images = prompt_text(processor, QUESTION, images=2).count(processor.image_token)
    except MISRENDERED as error:
        raise UserError(f"{what} cannot be used: {' '.join(str(error).split())[:200]}.", hint) from error
    if images != 2:
        raise UserError(f"{what} puts {images} images into a prompt of two.", hint)

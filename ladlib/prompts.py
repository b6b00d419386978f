"""The one prompt of the task, and those of the supervised stage. The reason stands beside each choice.

The paper's wording is unknown; only its template is quoted: ``<think>...</think><answer> yes or no </answer>``
(paper, via a review). The suffix follows VLM-R1's, and the question names what LOCO calls logical.
"""

Message = dict[str, object]

# The reference comes first: many test images share it, so the shared prefix is longest.
QUESTION = (
    "The first image shows a normal product. Does the second image break its logic: is a part missing, extra or "
    "swapped, is there a wrong number of parts, or is a relation between parts broken? "
    "First output the thinking process in <think> </think> tags, then output the final answer, yes or no, "
    "in <answer> </answer> tags."
)

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

"""The reward playground: type a completion, see what the parser reads and what each reward pays, with why."""

import ipywidgets

from ladlib.explore.view import Explorer, explorer, note, quoted, table
from ladlib.parsing import ANSWER, END_ANSWER, TAGS, lenient_answer, parse
from ladlib.records import Answer
from ladlib.rewards import accuracy_reward, format_reward

EXAMPLE = "<think>Seven rings, and a purple elephant.</think><answer>yes</answer>"


def reward_playground(completion: str = EXAMPLE, label: Answer = "yes") -> Explorer:
    """A box to type a completion into, and the label it is held against."""
    text = ipywidgets.Textarea(completion, description="Completion", rows=3, tooltip="What the model might have said")
    labels = [("anomalous (yes)", "yes"), ("good (no)", "no")]
    truth = ipywidgets.Dropdown(options=labels, value=label, description="Label", tooltip="The truth about the image")
    return explorer("Reward playground", paid, completion=text, label=truth)


def paid(completion: str, label: Answer) -> str:
    """The parser's reading of a completion and both rewards, each with its reason, as HTML."""
    reading = parse(completion)
    accuracy, form = accuracy_reward(completion, label), format_reward(completion)
    read = f"thinking: {reading.think if reading.think is not None else 'none found'}\nanswer: {reading.answer or '–'}"
    rows = [
        ["the completion", "", quoted(completion)],
        ["the label", "", label],
        ["what the parser reads", "", quoted(read)],
        ["accuracy reward", f"<b>{accuracy:.0f}</b>", quoted(why_accuracy(completion, label))],
        ["format reward", f"<b>{form:.0f}</b>", quoted(why_format(completion))],
    ]
    return table(["", "pays", "in words"], rows) + note(f"Together {accuracy + form:.0f}. Nothing read the thinking.")


def why_accuracy(completion: str, label: Answer) -> str:
    """Why the accuracy reward is what it is, in one sentence."""
    answer = parse(completion).answer
    if answer is None:
        return f"No answer can be read: {_no_answer(completion)}."
    return f"The answer is {answer} and the label is {label}."


def why_format(completion: str) -> str:
    """Why the format reward is what it is: all that is in the way, in one sentence."""
    if parse(completion).well_formed:
        return "One thinking block that is not empty, then one answer block, and nothing else."
    faults = [f"{tag} occurs {completion.count(tag)} times" for tag in TAGS if completion.count(tag) != 1]
    if not faults and not parse(completion).think:
        faults = ["the thinking is empty"]
    if not faults and parse(completion).answer is None:
        faults = [_no_answer(completion)]
    return f"Not in the form: {'; '.join(faults or ['there is text or a tag where none may be'])}."


def _no_answer(completion: str) -> str:
    """What keeps the strict parser from an answer."""
    if completion.count(ANSWER) != 1 or completion.count(END_ANSWER) != 1:
        found = "none" if ANSWER not in completion else "another number of tags"
        loose = lenient_answer(completion)
        beside = f' (a reader would take the first word "{loose}", the parser guesses nothing)' if loose else ""
        return f"it takes exactly one answer block, and there is {found}{beside}"
    inside = completion.partition(ANSWER)[2].partition(END_ANSWER)[0].strip()
    if inside.removesuffix(".").lower() in ("yes", "no"):
        return "the answer stands inside the thinking, which has not ended"
    return f'the answer block holds "{inside}", which is neither yes nor no'

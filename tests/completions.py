"""One table of completions, read by the tests of the parser and of both rewards."""

from typing import NamedTuple


class Row(NamedTuple):
    what: str
    text: str
    answer: str | None
    well_formed: bool
    lenient: str | None


ROWS = [
    # The form that the prompt asks for, and its allowed variations.
    Row("plain yes", "<think>One nut is missing.</think><answer>yes</answer>", "yes", True, "yes"),
    Row("plain no", "<think>Same parts.</think><answer>no</answer>", "no", True, "no"),
    Row("spaces", " <think> a </think>\n\n<answer> yes </answer>\n", "yes", True, "yes"),
    Row("upper case", "<think>a</think><answer>YES</answer>", "yes", True, "yes"),
    Row("title case", "<think>a</think><answer>No</answer>", "no", True, "no"),
    Row("full stop", "<think>a</think><answer>Yes.</answer>", "yes", True, "yes"),
    Row("lines in the thinking", "<think>a\nb\n\nc</think>\n<answer>\nno\n</answer>", "no", True, "no"),
    Row("less-than sign in the thinking", "<think>2 < 3</think><answer>yes</answer>", "yes", True, "yes"),
    Row("other word in the thinking", "<think>There is no ring at b3.</think><answer>yes</answer>", "yes", True, "yes"),
    Row("other word around", "Part No. 3? <think>a</think><answer>yes</answer> No doubt.", "yes", False, "yes"),
    Row("other script in the thinking", "<think>缺少</think><answer>yes</answer>", "yes", True, "yes"),
    Row("no-break space", "<think>a</think><answer>\u00a0yes\u00a0</answer>", "yes", True, "yes"),
    # One clear answer in a form that was not asked for.
    Row("no thinking", "<answer>yes</answer>", "yes", False, "yes"),
    Row("empty thinking", "<think></think><answer>no</answer>", "no", False, "no"),
    Row("blank thinking", "<think> \n </think><answer>no</answer>", "no", False, "no"),
    Row("text before", "Sure. <think>a</think><answer>yes</answer>", "yes", False, "yes"),
    Row("text between", "<think>a</think> So: <answer>yes</answer>", "yes", False, "yes"),
    Row("text after the answer", "<think>a</think><answer>yes</answer> Done.", "yes", False, "yes"),
    Row("end token left in", "<think>a</think><answer>no</answer><|im_end|>", "no", False, "no"),
    Row("answer before thinking", "<answer>no</answer><think>a</think>", "no", False, "no"),
    Row("think tag never opened", "a</think><answer>yes</answer>", "yes", False, "yes"),
    Row("two thinkings", "<think>a</think><think>b</think><answer>no</answer>", "no", False, "no"),
    Row("think inside think", "<think>a<think>b</think></think><answer>no</answer>", "no", False, "no"),
    Row("upper-case tag in the thinking", "<think>a</THINK></think><answer>no</answer>", "no", False, "no"),
    Row("vision token in the thinking", "<think><|image_pad|></think><answer>no</answer>", "no", False, "no"),
    # Nothing that counts as an answer.
    Row("empty", "", None, False, None),
    Row("white space", " \n\t", None, False, None),
    Row("both blocks empty", "<think></think><answer></answer>", None, False, None),
    Row("empty answer", "<think>a</think><answer></answer>", None, False, None),
    Row("only a full stop", "<think>a</think><answer>.</answer>", None, False, None),
    Row("the template", "<think>...</think><answer> yes or no </answer>", None, False, "no"),
    Row("yes or no", "<think>a</think><answer>yes or no</answer>", None, False, "no"),
    Row("yes/no", "<think>a</think><answer>yes/no</answer>", None, False, "no"),
    Row("a sentence", "<think>a</think><answer>No, it is normal.</answer>", None, False, "no"),
    Row("exclamation mark", "<think>a</think><answer>yes!</answer>", None, False, "yes"),
    Row("two full stops", "<think>a</think><answer>no..</answer>", None, False, "no"),
    Row("longer word", "<think>a</think><answer>none</answer>", None, False, None),
    Row("two answers", "<think>a</think><answer>yes</answer><answer>no</answer>", None, False, "no"),
    Row("the same answer twice", "<answer>no</answer><answer>no</answer>", None, False, "no"),
    Row("answer inside answer", "<answer><answer>yes</answer></answer>", None, False, "yes"),
    Row("answer only inside the thinking", "<think>a <answer>yes</answer> b</think>", None, False, None),
    Row("thinking inside the answer", "<answer><think>a</think>yes</answer>", None, False, "yes"),
    Row("thinking never closed", "<think>a <answer>yes</answer>", None, False, "yes"),
    Row("answer never closed", "<think>a</think><answer>yes", None, False, "yes"),
    Row("answer never opened", "<think>a</think>yes</answer>", None, False, "yes"),
    Row("tags in reverse", "<think>a</think></answer>yes<answer>", None, False, "yes"),
    Row("cut off in the thinking", "<think>There are two wash", None, False, None),
    Row("word in the cut-off thinking", "<think>There is no ring", None, False, None),
    Row("word in the thinking alone", "<think>There is no ring.</think>", None, False, None),
    Row("question before a bare word", "<think>a</think>Complete? Yes, but bent: no", None, False, "no"),
    Row("bare word", "yes", None, False, "yes"),
    Row("upper-case tags", "<THINK>a</THINK><ANSWER>yes</ANSWER>", None, False, "yes"),
    Row("spaces in a tag", "<think>a</think>< answer >yes</ answer >", None, False, "yes"),
    Row("vision token in the answer", "<think>a</think><answer><|im_end|>yes</answer>", None, False, "yes"),
    Row("vision tokens only", "<|vision_start|><|image_pad|><|vision_end|>", None, False, None),
    # Characters of other languages, look-alikes and marks that cannot be seen.
    Row("Russian", "<think>a</think><answer>да</answer>", None, False, None),
    Row("Chinese", "<think>a</think><answer>是</answer>", None, False, None),
    Row("accent", "<think>a</think><answer>yés</answer>", None, False, None),
    Row("combining accent", "<think>a</think><answer>no\u0301</answer>", None, False, "no"),
    Row("Cyrillic o", "<think>a</think><answer>n\u043e</answer>", None, False, None),
    Row("full-width letters", "<think>a</think><answer>\uff59\uff45\uff53</answer>", None, False, None),
    Row("long s", "<think>a</think><answer>ye\u017f</answer>", None, False, None),
    Row("right-to-left mark", "<think>a</think><answer>\u200fyes</answer>", None, False, "yes"),
    Row("zero-width space", "<think>a</think><answer>no\u200b</answer>", None, False, "no"),
    Row("mark before the thinking", "\u200f<think>a</think><answer>yes</answer>", "yes", False, "yes"),
    Row("null character", "<think>a</think><answer>yes\x00</answer>", None, False, "yes"),
]  # fmt: skip

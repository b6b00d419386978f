"""The toy tokenizer: a byte-level BPE of some hundred tokens with Qwen2.5-VL's special tokens and chat template."""

import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ladlib import prompts
from ladlib.toy.alphabet import COLOURS, SHAPES
from ladlib.toy.lessons import LESSONS, TAG_NAMES, draw_lesson

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""In Qwen2.5-VL's order (tokenizer_config.json of Qwen/Qwen2.5-VL-3B-Instruct)."""

SPLIT = r" ?[a-h][1-8](?!\p{L})| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
"""Like Qwen's, but a place such as ``b3`` stays in one piece."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The turns that Qwen2.5-VL's own template writes, without its options for video and numbered pictures."""


KINDS = {(colour, shape): f" {colour} {shape}" for colour in COLOURS for shape in SHAPES}
"""The kinds of parts, one token each: what one image token shows, one text token says."""


def train_tokenizer(vocabulary: int = 768, seed: int = 0) -> Tokenizer:
    """A tokenizer trained on the words of the lessons and of the task's prompt, with tags and kinds added whole.

    That the words of the prompt have tokens does not teach the model what they mean.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(_corpus(seed), trainer)
    tags = [f"<{mark}{name}>" for name in TAG_NAMES for mark in ("", "/")]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (*tags, *KINDS.values())])
    return tokenizer


def _corpus(seed: int) -> list[str]:
    rng = random.Random(seed)
    lessons = [draw_lesson(kind, rng, most=12) for kind in LESSONS for _ in range(400)]
    texts = [lesson.question + "".join(piece for piece, _ in lesson.answer) for lesson in lessons]
    return texts + [prompts.QUESTION, "system\nYou are a helpful assistant.", "user\n", "assistant\n"] * 200

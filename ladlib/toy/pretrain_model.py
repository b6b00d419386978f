"""What makes a toy model: its size, its schedule, its curriculum.

The toy tokenizer: a byte-level BPE of some hundred tokens with Qwen2.5-VL's special tokens and chat template.

The toy models: Qwen2.5-VL's own classes in small, and their processor.

The large toy model begins as the small one, twice as wide and a layer deeper, giving the same answers.

Growing a trained network without changing what it computes is Net2Net (Chen et al., arXiv 1511.05641). Every
unit is doubled, and what read a unit reads both copies, each by a share; shares are drawn unevenly, so that
the copies' gradients differ and they part ways. A layer added at the end passes on what it is given.
"""

import math
import random
from dataclasses import dataclass, replace

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ladlib import prompts
from ladlib.config import load_profile
from ladlib.models import PairProcessor, generation_config, make_processor
from ladlib.toy.parts import COLOURS, SHAPES
from ladlib.toy.tasks import LESSONS, TAG_NAMES, draw_lesson


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum: until which step, how many parts at most, which lessons how often.

    Without lessons the vision tower learns alone, to name what each image token shows. ``shown`` is the weight
    of that beside the loss on the answers.
    """

    until: int
    most: int
    shown: float
    lessons: dict[str, int]


@dataclass(frozen=True)
class Recipe:
    """All that makes a toy model, beside the code."""

    hidden: int
    layers: int
    heads: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    steps: int
    batch: int
    learning_rate: float  # of the matrices, by Muon
    other_rate: float  # of embeddings, norms and biases, by AdamW
    warmup: int
    settle: int  # the last steps of looking alone, over which the tower's rates fall to a tenth; there they stay
    decay: int  # the last steps, over which the learning rate falls to zero
    phases: tuple[Phase, ...]
    seed: int = 0
    grown_from: str = ""  # the shipped toy model whose weights it begins with, "" for random ones

    def phase(self, step: int) -> Phase:
        """The part of the curriculum that ``step`` belongs to."""
        return next(phase for phase in self.phases if step < phase.until)


LOOK: dict[str, int] = {}
SINGLE = {"at": 4, "list": 4, "tally": 3, "count": 1, "name_in_tags": 1}
PAIRS = {
    "at": 1, "list": 1, "list_of_pair": 2, "tally": 4, "count": 1, "compare_at": 2, "compare_places": 4,
    "compare_kinds": 6, "name_in_tags": 2,
}  # fmt: skip
ALL = {
    "list": 1, "list_of_pair": 1, "at": 1, "compare_at": 1, "count": 1, "tally": 1, "compare_places": 1,
    "compare_kinds": 2, "present": 2, "name_in_tags": 2, "judge_places": 3, "judge_kinds": 4, "judge_open": 6,
}  # fmt: skip
COUNTING = {
    "list_of_pair": 1, "at": 1, "compare_at": 1, "count": 1, "tally": 3, "compare_places": 1, "compare_kinds": 5,
    "present": 1, "name_in_tags": 1, "judge_places": 2, "judge_kinds": 5, "judge_open": 5,
}  # fmt: skip

BASE = Recipe(
    hidden=192, layers=4, heads=4, vision_hidden=128, vision_layers=2, vision_heads=4, steps=11300, batch=32,
    learning_rate=2e-3, other_rate=1e-3, warmup=50, settle=600, decay=1200,
    phases=(Phase(1500, 16, 1.0, LOOK), Phase(2000, 8, 0.5, SINGLE), Phase(2800, 12, 0.4, PAIRS),
            Phase(3400, 16, 0.3, ALL), Phase(6200, 16, 0.3, COUNTING),
            Phase(7700, 16, 1.0, LOOK), Phase(11300, 16, 0.3, COUNTING)),
)  # fmt: skip
LARGE = replace(
    BASE, hidden=384, layers=5, heads=8, vision_hidden=256, vision_heads=8, steps=150, learning_rate=5e-4,
    other_rate=2.5e-4, warmup=10, decay=150, phases=(Phase(150, 16, 0.3, COUNTING),), seed=1, grown_from="toy-base",
)  # fmt: skip
RECIPES = {"base": BASE, "large": LARGE}


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


BACK = (1, 2, 3)  # tokens that a head of the first layer looks back, one head each
TURNING = 6  # pairs of a head's dimensions used for it, those that turn fastest
STRENGTH = 5.0  # of queries and keys in each: enough that most of the attention lies on one token


def make_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL's architecture in small: patch 14, merge 2, M-RoPE, full attention in the vision tower.

    M-RoPE hands the highest frequencies to time, then height, and the lowest to width. In a head of 48 an
    even division leaves width with none that turns by 0.01 rad from one cell to the next, and a model that
    small never learned which column it looks at; so time gets one, height three, and width the rest.
    """
    token = tokenizer.convert_tokens_to_ids
    head = recipe.hidden // recipe.heads
    text = dict(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64, hidden_size=recipe.hidden, intermediate_size=recipe.hidden * 3,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads // 2,
        max_position_embeddings=4096, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 3, head // 2 - 4]},
        bos_token_id=token("<|endoftext|>"), eos_token_id=token("<|im_end|>"), pad_token_id=token("<|endoftext|>"),
    )  # fmt: skip
    vision = dict(
        depth=recipe.vision_layers, hidden_size=recipe.vision_hidden, intermediate_size=recipe.vision_hidden * 3,
        num_heads=recipe.vision_heads, out_hidden_size=recipe.hidden, patch_size=14, spatial_merge_size=2,
        temporal_patch_size=2, window_size=112, fullatt_block_indexes=list(range(recipe.vision_layers)),
    )  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True,
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip


def make_toy_processor(seed: int = 0) -> PairProcessor:
    """The toy tokenizer, trained anew (seconds), in the processor of the toy profile."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(seed=seed), eos_token="<|im_end|>", pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    data = load_profile("toy").data
    return make_processor(tokenizer, data.min_pixels, data.max_pixels)


def make_model(recipe: Recipe, processor: PairProcessor) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random weights drawn from the recipe's seed, three of them less random than usual.

    1. Embeddings have norm 1 rather than 0.28: they are tied, so the tags all grow the same "a tag comes here"
       part, and what tells one from another must be large enough beside it to be copied.
    2. A kind's embedding begins as the sum of its colour's and its shape's.
    3. The first heads look back (:func:`look_back`).
    """
    torch.manual_seed(recipe.seed)
    model = Qwen2_5_VLForConditionalGeneration(make_config(recipe, processor.tokenizer))
    model.set_attn_implementation("eager")  # on a CPU a fifth faster at this size than the fused kernel's backward
    embeddings = model.get_input_embeddings().weight
    torch.nn.init.normal_(embeddings, std=recipe.hidden**-0.5)
    token = processor.tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        for (colour, shape), kind in KINDS.items():
            embeddings[token(kind)] = (
                embeddings[token(f"\u0120{colour}")] + embeddings[token(f"\u0120{shape}")]
            ) / 2**0.5
    look_back(model)
    model.generation_config = generation_config(processor.tokenizer)
    return model


@torch.no_grad()
def look_back(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the first heads of the first layer begin by attending one, two and three tokens back.

    Heads that hand on the token before are what copying is built from (Olsson et al., arXiv 2209.11895), and in
    so short a training they hardly form by themselves. Qwen's queries and keys have biases: under rotary
    positions a constant query meets a constant key ``d`` tokens back at cos((distance - d) * frequency).
    """
    text = model.config.text_config
    head = text.hidden_size // text.num_attention_heads
    attention = model.model.language_model.layers[0].self_attn
    queries, keys = attention.q_proj.bias.view(-1, 2, head // 2), attention.k_proj.bias.view(-1, 2, head // 2)
    turns = text.rope_parameters["rope_theta"] ** (-torch.arange(head // 2)[:TURNING] * 2 / head)
    keys[:, 0, :TURNING] = STRENGTH
    for number, distance in enumerate(BACK):
        queries[number, 0, :TURNING] = STRENGTH * torch.cos(distance * turns)
        queries[number, 1, :TURNING] = -STRENGTH * torch.sin(distance * turns)


UNEVEN = 0.5  # a copy's share lies between (1 - UNEVEN) / 2 and (1 + UNEVEN) / 2


@torch.no_grad()
def grow(small: torch.nn.Module, large: torch.nn.Module) -> None:
    """Give ``large``, twice as wide and as deep or deeper, weights with which it computes what ``small`` does.

    Both are Qwen2.5-VL with heads of the same size and tied embeddings. Raises KeyError where ``large`` lacks a
    layer of ``small``.
    """
    old, new = small.state_dict(), large.state_dict()
    for name, weight in old.items():
        new[name].copy_(widened(name, weight, new[name].shape))
    new["model.language_model.norm.weight"].mul_(0.5)  # both copies of a unit meet their words in the tied embeddings
    for name, weight in new.items():
        if name not in old and name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()


def widened(name: str, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """``weight`` of the parameter ``name`` with its units doubled to ``shape``, and its inputs shared out."""
    if ".attn.qkv." in name:  # queries, keys and values lie one above the other
        third = (shape[0] // 3, *shape[1:])
        return torch.cat([widened("", one, torch.Size(third)) for one in weight.chunk(3)])
    rows = weight.repeat(shape[0] // weight.shape[0], *[1] * (weight.ndim - 1))
    if rows.ndim != 2 or shape[1] == weight.shape[1]:
        return rows
    if name.endswith("embed_tokens.weight") or name == "lm_head.weight":
        return torch.cat([rows, rows], dim=1)
    share = 0.5 + UNEVEN * (torch.rand_like(rows) - 0.5)
    if name.endswith("merger.mlp.0.weight"):  # reads four patches, each of which is doubled by itself
        parts = zip(rows.chunk(4, dim=1), share.chunk(4, dim=1), strict=True)
        return torch.cat([half for part, one in parts for half in (part * one, part * (1 - one))], dim=1)
    return torch.cat([rows * share, rows * (1 - share)], dim=1)

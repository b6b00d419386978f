"""The toy models: Qwen2.5-VL's own classes in small, and their processor."""

import math

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ladlib.config import load_profile
from ladlib.models import PairProcessor, generation_config, make_processor
from ladlib.pretrain.recipes import Recipe
from ladlib.toy.tokens import CHAT_TEMPLATE, KINDS, train_tokenizer

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
    model.generation_config = generation_config(model, processor.tokenizer)
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

"""The toy models: Qwen2.5-VL's own classes in small, and their processor."""

import math

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ladlib.models import PairProcessor, generation_config, make_processor
from ladlib.pretrain.recipes import Recipe
from ladlib.settings import load_profile
from ladlib.toy.tokens import CHAT_TEMPLATE, train_tokenizer


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
        num_heads=4, out_hidden_size=recipe.hidden, patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
        window_size=112, fullatt_block_indexes=list(range(recipe.vision_layers)),
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
    """A model with random weights drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    model = Qwen2_5_VLForConditionalGeneration(make_config(recipe, processor.tokenizer))
    model.set_attn_implementation("eager")  # on a CPU a fifth faster at this size than the fused kernel's backward
    # Norm 1 rather than 0.28: embeddings are tied, so the tags all grow the same "a tag comes here"
    # part, and what tells one from another must be large enough beside it to be copied.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=recipe.hidden**-0.5)
    model.generation_config = generation_config(model, processor.tokenizer)
    return model

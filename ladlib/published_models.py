"""The paper's two models in numbers, so that plans and sums can be made of them where their weights are not.

    PUBLISHED["Qwen/Qwen2.5-VL-3B-Instruct"].layers    # 36

The sizes are those of ``config.json`` in the models' repositories. Two of them differ from table 1 of the
technical report (arXiv 2502.13923): the 3B's intermediate size is 11008 there, not 4864, and its vision
tower's 3420, not 3456. The 72B's quantised releases are padded to an intermediate size of 29696.
"""

from ladlib.records import Record


class PublishedModel(Record):
    """A Qwen2.5-VL: the sizes that tell its models apart, and how many parameters it is said to have."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int  # rows of the embedding, more than the tokenizer has tokens
    tied: bool  # the output layer is the embedding
    vision_intermediate: int
    revision: str  # the commit of its repository on the hub that the profiles load
    billions: float  # parameters as published, shared ones counted once

    def config(self) -> dict:
        """What ``Qwen2_5_VLConfig`` takes."""
        text = dict(
            hidden_size=self.hidden, intermediate_size=self.intermediate, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.key_value_heads, vocab_size=self.vocabulary,
            tie_word_embeddings=self.tied, max_position_embeddings=128_000, rms_norm_eps=1e-6, use_sliding_window=False,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        )  # fmt: skip
        vision = VISION | dict(intermediate_size=self.vision_intermediate, out_hidden_size=self.hidden)
        return dict(text_config=text, vision_config=vision, tie_word_embeddings=self.tied)


VISION = dict(
    depth=32, hidden_size=1280, num_heads=16, patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
    window_size=112, fullatt_block_indexes=[7, 15, 23, 31], tokens_per_second=2,
)  # fmt: skip
"""The vision tower as all models of the family have it."""

PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": PublishedModel(
        layers=36, hidden=2048, intermediate=11008, heads=16, key_value_heads=2, vocabulary=151_936, tied=True,
        vision_intermediate=3420,
        revision="66285546d2b821cf421d4f5eb2576359d3770cd3",
        billions=3.754622976,  # its weights at revision 66285546: 7,509,245,952 bytes of bfloat16
    ),
    "Qwen/Qwen2.5-VL-72B-Instruct": PublishedModel(
        layers=80, hidden=8192, intermediate=29568, heads=64, key_value_heads=8, vocabulary=152_064, tied=False,
        vision_intermediate=3456,
        revision="89c86200743eec961a297729e7990e8f2ddbc4c5",
        billions=73.4,  # its page on the hub, rounded there
    ),
}  # fmt: skip
"""By their names on the hub."""


PINNED = "pinned"


def commit_of(model: str, revision: str) -> str:
    """``revision``; for "pinned" the commit of ``model`` above, or "main" for a model that is not there."""
    if revision != PINNED:
        return revision
    return PUBLISHED[model].revision if model in PUBLISHED else "main"

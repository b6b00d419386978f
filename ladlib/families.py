"""Qwen2.5-VL as data: names, sizes and what is counted from them, without weights or torch.

    sizes_of("Qwen/Qwen2.5-VL-3B-Instruct").parameters    # 3754622976

The sizes are those of ``config.json`` in the models' repositories. Two of them differ from table 1 of the technical
report (arXiv 2502.13923): the 3B's intermediate size is 11008 there, not 4864, and its vision tower's 3420, not 3456.
"""

from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from ladlib.errors import UserError, read_json
from ladlib.records import Record

MOST_LAYERS = 1000  # of a configuration that is taken for one
PACKAGES = {"awq": "gptqmodel", "gptq": "optimum", "bitsandbytes": "bitsandbytes"}  # that read quantised weights
LARGE = 1_000_000_000  # parameters from which recomputing activations is worth its time
MODEL_FILES = (  # what decides the answers of a model in a folder
    "*.safetensors", "*config.json", "*.jinja", "chat_template.json", "tokenizer.json", "vocab.json", "merges.txt",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
LORA_TARGETS = r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
"""The language model's linear layers only: bare names such as ``q_proj`` or ``up_proj`` would also match parts of the
vision tower (peft issue 2615)."""


class Sizes(Record):
    """Widths and depths of the language model and the vision tower."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int  # rows of the embedding, more than the tokenizer has tokens
    tied: bool  # the output layer is the embedding
    vision_intermediate: int
    vision_layers: int
    vision_hidden: int
    patch_values: ClassVar[int] = 3 * 2 * 14**2  # channels, frames (a still image twice), pixels of a vision patch

    @property
    def key_value_width(self) -> int:
        """Numbers in the keys, and in the values, of one token in one layer."""
        return self.hidden // self.heads * self.key_value_heads

    @property
    def language(self) -> int:
        """Parameters of the language model, its output layer included where it is one of its own."""
        linears = 2 * self.hidden * (self.hidden + self.key_value_width) + 3 * self.hidden * self.intermediate
        biases_and_norms = 3 * self.hidden + 2 * self.key_value_width
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (linears + biases_and_norms) + self.hidden

    @property
    def parameters(self) -> int:
        """All of them, shared ones counted once."""
        width, inner, merged = self.vision_hidden, self.vision_intermediate, 4 * self.vision_hidden
        block = 4 * width**2 + 4 * width + 3 * width * inner + 2 * inner + width + 2 * width
        projector = width + merged**2 + merged + merged * self.hidden + self.hidden
        return self.language + self.patch_values * width + self.vision_layers * block + projector

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA on the linear layers of each decoder layer: rank * (inputs + outputs)."""
        attention = 2 * (self.hidden + self.hidden) + 2 * (self.hidden + self.key_value_width)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))


PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": Sizes(
        layers=36, hidden=2048, intermediate=11008, heads=16, key_value_heads=2, vocabulary=151_936, tied=True,
        vision_intermediate=3420, vision_layers=32, vision_hidden=1280,
    )
}  # fmt: skip
REVISIONS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "66285546d2b821cf421d4f5eb2576359d3770cd3",
    "Qwen/Qwen2.5-VL-72B-Instruct": "89c86200743eec961a297729e7990e8f2ddbc4c5",
}
"""The commits that are loaded."""


def revision_of(model: str) -> str:
    """The pinned commit of a published model; "main" for any other."""
    return REVISIONS.get(model, "main")


def check_family(file: Path) -> None:
    """Raises :class:`UserError` where a ``config.json`` is that of another family, absurd, or needs what is missing.

    Transformers only warns of another kind of model, then creates seven billion random weights.
    """
    config = read_json(file, "Copy the model again.")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "qwen2_5_vl":
        raise UserError(f"{file} does not belong to a Qwen2.5-VL but to {kind}.", "Give the folder of a Qwen2.5-VL.")
    parts = [config, config.get("text_config", {}), config.get("vision_config", {})]
    parts = [part if isinstance(part, dict) else {"depth": part} for part in parts]
    layers = [part[key] for part in parts for key in ("num_hidden_layers", "depth") if key in part]
    if wrong := [number for number in layers if not isinstance(number, int) or number > MOST_LAYERS]:
        raise UserError(f"{file} is no configuration of a Qwen2.5-VL: {wrong[0]!r} layers.", "Copy the model again.")
    quantised = config.get("quantization_config")
    package = PACKAGES.get(str(quantised.get("quant_method"))) if isinstance(quantised, dict) else None
    if package and find_spec(package) is None:
        raise UserError(f"The weights beside {file} need {package}, which is not installed.", "Install it.")


def find_config(model: str) -> Path | None:
    """The ``config.json`` of a folder, a shipped toy model or a cached hub id; None where it is not on this disk."""
    for folder in (Path(model), Path(str(resources.files("ladlib") / "assets" / model))):
        if (folder / "config.json").is_file():
            return folder / "config.json"
    from huggingface_hub import try_to_load_from_cache  # takes a second to load

    cached = try_to_load_from_cache(model, "config.json", revision=revision_of(model)) if is_hub_id(model) else None
    return Path(cached) if isinstance(cached, str) else None


def is_hub_id(model: str) -> bool:
    """Whether ``model`` can be the name of a repository on the hub."""
    return model.count("/") == 1 and not model.startswith((".", "/", "~", "results")) and not Path(model).exists()


def sizes_of(model: str) -> Sizes:
    """The sizes of the published 3B, of a shipped toy model, or of a model on this disk.

    Raises :class:`UserError` where they are not known.
    """
    if model in PUBLISHED:
        return PUBLISHED[model]
    file = find_config(model)
    hint = f"Give the folder of a Qwen2.5-VL, or one of {', '.join(PUBLISHED)}."
    if file is None:
        raise UserError(f"The sizes of {model} are not known.", hint)
    config = read_json(file, hint)
    try:
        text, vision = config.get("text_config", config), config["vision_config"]
        return Sizes(
            layers=text["num_hidden_layers"], hidden=text["hidden_size"], intermediate=text["intermediate_size"],
            heads=text["num_attention_heads"], key_value_heads=text["num_key_value_heads"],
            vocabulary=text["vocab_size"], tied=config["tie_word_embeddings"], vision_layers=vision["depth"],
            vision_hidden=vision["hidden_size"], vision_intermediate=vision["intermediate_size"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is no configuration of a Qwen2.5-VL.", hint) from error

"""The sizes of a Qwen2.5-VL and what is counted from them, without weights and without torch.

    sizes_of("Qwen/Qwen2.5-VL-3B-Instruct").parameters    # 3754622976

A published model's sizes come from :mod:`ladlib.published_models`, a shipped or trained one's from the
``config.json`` of its folder. A test holds the counts against the model that transformers builds.
"""

from importlib import resources
from pathlib import Path

from ladlib.errors import UserError, read_json
from ladlib.published_models import PUBLISHED
from ladlib.records import Record

LARGE = 1_000_000_000  # parameters from which recomputing activations is worth its time
CHANNELS = 3  # of an image


class Sizes(Record):
    """Widths and depths of the language model and the vision tower, named as in ``config.json``."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int
    patch: int  # pixels of a patch's side
    frames: int  # that a patch spans; a still image is repeated to fill them
    merge: int  # patches of a token's side

    @property
    def key_value_width(self) -> int:
        """Numbers in the keys, and in the values, of one token in one layer."""
        return self.hidden // self.heads * self.key_value_heads

    @property
    def layer_linears(self) -> int:
        """Weights of the seven linear layers of a decoder layer."""
        attention = 2 * self.hidden * (self.hidden + self.key_value_width)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; the output layer has as many."""
        return self.vocabulary * self.hidden

    @property
    def language(self) -> int:
        """Parameters of the language model, its output layer included where it is one of its own."""
        biases_and_norms = self.hidden + 2 * self.key_value_width + 2 * self.hidden
        layers = self.layers * (self.layer_linears + biases_and_norms)
        return self.embedding * (1 if self.tied else 2) + layers + self.hidden

    @property
    def vision(self) -> int:
        """Parameters of the vision tower and its projector."""
        width, inner, joined = self.vision_hidden, self.vision_intermediate, self.vision_hidden * self.merge**2
        block = 4 * width**2 + 4 * width + 3 * width * inner + 2 * inner + width + 2 * width
        projector = width + joined**2 + joined + joined * self.hidden + self.hidden
        return self.patch_values * width + self.vision_layers * block + projector

    @property
    def parameters(self) -> int:
        """All of them, shared ones counted once."""
        return self.language + self.vision

    @property
    def patch_values(self) -> int:
        """Numbers that the vision tower is given for a patch."""
        return CHANNELS * self.frames * self.patch**2

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA on the seven linear layers of each decoder layer: rank * (inputs + outputs)."""
        attention = 2 * (self.hidden + self.hidden) + 2 * (self.hidden + self.key_value_width)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))

    def image_tokens(self, pixels: int) -> int:
        """Tokens of an image of so many pixels."""
        return pixels // (self.patch * self.merge) ** 2


def sizes_of(model: str) -> Sizes:
    """The sizes of a published model, of a shipped toy model, or of the model in a folder.

    Raises :class:`UserError` where neither a published size nor a ``config.json`` is at hand.
    """
    if model in PUBLISHED:
        return _from_config(PUBLISHED[model].config())
    for folder in (Path(model), Path(str(resources.files("ladlib") / "assets" / model))):
        if (folder / "config.json").is_file():
            return _from_file(folder / "config.json")
    known = ", ".join(PUBLISHED)
    raise UserError(f"The sizes of {model} are not known.", f"Give a folder with its config.json, or one of {known}.")


def _from_file(file: Path) -> Sizes:
    hint = "Give the folder of a Qwen2.5-VL."
    try:
        return _from_config(read_json(file, hint))
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is no configuration of a Qwen2.5-VL.", hint) from error


def _from_config(config: dict) -> Sizes:
    text, vision = config["text_config"], config["vision_config"]
    return Sizes(
        layers=text["num_hidden_layers"], hidden=text["hidden_size"], intermediate=text["intermediate_size"],
        heads=text["num_attention_heads"], key_value_heads=text["num_key_value_heads"],
        vocabulary=text["vocab_size"], tied=config["tie_word_embeddings"],
        vision_layers=vision["depth"], vision_hidden=vision["hidden_size"],
        vision_intermediate=vision["intermediate_size"], patch=vision["patch_size"],
        frames=vision["temporal_patch_size"], merge=vision["spatial_merge_size"],
    )  # fmt: skip

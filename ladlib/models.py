"""The only loader of weights and processors, and what must be true of them after a load.

Silent failures of loading are the commonest cause of numbers that cannot be repeated, so every load
ends in checks: each weight came from the file, padding is on the left, the vision tokens cannot be
generated, and an adapter changes the logits.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from ladlib.checksums import sha256
from ladlib.config import Data, Model
from ladlib.errors import UserError, read_json
from ladlib.families import STOP_TOKENS, VISION_TOKENS, check_family, revision_of
from ladlib.records import Finish
from ladlib.runs import write_text

disable_progress_bar()  # one bar per file would fill logs and notebooks

COPY = "Copy or train it again; weights are read from safetensors files only."
MAKE = "Give a folder with a config.json; of a run, notebook 02_sft makes sft, and 03_grpo makes sft_grpo."
TOY_MODELS = ("toy-base", "toy-large")


class PairProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its video part, which would need torchvision.

    Images always go through the Pillow image processor: the fast one gives other pixels
    (transformers PR 39591), and pixels are part of the method.
    """

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs) -> None:
        super().__init__(image_processor, tokenizer, video_processor=None, chat_template=chat_template, **kwargs)

    def save_pretrained(self, save_directory: Path | str, **_: object) -> list[str]:
        """Tokenizer and image settings as in Qwen's repositories, so that other programs read the folder too."""
        image = self.image_processor.to_dict() | {"processor_class": "Qwen2_5_VLProcessor"}
        path = Path(save_directory, "preprocessor_config.json")
        written = self.tokenizer.save_pretrained(save_directory)
        write_text(path, json.dumps(image, indent=2) + "\n")
        return [*written, str(path)]


def resolve_model(name: str) -> str:
    """The folder of a shipped toy model; else ``name`` itself, a folder or a hub id.

    Raises :class:`UserError` for a toy model that is not shipped and for a folder without a model.
    """
    if name in TOY_MODELS:
        folder = resources.files("ladlib") / "assets" / name
        if not (folder / "model.safetensors").is_file():
            raise UserError(
                f"The weights of {name} are not in this package.", f"Build it with `ladlib pretrain {name[4:]}`."
            )
        return str(folder)
    path = Path(name)
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        return str(path)
    if name.count("/") != 1 or name.startswith((".", "/", "~", "results")) or path.exists():  # no hub id
        raise UserError(f"There is no model in {name}.", MAKE)
    return name


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns long errors, of the hub or of a damaged file, into one line."""
    try:
        yield
    except OSError as error:
        if Path(name).is_dir() or name in TOY_MODELS:
            raise UserError(f"The model in {name} cannot be read: {_first_line(error)}", COPY) from error
        raise UserError(
            f"The model {name} is neither a folder nor available from the hub.", "Check the name and the network."
        ) from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"The files of {name} are damaged: {_first_line(error)}", COPY) from error


def _first_line(error: Exception) -> str:
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip('.')}."


def load_processor(name: str, data: Data) -> PairProcessor:
    """The processor of a model, with the profile's band of pixels and left padding."""
    with _readable(name):
        tokenizer = _tokenizer(resolve_model(name))
    return make_processor(tokenizer, data.min_pixels, data.max_pixels)


def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, whose own code is never run."""
    return AutoTokenizer.from_pretrained(name, revision=revision_of(name), trust_remote_code=False)


def make_processor(tokenizer: PreTrainedTokenizerBase, min_pixels: int, max_pixels: int) -> PairProcessor:
    """A processor around ``tokenizer`` that resizes nothing inside the band of pixels."""
    tokenizer.padding_side = "left"  # a completion must follow its prompt without a gap
    image_processor = Qwen2VLImageProcessorPil(min_pixels=min_pixels, max_pixels=max_pixels)
    return PairProcessor(image_processor, tokenizer, chat_template=tokenizer.chat_template)


def load_model(name: str, model: Model, *, device: str | None = None) -> Qwen2_5_VLForConditionalGeneration:
    """The model ``name``, checked and ready to generate; an adapter is merged into the model it was trained on.

    Raises :class:`UserError` where a weight is missing, unexpected or of another shape.
    """
    folder = resolve_model(name)
    if (Path(folder) / "adapter_config.json").is_file():
        return _with_adapter(load_model(_base_of(folder), model, device=device), folder)
    check_family(Path(folder) / "config.json")
    with _readable(name):
        loaded, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder,
            revision=revision_of(folder),
            dtype=getattr(torch, model.dtype),
            attn_implementation="sdpa",  # needs no package but torch
            output_loading_info=True,
            use_safetensors=True,  # the other format, pickle, can run code
        )
        tokenizer = _tokenizer(folder)
    _check_keys(name, report)
    loaded.generation_config = generation_config(loaded, tokenizer)
    return loaded.to(device or best_device())


def generation_config(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> GenerationConfig:
    """Greedy, stopping at the end of the turn, and never a vision token.

    A generated image token breaks every later pass over the text ("Image features and image tokens
    do not match", R1-V issue 91, TRL issue 3847).
    """
    banned = [tokenizer.convert_tokens_to_ids(token) for token in VISION_TOKENS]
    return GenerationConfig(
        do_sample=False,
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in STOP_TOKENS],
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        suppress_tokens=banned,
    )


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, Finish]:
    """The text of a completion up to its end of turn, special tokens included, and how it ended.

    Rewards, evaluation and `inspect` all read completions through this function.
    """
    stops = {tokenizer.convert_tokens_to_ids(token) for token in STOP_TOKENS}
    end = next((index for index, token in enumerate(ids) if token in stops), None)
    text = tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text, "length" if end is None else "stop"


def fingerprint(name: str) -> str:
    """SHA-256 of a model folder's weights and configuration, its adapter's base included; of a hub id, its name."""
    folder = Path(resolve_model(name))
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json"), *folder.glob("tokenizer.json")])
    parts = [f"{file.name}:{sha256(file)}" for file in files] or [f"{name}@{revision_of(name)}"]
    if (folder / "adapter_config.json").is_file():
        parts.append(fingerprint(_base_of(str(folder))))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def best_device() -> str:
    """ "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def count_parameters(model: torch.nn.Module) -> int:
    """The number of weights, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _base_of(folder: str) -> str:
    """The model that the adapter in ``folder`` was trained on; a sibling checkpoint also after the run was moved."""
    file = Path(folder) / "adapter_config.json"
    config = read_json(file, COPY)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise UserError(f"{file} does not say what the adapter was trained on.", COPY)
    sibling = Path(folder).parent / Path(base).name
    return str(sibling) if sibling.is_dir() else base


def _check_keys(name: str, report: dict) -> None:
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if keys := sorted(str(key) for key in report.get(problem) or ()):
            raise UserError(
                f"The weights of {name} do not fit: {len(keys)} {problem.replace('_', ' ')}, first {keys[0]}.",
                "Use the checkpoint with the transformers version that wrote it, or build it again.",
            )


def _with_adapter(model: Qwen2_5_VLForConditionalGeneration, adapter: str | Path) -> Qwen2_5_VLForConditionalGeneration:
    """``model`` with the LoRA adapter merged in. Raises :class:`UserError` where the adapter is all zeros."""
    file = Path(adapter) / "adapter_model.safetensors"
    if not file.is_file():
        raise UserError(f"{file} is missing.", COPY)
    with _readable(str(adapter)):
        wrapped, is_nonzero = PeftModel.from_pretrained(model, str(adapter)), _adapter_is_nonzero(file)
    if not is_nonzero:
        raise UserError(
            f"The adapter {adapter} changes nothing.", "It was saved before training, or its keys do not match."
        )
    config = model.generation_config
    merged = wrapped.merge_and_unload()
    merged.generation_config = config
    return merged


def _adapter_is_nonzero(weights: Path) -> bool:
    """Whether any B matrix differs from the zeros that LoRA starts from."""
    with safe_open(weights, framework="pt") as file:
        return any(file.get_tensor(key).any() for key in file.keys() if "lora_B" in key)  # noqa: SIM118

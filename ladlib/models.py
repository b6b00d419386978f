"""The only loader of weights and processors, and what must be true of them after a load.

Every load is checked: each weight came from the file, padding is on the left, no vision token can be generated, and
an adapter is not zero.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from ladlib.checksums import ORIGIN, sha256, unseal
from ladlib.config import Data, Model
from ladlib.errors import UserError, read_json
from ladlib.families import MODEL_FILES, STOP_TOKENS, VISION_TOKENS, check_family, revision_of
from ladlib.records import Finish
from ladlib.runs import write_text

disable_progress_bar()  # one bar per file would fill logs and notebooks

COPY = "Copy or train it again; weights are read from safetensors files only."
MAKE = "Give a folder with a config.json; of a run, notebook 02_sft makes sft, and 03_grpo makes sft_grpo."
TOY_MODELS = ("toy-base", "toy-large")


class PairProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its video part, which would need torchvision.

    Images always go through the Pillow image processor: the fast one gives other pixels (transformers PR 39591).
    """

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs) -> None:
        super().__init__(image_processor, tokenizer, video_processor=None, chat_template=chat_template, **kwargs)

    def save_pretrained(self, save_directory: Path | str, **_: object) -> list[str]:
        """Write tokenizer and image settings as Qwen's repositories have them."""
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
            message = f"The weights of {name} are not in this package."
            raise UserError(message, f"Build it with `ladlib pretrain {name[4:]}`.")
        return str(folder)
    path = Path(name)
    if any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
        return str(path)
    if name.count("/") != 1 or name.startswith((".", "/", "~", "results")) or path.exists():  # no hub id
        raise UserError(f"There is no model in {name}.", MAKE)
    return name


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns long errors, of the hub or of a damaged file, into one line."""
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, OSError) and not Path(name).is_dir() and name not in TOY_MODELS:
            message = f"The model {name} is neither a folder nor available from the hub."
            raise UserError(message, "Check the name and the network.") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise UserError(f"The files of {name} are missing or damaged: {reason}.", COPY) from error


def load_processor(name: str, data: Data) -> PairProcessor:
    """The processor of a model, with the profile's band of pixels and left padding."""
    with _readable(name):
        tokenizer = load_tokenizer(resolve_model(name))
    return make_processor(tokenizer, data.min_pixels, data.max_pixels)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, whose own code is never run."""
    return AutoTokenizer.from_pretrained(name, revision=revision_of(name), trust_remote_code=False)


def make_processor(tokenizer: PreTrainedTokenizerBase, min_pixels: int, max_pixels: int) -> PairProcessor:
    """A processor that resizes nothing inside the band of pixels."""
    tokenizer.padding_side = "left"  # a completion must follow its prompt without a gap
    image_processor = Qwen2VLImageProcessorPil(min_pixels=min_pixels, max_pixels=max_pixels)
    return PairProcessor(image_processor, tokenizer, chat_template=tokenizer.chat_template)


def load_model(name: str, model: Model, *, device: str | None = None) -> Qwen2_5_VLForConditionalGeneration:
    """The model ``name``, checked and ready to generate; an adapter is merged into the model it was trained on.

    Raises :class:`UserError` where a weight is missing, unexpected or of another shape, and where a file is not the one
    that a training here wrote.
    """
    folder = resolve_model(name)
    if (Path(folder) / ORIGIN).exists():
        unseal(Path(folder))
    if (Path(folder) / "adapter_config.json").is_file():
        return _with_adapter(load_model(_base_of(folder), model, device=device), folder)
    check_family(Path(folder) / "config.json")
    with _readable(name):
        loaded, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder, revision=revision_of(folder), dtype=getattr(torch, model.dtype), attn_implementation="sdpa",
            output_loading_info=True, use_safetensors=True,  # the other format, pickle, can run code
        )  # fmt: skip
        tokenizer = load_tokenizer(folder)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if keys := sorted(map(str, report.get(problem) or ())):
            raise UserError(
                f"The weights of {name} do not fit: {len(keys)} {problem.replace('_', ' ')}, first {keys[0]}.",
                "Use the checkpoint with the transformers version that wrote it, or build it again.",
            )
    loaded.generation_config = generation_config(tokenizer)
    return loaded.to(device or best_device())


def generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy, stopping at the end of the turn, and never a vision token.

    A generated image token breaks every later pass over the text (R1-V issue 91, TRL issue 3847).
    """
    return GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(list(STOP_TOKENS)),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        suppress_tokens=tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)),
    )


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, Finish]:
    """The text of a completion up to its end of turn, special tokens included, and how it ended."""
    stops = tokenizer.convert_tokens_to_ids(list(STOP_TOKENS))
    end = next((index for index, token in enumerate(ids) if token in stops), None)
    text = tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text, "length" if end is None else "stop"


def fingerprint(name: str) -> str:
    """SHA-256 of all that decides a model's answers, an adapter's base included; of a hub id, of its name."""
    folder = Path(resolve_model(name))
    files = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern)})
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


def _with_adapter(model: Qwen2_5_VLForConditionalGeneration, adapter: str) -> Qwen2_5_VLForConditionalGeneration:
    """``model`` with the LoRA adapter merged in. Raises :class:`UserError` where the adapter is all zeros."""
    file, config = Path(adapter) / "adapter_model.safetensors", model.generation_config
    if not file.is_file():
        raise UserError(f"{file} is missing.", COPY)
    with _readable(adapter):
        wrapped = PeftModel.from_pretrained(model, adapter)
    if not any(weight.any() for name, weight in wrapped.named_parameters() if "lora_B" in name):  # zero at first
        message = f"The adapter {adapter} changes nothing."
        raise UserError(message, "It was saved before training, or its keys do not match.")
    merged = wrapped.merge_and_unload()
    merged.generation_config = config
    return merged

"""The only loader of weights and processors, and what must be true of them after a load.

Every load is checked: each weight came from the file, padding is on the left, no vision token can be generated, and
an adapter is not zero.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar

from ladlib.checksums import ORIGIN, sha256, unseal
from ladlib.config import Data, Model
from ladlib.errors import UserError, read_json
from ladlib.families import MODEL_FILES, STOP_TOKENS, VISION_TOKENS, check_family, is_hub_id, revision_of
from ladlib.prompts import check_template
from ladlib.records import Finish
from ladlib.runs import write_text

disable_progress_bar()  # one bar per file would fill logs and notebooks

COPY = "Copy or train it again; weights are read from safetensors files only."
MAKE = "Give a folder with a config.json; of a run, notebook 02_sft makes sft, and 03_grpo makes sft_grpo."
DAMAGES = (OSError, ImportError, SafetensorError, StrictDataclassError, RuntimeError) + (
    ValueError, KeyError, TypeError, AttributeError,
)  # fmt: skip
TOY_MODELS = ("toy-base", "toy-large")
MERGED = "merged"  # within the folder of stage 1's adapter: the whole model, on which that of stage 2 stands


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
    if not is_hub_id(name):
        raise UserError(f"There is no model in {name}.", MAKE)
    return name


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns long errors, of the hub or of a damaged file, into one line."""
    try:
        yield
    except DAMAGES as error:
        if isinstance(error, OSError) and not Path(name).is_dir() and name not in TOY_MODELS:
            message = f"The model {name} is neither a folder nor available from the hub."
            raise UserError(message, "Check the name and the network.") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise UserError(f"The files of {name} are missing or damaged: {reason}.", COPY) from error


def load_processor(name: str, data: Data) -> PairProcessor:
    """The processor of a model, with the profile's band of pixels and left padding."""
    with _readable(name):
        tokenizer = load_tokenizer(resolve_model(name))
    check_template(processor := make_processor(tokenizer, data.min_pixels, data.max_pixels), name)
    return processor


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, whose own code is never run, with the model's chat template."""
    options = {"revision": revision_of(name), "padding_side": "left"}  # which a saved tokenizer then has, too
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    if not tokenizer.chat_template and (file := _find_file(name, "chat_template.json")):
        tokenizer.chat_template = read_json(file, COPY)["chat_template"]
    return tokenizer


def _find_file(name: str, file: str, is_needed: bool = False) -> Path | None:
    """A file of a folder or hub id, from which it alone is fetched; None where there is none and none is needed."""
    found = cached_file(name, file, revision=revision_of(name), _raise_exceptions_for_missing_entries=is_needed)
    return Path(found) if found else None


def own_band(name: str, data: Data) -> Data:
    """``data`` with the band of pixels that the model's own image settings name, if it has any."""
    folder = resolve_model(name)
    with _readable(name):
        if not _find_file(folder, "preprocessor_config.json"):
            return data
        band = Qwen2VLImageProcessorPil.from_pretrained(folder, revision=revision_of(folder)).size
        return data.model_copy(update={"min_pixels": band["shortest_edge"], "max_pixels": band["longest_edge"]})


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
    if is_adapter(folder):
        return _with_adapter(load_model(_base_of(folder), model, device=device), folder)
    with _readable(name):
        check_family(_find_file(folder, "config.json", is_needed=True))
        index = _find_file(folder, "model.safetensors.index.json")
        files = read_json(index, COPY)["weight_map"].values() if index else ()
        if outside := sorted(file for file in files if Path(file).name != file):
            raise UserError(f"{index} names {outside[0]!r}, which is not in its folder.", COPY)
        loaded, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder, revision=revision_of(folder), dtype=getattr(torch, model.dtype), attn_implementation="sdpa",
            output_loading_info=True, use_safetensors=True,  # the other format, pickle, can run code
        )  # fmt: skip
        tokenizer = load_tokenizer(folder)
    _check_keys(name, report)
    if loaded.config.image_token_id != tokenizer.convert_tokens_to_ids("<|image_pad|>"):
        raise UserError(f"The config.json of {name} has another image token than its tokenizer.", COPY)
    loaded.generation_config = generation_config(tokenizer)
    return loaded.to(device or best_device())


def _check_keys(name: str, report: Mapping[str, object]) -> None:
    """Raises :class:`UserError` where weights of the file did not reach the model, or some of the model have none."""
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if keys := sorted(map(str, report.get(problem) or ())):
            raise UserError(
                f"The weights of {name} do not fit: {len(keys)} {problem.replace('_', ' ')}, first {keys[0]}.",
                "Use the checkpoint with the transformers version that wrote it, or build it again.",
            )


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
    if is_adapter(folder):
        parts.append(fingerprint(_base_of(str(folder))))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def best_device() -> str:
    """ "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def count_parameters(model: torch.nn.Module) -> int:
    """The number of weights, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def is_adapter(folder: Path | str) -> bool:
    """Whether ``folder`` holds a LoRA adapter, not a whole model."""
    return (Path(folder) / "adapter_config.json").is_file()


def whole_model(name: str) -> str:
    """``name``, or the whole model beside the adapter that it is. Raises :class:`UserError` where there is none."""
    merged = Path(resolve_model(name), MERGED)
    if is_adapter(merged.parent) and not (merged / "config.json").is_file():
        raise UserError(f"{name} is an adapter, on which no other can stand.", "`ladlib export` merges it.")
    return str(merged) if is_adapter(merged.parent) else name


def write_merged(adapter: Path, settings: Model, processor: PairProcessor) -> None:
    """Write the whole model beside its adapter."""
    for part in (load_model(str(adapter), settings, device="cpu"), processor):
        part.save_pretrained(adapter / MERGED)


def _base_of(folder: str) -> str:
    """The model that the adapter in ``folder`` was trained on; a sibling checkpoint also after the run was moved."""
    file = Path(folder) / "adapter_config.json"
    config = read_json(file, COPY)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise UserError(f"{file} does not say what the adapter was trained on.", COPY)
    siblings = [Path(folder).parent.joinpath(*Path(base).parts[-parts:]) for parts in (2, 1)]
    base = next((str(sibling) for sibling in siblings if sibling.is_dir()), base)
    if is_adapter(base):
        raise UserError(f"The adapter {folder} stands on another, {base}.", "Train it again on a whole model.")
    return base


def _with_adapter(model: Qwen2_5_VLForConditionalGeneration, adapter: str) -> Qwen2_5_VLForConditionalGeneration:
    """``model`` with the LoRA adapter merged in. Raises :class:`UserError` where it does not fit or is all zeros."""
    file, config = Path(adapter) / "adapter_model.safetensors", model.generation_config
    if not file.is_file():
        raise UserError(f"{file} is missing.", COPY)
    with _readable(adapter):
        wrapped = PeftModel.from_pretrained(model, adapter)
        expected = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
        with safe_open(file, "pt") as weights:
            found = set(weights.keys())
    _check_keys(adapter, {"missing_keys": expected - found, "unexpected_keys": found - expected})
    if not any(weight.any() for name, weight in wrapped.named_parameters() if "lora_B" in name):  # zero at first
        raise UserError(f"The adapter {adapter} changes nothing.", "It was saved before training.")
    merged = wrapped.merge_and_unload()
    merged.generation_config = config
    return merged

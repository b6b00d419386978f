"""A random Qwen2.5-VL of 0.2 M parameters with the toy tokenizer, and datasets of a dozen images."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from layouts import mmad_entry, write_ad, write_loco, write_mmad, write_visa
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ladlib.config import Profile, load_profile
from ladlib.families import PUBLISHED
from ladlib.models import load_model
from ladlib.toy.pretrain_model import SINGLE, Phase, Recipe, make_model, make_toy_processor

TINY = Recipe(
    hidden=48, layers=2, heads=4, vision_hidden=32, vision_layers=2, vision_heads=4, steps=1, batch=1,
    learning_rate=1e-3, other_rate=1e-3, warmup=1, settle=1, decay=1, phases=(Phase(1, 3, 1.0, SINGLE),),
)  # fmt: skip


@cache
def tiny_processor():
    return make_toy_processor()


@cache
def tiny_base() -> str:
    """A folder with the tiny model, written once."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-"))
    atexit.register(shutil.rmtree, folder)
    make_model(TINY, tiny_processor()).save_pretrained(folder)
    tiny_processor().tokenizer.save_pretrained(folder)
    return str(folder)


def weights_of(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_model(str(folder), tiny_profile().model).state_dict()


def tiny_profile(**changes: object) -> Profile:
    """The smoke profile with the tiny model as its base; ``a__b=v`` changes ``a.b``."""
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return load_profile("smoke", **{"model.base": tiny_base()} | dotted)


def published_config(name: str) -> dict:
    """What ``Qwen2_5_VLConfig`` takes, for a published model."""
    sizes = PUBLISHED[name]
    text = dict(
        hidden_size=sizes.hidden, intermediate_size=sizes.intermediate, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.key_value_heads, vocab_size=sizes.vocabulary,
        tie_word_embeddings=sizes.tied, max_position_embeddings=128_000, rms_norm_eps=1e-6, use_sliding_window=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    )  # fmt: skip
    vision = dict(
        depth=sizes.vision_layers, hidden_size=sizes.vision_hidden, num_heads=16, patch_size=14, spatial_merge_size=2,
        temporal_patch_size=2, window_size=112, fullatt_block_indexes=[7, 15, 23, 31], tokens_per_second=2,
        intermediate_size=sizes.vision_intermediate, out_hidden_size=sizes.hidden,
    )  # fmt: skip
    return dict(text_config=text, vision_config=vision, tie_word_embeddings=sizes.tied)


def meta_model(name: str) -> Qwen2_5_VLForConditionalGeneration:
    """A published model on PyTorch's meta device: all modules and shapes, no memory for weights."""
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**published_config(name)))


def write_data(root: Path) -> Path:
    """MVTec AD, VisA, MMAD and MVTec LOCO AD in small, below ``root``."""
    write_ad(
        root / "mvtec_anomaly_detection", normals={"train": 2, "test": 3}, defects={"missing_cable": 3, "bent_wire": 1}
    )
    write_visa(root / "visa")
    entries = {
        "DS-MVTec/cable/image/missing_cable/000.png": mmad_entry("A"),
        "DS-MVTec/cable/image/good/000.png": mmad_entry("B"),
        "MVTec-LOCO/juice_bottle/test/good/000.png": mmad_entry("B"),
    }
    knowledge = {"MVTec": {"cable": {"good": " <Whole>\n Description: Three cores. All insulated."}}}
    write_mmad(root / "mmad", entries, knowledge)
    write_loco(root / "mvtec_loco_anomaly_detection")
    colour_images(root)
    return root


def colour_images(root: Path) -> None:
    """Give each image a colour and a shape of its own, so that prompts differ in pixels and length."""
    files = [*root.rglob("*.png"), *root.rglob("*.JPG")]
    files = sorted(file for file in files if "mask" not in str(file) and "ground_truth" not in str(file))
    for number, path in enumerate(files):
        size = (64, 64) if number % 2 else (96, 48)
        Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number * 53 % 256)).save(path)

"""A trained checkpoint as one folder that plain transformers and vLLM load.

export("results/runs/paper", "lad-reasoner-3b")    # the checkpoint of arm sft_grpo, seed 0
"""

import shutil
from importlib import resources
from pathlib import Path
from string import Template

import yaml

from ladlib.config import Data, Model
from ladlib.errors import UserError, read_json
from ladlib.families import is_hub_id
from ladlib.models import load_model, load_processor, own_band
from ladlib.prompts import QUESTION
from ladlib.results import profile_of
from ladlib.runs import RunFolder, write_text

LICENCES = {"Qwen/Qwen2.5-VL-3B-Instruct": "qwen-research"}  # its weights and what is trained from them: non-commercial
DTYPE = "bfloat16"
MEASURES = ("n", "accuracy", "f1", "balanced_accuracy", "unparsed")


def export(source: Path | str, out: Path | str, *, arm: str = "sft_grpo", seed: int = 0) -> Path:
    """The new folder ``out``: weights with adapters merged, tokenizer, image settings, prompt and model card.

    ``source`` is a run folder or a checkpoint. Raises :class:`UserError` where ``out`` exists or no model is there.
    """
    out, run = Path(out), RunFolder(source)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists already.", "Name another folder, or delete it.")
    checkpoint = str(run.checkpoint(arm, seed) if run.run_json.exists() else source)
    model = load_model(checkpoint, Model(base=checkpoint, dtype=DTYPE), device="cpu")
    processor = load_processor(checkpoint, own_band(checkpoint, Data()))
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    processor.save_pretrained(part)
    write_text(part / "prompt.txt", QUESTION)
    write_text(part / "README.md", _card(out.name, run, arm, seed))
    part.rename(out)
    return out


def _card(name: str, run: RunFolder, arm: str, seed: int) -> str:
    front = {"library_name": "transformers", "pipeline_tag": "image-text-to-text",
             "tags": ["arxiv:2504.12749", "anomaly-detection", "grpo", "trl"]}  # fmt: skip
    results = ""
    if run.run_json.exists():
        record = run.read()
        profile = profile_of(run, record)
        base = profile.model.base
        front |= {"base_model": base, "base_model_relation": "finetune"} if is_hub_id(base) else {}
        front |= {"license": "other", "license_name": LICENCES[base]} if base in LICENCES else {}
        rows = read_json(run.metrics_json, "") if run.metrics_json.exists() else []
        lines = ["| " + " | ".join(str(row[key]) for key in ("subset", *MEASURES)) + " |" for row in rows
                 if (row["arm"], row["seed"], row["category"]) == (arm, seed, "mean")]  # fmt: skip
        head = f"| subset | {' | '.join(MEASURES)} |\n|{'---|' * (len(MEASURES) + 1)}"
        results = "\n".join([f"Profile: {profile.label}.\n", head, *lines, ""])
    text = (resources.files("ladlib") / "assets" / "model_card.md").read_text(encoding="utf-8")
    card = Template(text).substitute(name=name, results=results, dtype=DTYPE)
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{card}"

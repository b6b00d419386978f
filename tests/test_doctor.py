"""Doctor on made-up GPUs: what fits and what is missing; the memory sum and the plan against what TRL's trainers do."""

import json
import weakref
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from tiny import TINY, meta_model, tiny_processor, tiny_profile, write_data
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.trainer import utils as trl_utils

from ladlib import doctor, grpo, sft, training
from ladlib.batch import declared
from ladlib.config import load_profile
from ladlib.doctor import GIB, PROMPT_TEXT, examine, gpu_memory, memory_lines, plan_lines, prompt_tokens
from ladlib.pipeline import STAGES, effective, notebooks_folder
from ladlib.runs import hardware
from ladlib.sft_data import balanced_pairs, make_conversations
from ladlib.toy.pretrain_model import make_model
from ladlib.training import load_policy

GIB_OF = {"NVIDIA GeForce RTX 4090": 23.5, "NVIDIA A100-SXM4-80GB": 79.1, "NVIDIA H200": 139.7}
SMALL_GPU, A100, H200 = GIB_OF
FACTS = json.loads(Path(__file__).with_name("prompt_tokens.json").read_text(encoding="utf-8"))
PAPER, SMALL = load_profile("paper"), load_profile("small")


@pytest.fixture
def diagnose(monkeypatch):
    def diagnose(profile: str, *names: str):
        monkeypatch.setattr(doctor, "find_gpus", lambda: [(name, GIB_OF[name]) for name in names])
        return examine(profile)

    return diagnose


def checks(diagnosis, subject: str):
    return [(check.verdict, check.found) for check in diagnosis.checks if check.subject == subject]


@pytest.mark.parametrize(
    ("profile", "gpus", "verdict", "text"),
    [
        ("small", [SMALL_GPU], "ok", "1 with 12.4 GiB needed (calculated, not measured)"),
        ("paper", [SMALL_GPU], "missing", "calculated"),
        ("paper", [A100], "missing", "calculated"),
        ("paper", [H200], "ok", "calculated"),
        ("paper", [A100] * 8, "ok", "8 with"),
        ("small", [], "missing", "none that torch can use"),
        ("small", [A100, A100], "ok", "1 with"),
        ("toy", [], "ok", "none needed"),
    ],
)
def test_gpus_are_compared_with_the_calculated_memory(diagnose, profile, gpus, verdict, text):
    diagnosis = diagnose(profile, *gpus)
    ((found, message),) = checks(diagnosis, "GPU")
    assert found == verdict and text in message
    assert bool(diagnosis.plan) == (profile != "toy")
    assert bool(checks(diagnosis, "several GPUs")) == (profile == "small" and len(gpus) > 1)


def test_memory_is_unknown_where_the_system_does_not_tell(diagnose, monkeypatch):
    monkeypatch.delattr("os.sysconf")
    assert hardware()["memory_gib"] == "unknown"
    assert checks(diagnose("smoke"), "memory") == [("note", "unknown, needed 3 GiB")]


@pytest.mark.parametrize(("gpus", "needed"), [(1, 39), (8, 144)])
def test_memory_is_that_of_a_whole_model_for_each_process(diagnose, gpus, needed):
    ((_, text),) = checks(diagnose("paper", *[H200] * gpus), "memory")
    assert text.endswith(f"needed {needed} GiB")


@pytest.mark.parametrize(
    ("name", "text", "subject", "verdict", "message"),
    [
        ("small", "model:\n  base: a/b", "GPU", "note", "what is needed is not known: The sizes of a/b"),
        ("toy", "model:\n  large: toy-huge", "large model", "missing", "toy-huge is not shipped"),
        ("smoke", "grpo:\n  engine: vllm_colocate", "vLLM", "missing", "grpo.engine is vllm_colocate"),
        ("smoke", "data:\n  sft_file: gone.csv", "SFT file", "missing", "gone.csv"),
        ("smoke", "model:\n  base: toy-tiny", "base model", "missing", "toy-tiny is not shipped"),
        ("smoke", "model:\n  base: QUANTISED", "base model", "missing", "need gptqmodel, which is not installed"),
        ("smoke", "model:\n  base: /nowhere/at-all", "base model", "missing", "nor a folder with a config.json"),
        ("smoke", "parallel:\n  method: zero3", "DeepSpeed", "missing", "parallel.method is zero3"),
        ("paper", "", "datasets", "missing", "--data"),
    ],
)
def test_what_is_missing_is_named(diagnose, tmp_path, name, text, subject, verdict, message):
    values = yaml.safe_load((files("ladlib") / "profiles" / f"{name}.yaml").read_text())
    config = {"model_type": "qwen2_5_vl", "quantization_config": {"quant_method": "awq"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = text.replace("QUANTISED", str(tmp_path))
    for section, changed in (yaml.safe_load(text) or {}).items():
        values[section] = values.get(section, {}) | changed
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    diagnosis = diagnose(str(tmp_path / "mine.yaml"))
    ((found, line),) = checks(diagnosis, subject)
    assert found == verdict and message in line and (verdict == "note" or not diagnosis.can_run)


# Memory


class LiveBytes(TorchDispatchMode):
    """Bytes of the parameters of ``modules`` and of what operators make, alive ``now`` and at ``peak``."""

    def __init__(self, *modules):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()
        self.count([list(module.parameters()) for module in modules])

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self.count(output)
        return output

    def count(self, value):
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)):
            if storage._cdata not in self.known:
                self.add(storage._cdata, storage.nbytes())
                weakref.finalize(storage, self.add, storage._cdata, -storage.nbytes())

    def add(self, key, size):
        self.known ^= {key}
        self.now += size
        self.peak = max(self.peak, self.now)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    wide = replace(TINY, hidden=256, layers=4, heads=4, vision_hidden=128)
    make_model(wide, tiny_processor()).save_pretrained(folder)
    tiny_processor().tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=[0, 8], ids=["full", "adapters"])
def profile(request, model, monkeypatch):
    monkeypatch.setattr(training, "LARGE", 0)  # recompute activations, as for the 3B
    monkeypatch.setattr(trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 128)
    monkeypatch.setattr(doctor, "TILE", 4096 * 128)  # TRL's tile of 32768 words would be larger than all else here
    monkeypatch.setattr(doctor, "SFT_TEXT", 76)  # of the conversations here
    monkeypatch.setattr(doctor, "CONTEXT", 0)
    return tiny_profile(
        model__base=model, model__dtype="bfloat16", model__freeze_vision=True, model__lora_rank=request.param,
        model__max_new_tokens=48, model__shared_prefix=False, data__min_pixels=80 * 784, data__max_pixels=80 * 784,
        data__sft_samples=4, sft__steps=2, sft__micro_batch_size=4, sft__batch_size=4, grpo__micro_batch_size=4,
        grpo__prompts_per_step=1, grpo__group_size=4, grpo__beta=0.04, grpo__steps=2,
    )  # fmt: skip


@pytest.mark.slow
def test_a_training_holds_little_less_than_what_is_calculated(profile, data, tmp_path):
    policy, processor = load_policy(profile, profile.model.base)
    if profile.model.lora_rank:
        inputs = make_conversations(profile, data, 0)
        trainer = sft.make_trainer(profile, inputs, data, policy, processor, tmp_path / "x", 0)
    else:
        inputs = balanced_pairs(profile, data, 0)[:1]
        trainer = grpo.make_trainer(profile, inputs, data, policy, processor, tmp_path / "x", 0)
    reference = getattr(trainer, "ref_model", None)
    with LiveBytes(trainer.model, *([reference] if reference else [])) as live:
        trainer.train()
    terms = gpu_memory(profile)
    assert 0.75 * terms["total"] < live.peak / GIB < terms["total"]


def test_full_training_holds_sixteen_bytes_per_parameter_and_a_reference_model_where_there_is_a_kl_term():
    whole = gpu_memory(PAPER.replace({"model.freeze_vision": False}))
    parameters = sum(weight.numel() for weight in meta_model(PAPER.model.base).parameters())
    assert whole["weights"] + whole["gradients"] + whole["Adam"] == pytest.approx((16 + 2) * parameters / GIB)
    assert whole["reference"] == 4 * parameters / GIB
    assert gpu_memory(PAPER.replace({"grpo.beta": 0.0}))["reference"] == gpu_memory(SMALL)["reference"] == 0
    divided = gpu_memory(PAPER, 8, sharded=True)["reference"]
    assert divided == pytest.approx((4 / 8 + 2) * parameters / GIB), "TRL gathers it whole"


def test_memory_is_listed_for_large_models_in_bfloat16_only():
    assert "8 GPUs, divided" in memory_lines(PAPER)[2] and "8 GPUs" not in memory_lines(SMALL)[2]  # four prompts a step
    assert not memory_lines(load_profile("toy")) and not memory_lines(PAPER.replace({"model.dtype": "float32"}))
    assert "not known" in memory_lines(PAPER.replace({"model.base": "somebody/a-model"}))[0]


# The plan


def planned(trainer) -> int:
    return trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]


def test_steps_are_counted_as_the_trainers_count_them_where_epochs_do_not_come_out_even(data, tmp_path):
    uneven = tiny_profile(
        data__sft_samples=5, sft__steps=0, sft__epochs=3, sft__batch_size=4, sft__micro_batch_size=2,
        grpo__steps=0, grpo__epochs=2, grpo__prompts_per_step=3, grpo__micro_batch_size=2,
    )  # fmt: skip
    inputs, where = make_conversations(uneven, data, 0), (tmp_path / "x", 0)
    policy, processor = load_policy(uneven, uneven.model.base)
    steps = planned(sft.make_trainer(uneven, inputs, data, policy, processor, *where))
    assert steps == doctor.sft_steps(uneven, 5) == 3 * 2
    pairs = balanced_pairs(uneven, data, 0)
    steps = planned(grpo.make_trainer(uneven, pairs, data, policy, processor, *where))
    assert steps == doctor.grpo_steps(uneven, len(pairs)) == 2 * 1


def test_three_states_of_sft_are_written_at_full_size_and_images_are_opened_while_the_gpu_works(tmp_path, monkeypatch):
    def options(stage):
        return training.common_arguments(PAPER, stage, tmp_path, 0, meta_model(PAPER.model.base))

    assert 564 // options(PAPER.sft)["save_steps"] + 1 == 3 and options(PAPER.grpo)["save_steps"] == 20
    assert options(PAPER.grpo)["dataloader_num_workers"] == 0
    monkeypatch.setattr(training, "best_device", lambda: "cuda")
    assert options(PAPER.grpo)["dataloader_num_workers"] == 4


def test_stages_are_listed_with_the_profiles_counts():
    lines = plan_lines(PAPER)
    assert lines["02"] == "3000 conversations, 564 steps of 16"
    assert lines["04"] == "three models answer to all test pairs, at most 1121 + 512 tokens each"
    assert lines["03"].startswith("at most 1000 pairs, 124 steps of 128 completions")
    toy = load_profile("toy")
    assert f" {toy.sft.steps} steps" in plan_lines(toy)["02"] and f" {toy.grpo.steps} steps" in plan_lines(toy)["03"]


@pytest.mark.parametrize("image", FACTS["images"].values(), ids=FACTS["images"])
def test_prompts_have_the_text_tokens_that_were_counted_with_qwens_tokenizer(image):
    for name in ("paper", "small"):
        text = image[name]["prompt_tokens"] - 2 * image[name]["image_tokens"]
        assert text == PROMPT_TEXT and image[name]["prompt_tokens"] <= prompt_tokens(load_profile(name))


def test_every_parameter_of_the_notebooks_is_a_field_of_the_profile():
    values = {stage.name: declared(notebooks_folder() / f"{stage.name}.ipynb") for stage in STAGES}
    assert effective("paper", values) == PAPER
    values["02_sft"] |= {"sft_steps": 3, "sft_learning_rate": 0.5, "model": "toy-base"}
    values["03_grpo"] |= {"grpo_steps": 4, "grpo_learning_rate": 0.25, "grpo_beta": 0.125}
    values["04_evaluation"] |= {"eval_limit": 6}
    assert effective("paper", values) == PAPER.replace({
        "sft.steps": 3, "sft.learning_rate": 0.5, "model.base": "toy-base", "grpo.steps": 4,
        "grpo.learning_rate": 0.25, "grpo.beta": 0.125, "evaluate.limit": 6,
    })  # fmt: skip

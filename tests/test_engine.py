"""vLLM in place of transformers: what it must agree on, and what is said where it does not.

vLLM itself needs a GPU; here stand-ins answer in its forms, by transformers.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from tiny import tiny_base, tiny_profile, write_data
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ladlib import evaluate, grpo
from ladlib.config import Grpo
from ladlib.conversations import balanced_pairs
from ladlib.engine import serving
from ladlib.engine.parity import OPENING, Answered, difference, insist
from ladlib.errors import UserError
from ladlib.models import VISION_TOKENS, load_model, load_processor
from ladlib.runs import RunFolder, read_jsonl
from ladlib.training import load_policy, lora_config

PROFILE = tiny_profile(grpo__shared_prefix=False)
IMAGE_TOKEN = load_model(tiny_base(), PROFILE.model).config.image_token_id
IMAGE = 7
OURS = Answered([1, 2, IMAGE, IMAGE, 3, IMAGE, 4], [9] * OPENING)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("prompt", "completion", "told"),
    [
        (OURS.prompt_ids, OURS.completion_ids, ""),
        (OURS.prompt_ids, [*OURS.completion_ids, 5], ""),
        ([1, 2, IMAGE, IMAGE, IMAGE, 3, IMAGE, 4], OURS.completion_ids, r"its images take [3, 1] tokens, not [2, 1]"),
        (
            [1, 2, IMAGE, IMAGE, 3, IMAGE, 5],
            OURS.completion_ids,
            "its prompt has 7 tokens, not 7, and parts at token 6",
        ),
        ([1, 2, IMAGE, IMAGE, 3, IMAGE], OURS.completion_ids, "its prompt has 6 tokens, not 7, and parts at token 6"),
        (OURS.prompt_ids, [9] * (OPENING - 1) + [8], f"begins with the tokens {[9] * (OPENING - 1) + [8]}"),
    ],
)
def test_two_engines_agree_on_images_prompt_and_the_first_tokens_of_an_answer(prompt, completion, told):
    found = difference(OURS, Answered(prompt, completion), IMAGE)
    assert told in found and bool(told) == bool(found)


def test_what_differs_is_told_with_the_pair_and_what_to_do():
    with pytest.raises(UserError, match=r"Pair 2 of 2: its prompt has 1 tokens.* Use `engine: transformers`"):
        insist([OURS, OURS], [OURS, Answered([1], [])], 0, "vLLM")


class ByTransformers:
    """Stands for TRL's ``VLLMGeneration``: the same model, asked by transformers; ``fault`` spoils its prompts."""

    def __init__(self, trainer, processor, fault=lambda ids: ids):
        self.trainer, self.processor, self.fault = trainer, processor, fault
        self.temperature, self.max_completion_length = 1.0, trainer.max_completion_length
        self.asked, self.synced = [], 0

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, images, num_generations, profiler=None):
        self.asked.append((self.temperature, self.max_completion_length, len(prompts)))
        completions = [self.one(ids, two) for ids, two in zip(prompts, images, strict=True)]
        logprobs = [[[-1.0]] * len(one) for one in completions]
        return [self.fault(ids) for ids in prompts], completions, logprobs, None

    def one(self, ids, images):
        seen = self.processor.image_processor(images=images, return_tensors="pt")
        row = torch.tensor([ids])
        kinds = (row == self.trainer.model.config.image_token_id).int()
        with torch.no_grad():
            out = self.trainer.model.generate(
                input_ids=row, mm_token_type_ids=kinds, max_new_tokens=self.max_completion_length, **seen
            )
        return out[0, len(ids) :].tolist()


def with_vllm(data, folder, fault=lambda ids: ids):
    """A trainer that takes its rollouts from a stand-in for vLLM."""
    policy, processor = load_policy(PROFILE, tiny_base())
    trainer = grpo.make_trainer(PROFILE, balanced_pairs(PROFILE, data, 0), data, policy, processor, folder, 0)
    vars(trainer).pop("generation_config")  # with vLLM, TRL's trainer has none
    trainer.use_vllm, trainer.vllm_mode, trainer._last_loaded_step = True, "colocate", -1
    trainer._is_believed = trainer.vllm_importance_sampling_correction = False
    trainer.vllm_generation = ByTransformers(trainer, processor, fault)
    return trainer


def test_rollouts_come_from_vllm_once_it_was_held_against_the_trainers_own_model(data, tmp_path, capsys):
    trainer = with_vllm(data, tmp_path)
    trainer.train()
    assert "vLLM (colocate) and transformers agree on 2 pairs" in capsys.readouterr().out
    length, rows = PROFILE.grpo.max_completion_tokens, PROFILE.grpo.prompts_per_step * PROFILE.grpo.group_size
    assert trainer.vllm_generation.asked == [(0.0, OPENING, 2), *[(1.0, length, rows)] * PROFILE.grpo.steps]
    assert trainer.state.global_step == PROFILE.grpo.steps


def doubled(ids):
    """As TRL issue 6294 has it: the first place of an image that is laid out already is laid out again."""
    first = ids.index(IMAGE_TOKEN)
    return [*ids[:first], *[IMAGE_TOKEN] * 3, *ids[first:]]


def test_a_prompt_whose_images_vllm_lays_out_twice_trains_nothing(data, tmp_path):
    trainer = with_vllm(data, tmp_path, doubled)
    with pytest.raises(UserError, match=r"vLLM \(colocate\) does not answer as transformers does.*images take"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_engine_of_the_profile_is_the_trainers(tmp_path):
    policy = load_model(tiny_base(), PROFILE.model)
    settings = Grpo(**PROFILE.grpo.model_dump() | {"engine": "vllm_server", "vllm_url": "http://localhost:8001"})
    chosen = grpo._engine(settings, policy)
    assert chosen["use_vllm"] and chosen["vllm_mode"] == "server"
    assert chosen["vllm_server_base_url"] == "http://localhost:8001"
    assert chosen["generation_kwargs"] == {"bad_words": list(VISION_TOKENS)}
    assert "bad_words" not in grpo._engine(PROFILE.grpo, policy)["generation_kwargs"]


@pytest.fixture
def vllm(monkeypatch):
    """A stand-in for the command ``vllm``; call it with what goes wrong."""
    tests = str(Path(__file__).parent)
    monkeypatch.setattr(serving, "COMMAND", (sys.executable, f"{tests}/fake_vllm.py", "serve"))
    paths = (tests, *filter(None, [os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return lambda fault: monkeypatch.setenv("FAKE_VLLM", fault)


def judge(data, folder, engine, model=""):
    changes = {"evaluate__engine": engine, "evaluate__max_new_tokens": 12, "evaluate__limit": 1}
    run = RunFolder(folder)
    path = evaluate.evaluate(tiny_profile(**changes), data, run, 0, arm="base", model=model or tiny_base())
    return path, {row["id"]: row for row in read_jsonl(path)}


@pytest.mark.slow
def test_an_arm_served_by_vllm_is_judged_pair_by_pair_as_by_transformers(data, tmp_path, vllm, capsys):
    _, expected = judge(data, tmp_path / "one", "transformers")
    path, rows = judge(data, tmp_path / "two", "vllm")
    assert "vLLM and transformers agree on" in capsys.readouterr().out
    for key in ("text", "answer", "finish", "pixels", "images_sha256", "prompt_tokens", "completion_tokens"):
        assert {name: row[key] for name, row in rows.items()} == {name: row[key] for name, row in expected.items()}
    assert json.loads(path.with_suffix(".inputs.json").read_text())["engine"] == "vllm", "engines are not mixed"


@pytest.mark.slow
def test_an_adapter_is_served_merged(data, tmp_path, vllm):
    profile = tiny_profile(model__lora={"rank": 2, "alpha": 4, "dropout": 0.0})
    policy = get_peft_model(
        load_model(tiny_base(), profile.model), lora_config(load_policy(profile, tiny_base())[0], profile.model.lora)
    )
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    policy.save_pretrained(tmp_path / "adapter")
    load_processor(tiny_base(), profile.data).save_pretrained(tmp_path / "adapter")
    _, rows = judge(data, tmp_path / "run", "vllm", str(tmp_path / "adapter"))
    _, expected = judge(data, tmp_path / "own", "transformers", str(tmp_path / "adapter"))
    assert [row["text"] for row in rows.values()] == [expected[name]["text"] for name in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("resizes", "its images take"),
        ("keeps", "vLLM does not tell which tokens it saw"),
        ("dies", "no kernel for this GPU"),
    ],
)
def test_a_server_that_sees_something_else_or_none_at_all_answers_nothing(data, tmp_path, vllm, fault, told):
    vllm(fault)
    with pytest.raises(UserError, match=told):
        judge(data, tmp_path, "vllm")
    assert read_jsonl(RunFolder(tmp_path).generations("base", 0)) == []


def test_without_the_command_it_says_what_to_do(data, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "COMMAND", ("no-such-vllm", "serve"))
    with pytest.raises(UserError, match="evaluate.engine to transformers"):
        judge(data, tmp_path, "vllm")


def test_the_processor_lies_beside_a_checkpoint_as_in_qwens_repositories(tmp_path):
    processor = load_processor(tiny_base(), PROFILE.data)
    processor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored["processor_class"] == "Qwen2_5_VLProcessor"
    again = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    assert again.size == processor.image_processor.size and again.merge_size == 2

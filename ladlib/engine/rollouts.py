"""Rollouts drawn by vLLM inside TRL's trainer, held against the trainer's own model before the first step."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

from trl import GRPOTrainer

from ladlib.engine.parity import OPENING, PAIRS, Answered, insist


def hold_against_transformers(trainer: GRPOTrainer, prompts: list) -> None:
    """Let vLLM and the trainer's model answer greedily to the first few different ``prompts``, conversations with
    their images. Raises :class:`UserError` where they differ. Every process must call it: weights are exchanged.
    """
    ids, images, features = trainer._tokenize_prompts(deepcopy(prompts[:: trainer.num_generations][:PAIRS]))
    trainer.vllm_generation.sync_weights()
    ours = _here(trainer, ids, images, features)
    theirs = _there(trainer, ids, images)
    insist(ours, theirs, trainer.model.config.image_token_id, f"vLLM ({trainer.vllm_mode})")


def _here(trainer: GRPOTrainer, ids: list[list[int]], images: list, features: dict) -> list[Answered]:
    """By the trainer's own way to generate without vLLM, which gathers a divided model."""
    greedy = deepcopy(trainer.model.generation_config)
    greedy.update(do_sample=False, max_new_tokens=OPENING)
    with _set(trainer, use_vllm=False, generation_config=greedy, generation_kwargs=None):
        completions = trainer._generate_single_turn(ids, images, features, 1)[0]
    return [Answered(list(one), list(completion)) for one, completion in zip(ids, completions, strict=True)]


def _there(trainer: GRPOTrainer, ids: list[list[int]], images: list) -> list[Answered]:
    with _set(trainer.vllm_generation, temperature=0.0, max_completion_length=OPENING):
        seen, completions, *_ = trainer.vllm_generation.generate(prompts=ids, images=images, num_generations=1)
    return [Answered(list(one), list(completion)) for one, completion in zip(seen, completions, strict=True)]


@contextmanager
def _set(holder: object, **values: object) -> Iterator[None]:
    """Give ``holder`` other attributes for a while."""
    before = {name: value for name, value in vars(holder).items() if name in values}
    vars(holder).update(values)
    try:
        yield
    finally:
        for name in values:
            delattr(holder, name)
        vars(holder).update(before)

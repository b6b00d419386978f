"""GRPO that computes what the completions of a group have in common once.

Stock TRL makes each of the G completions of a prompt a row of its own, prompt and images included. Here a prompt P and
its completions A, B, ... are one row, a trunk with branches::

    stock   P P P P a a a            here   P P P p a a  p b b  ...        a token attends to ...
            P P P P b b b                   |trunk| |branch| |branch|
            ...                    trunk    x                              the trunk before it
                                            x x
                                            x x x
                                   branch   x x x x                        the trunk and its own branch
                                   A        x x x x x
                                            x x x x x x
                                   branch   x x x .  . .  x                (. is never computed)
                                   B        x x x .  . .  x x
                                            x x x .  . .  x x x
                                 position   0 1 2 3  4 5  3 4 5            as in a row of its own

- The prompt's last token opens every branch (the p above), since it predicts the first of a completion; a completion's
  last token, which predicts nothing, is left out.
- Trunk and branches attend separately inside the model's own forward pass, so PEFT, DDP, gradient checkpointing and
  TRL's fused head work unchanged.
- Sampling repeats the prompt's keys and values for the group (:mod:`ladlib.fast.decode`): same policy, other draws.
- Images are cut into patches once per step, and encoded once per pass.

Numbers are those of the stock trainer but for their last digits (``tests/test_shared_prefix.py``).
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface, Qwen2_5_VLForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from ladlib.errors import UserError
from ladlib.fast.decode import Prompt, begin, make_prompts

ATTENTION = "shared_prefix"  # the name under which transformers knows :func:`attend`
IGNORED = -100  # a label without loss


class Branches(NamedTuple):
    """Masks of rows ``[trunk | branch | branch | ...]``."""

    trunk: torch.Tensor  # [rows, 1, trunk, trunk], True where a query (second last) attends to a key (last)
    branch: torch.Tensor  # [rows * branches, 1, branch, trunk + branch]


def branches_of(is_prompt: torch.Tensor, branches: int, length: int) -> Branches:
    """Masks for trunks ``is_prompt``, ``[rows, trunk]``, padded on the left, with ``branches`` of ``length`` each.

    A padded token of the trunk attends to itself, so that its softmax has a sum.
    """
    (rows, trunk), device = is_prompt.shape, is_prompt.device
    lower = torch.ones(trunk, trunk, dtype=torch.bool, device=device).tril()
    diagonal = torch.eye(trunk, dtype=torch.bool, device=device)
    within = torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(rows, -1, -1)
    branch = torch.cat([is_prompt[:, None].expand(-1, length, -1), within], dim=2)
    return Branches(
        (is_prompt[:, None] & lower | diagonal)[:, None], branch.repeat_interleave(branches, dim=0)[:, None]
    )


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | Branches | None, **kwargs: object,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention as transformers calls it: from ``[rows, heads, tokens, size]`` to ``[rows, tokens, heads, size]``."""
    if not isinstance(attention_mask, Branches):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    (rows, *_, trunk), (every, _, length, _) = attention_mask.trunk.shape, attention_mask.branch.shape
    parts = [(states[:, :, :trunk], _branches(states[:, :, trunk:], length)) for states in (query, key, value)]
    (query_t, query_b), *shared = parts
    first, _ = sdpa_attention_forward(module, query_t, *(part for part, _ in shared), attention_mask.trunk, **kwargs)
    whole = [torch.cat([part.repeat_interleave(every // rows, dim=0), branch], dim=2) for part, branch in shared]
    rest, _ = sdpa_attention_forward(module, query_b, *whole, attention_mask.branch, **kwargs)
    return torch.cat([first, rest.reshape(rows, -1, *rest.shape[2:])], dim=1), None


def _branches(states: torch.Tensor, length: int) -> torch.Tensor:
    """From ``[rows, heads, branches * length, size]`` to ``[rows * branches, heads, length, size]``."""
    return states.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class StepImages(NamedTuple):
    """The images of a step, two per prompt, each once."""

    patches: torch.Tensor  # [patches, values] of all images
    grids: torch.Tensor  # [images, 3]

    def rows(self, copies: int) -> dict[str, torch.Tensor]:
        """What TRL stores in place of patches, ``copies`` rows per prompt: for each patch the number of its image."""
        numbers = torch.arange(len(self.grids), device=self.grids.device).view(-1, 2)
        images = numbers.repeat_interleave(copies, dim=0).flatten()
        grids = self.grids[images]
        return {"pixel_values": images.repeat_interleave(grids.prod(dim=1)), "image_grid_thw": grids}


class CachedProcessor:
    """The processor, except that the images of every row are not cut into patches again."""

    def __init__(self, processor: object, trainer: "SharedPrefix") -> None:
        self._processor, self._trainer = processor, trainer

    def __getattr__(self, name: str) -> object:
        return getattr(self._processor, name)

    def __call__(self, **_: object) -> dict[str, torch.Tensor]:
        return self._trainer.images.rows(self._trainer.num_generations)


class Rows(NamedTuple):
    """Prompts, padded on the left, their completions, padded on the right, and the numbers of their images."""

    prompt: torch.Tensor  # [rows, prompt]
    prompt_mask: torch.Tensor  # [rows, prompt]
    completion: torch.Tensor  # [rows, completion]
    completion_mask: torch.Tensor  # [rows, completion]
    images: torch.Tensor  # [rows, 2]

    def take(self, rows: torch.Tensor) -> "Rows":
        """The rows with these indices, without the padding that only others need."""
        prompt, prompt_mask, completion, completion_mask, images = (part[rows] for part in self)
        before, after = (int(mask.sum(dim=1).max()) for mask in (prompt_mask, completion_mask))
        return Rows(
            prompt[:, -before:], prompt_mask[:, -before:], completion[:, :after], completion_mask[:, :after], images
        )


def pack(model: Qwen2_5_VLForConditionalGeneration, rows: Rows, images: StepImages, size: int) -> dict:
    """The model's arguments for ``rows`` in consecutive groups of ``size``, each of one prompt.

    A branch is as long as its completion, and each label is at the token that predicts it.
    """
    prompt, prompt_mask = rows.prompt[::size], rows.prompt_mask[::size]
    trunk, groups, numbers = prompt[:, :-1], len(prompt), rows.images[::size].flatten()
    branches = torch.cat([rows.prompt[:, -1:], rows.completion[:, :-1]], dim=1)
    labels = rows.completion.masked_fill(rows.completion_mask == 0, IGNORED)
    length, grids = branches.shape[1], images.grids[numbers]
    patches = images.patches.split(images.grids.prod(dim=1).tolist())
    kinds = (prompt == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(prompt, kinds, grids, attention_mask=prompt_mask)
    later = positions[:, :, -1:] + torch.arange(length, device=branches.device).repeat(size)
    return {
        "input_ids": torch.cat([trunk, branches.view(groups, -1)], dim=1),
        "position_ids": torch.cat([positions[:, :, :-1], later], dim=2),
        "attention_mask": {"full_attention": branches_of(prompt_mask[:, :-1].bool(), size, length)},
        "pixel_values": torch.cat([patches[number] for number in numbers.tolist()]),
        "image_grid_thw": grids,
        "shift_labels": torch.cat([torch.full_like(trunk, IGNORED), labels.view(groups, -1)], dim=1),
    }


class SharedPrefix:
    """Mixed into TRL's ``GRPOTrainer``: what it computes per completion, computed once per prompt."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.accelerator.is_fsdp2:
            raise UserError(
                "model.shared_prefix needs a whole model on each device, and FSDP2 divides it.",
                "Set model.shared_prefix to false, or parallel.method to ddp or zero3.",
            )
        self.images: StepImages | None = None  # of the prompts that were sampled last
        self.processing_class = CachedProcessor(self.processing_class, self)
        for model in (self._plain(self.model), self.ref_model):
            if model is not None:
                model.config.get_text_config()._attn_implementation = ATTENTION

    def _plain(self, model: torch.nn.Module) -> torch.nn.Module:
        """The Qwen2.5-VL inside the wrappers of accelerate and PEFT."""
        model = self.accelerator.unwrap_model(model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _tokenize_prompts(self, prompts: list) -> tuple[list, list, dict]:
        """Tokens and images of every row, and image fields of every prompt."""
        size = self.num_generations
        ids, images, fields = super()._tokenize_prompts(prompts[::size])
        return [row for row in ids for _ in range(size)], [pair for pair in images for _ in range(size)], fields

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        """The completions of each prompt, which is processed once."""
        device, ids = self.accelerator.device, prompt_ids[::num_generations]
        names = ("pixel_values", "image_grid_thw")
        fields = [torch.as_tensor(multimodal_fields[name], device=device) for name in names]
        with (
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self.accelerator.autocast(),
        ):  # fmt: skip
            plain = self._plain(model)
            self.images = StepImages(*fields)
            features = plain.get_image_features(*fields).pooler_output
            numbers = [[2 * number, 2 * number + 1] for number in range(len(ids))]
            prompts = make_prompts(plain, ids, numbers, features, self.images.grids)
            return self._sample(plain, prompts, num_generations), None

    def _sample(self, model: torch.nn.Module, prompts: Sequence[Prompt], size: int) -> list[list[int]]:
        """The tokens of ``size`` completions of each prompt."""
        rows = begin(model, prompts, self.max_completion_length, copies=size)
        completions = {}
        for ended, tokens in rows.write(self.max_completion_length, self._choose):
            completions |= zip(rows.numbers[ended].tolist(), tokens, strict=True)
        return [completions[number] for number in sorted(completions)]

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        """A token for each row, sampled from the policy."""
        return torch.multinomial((logits.float() / self.temperature).softmax(dim=1), 1).squeeze(1)

    def _prepare_inputs(self, generation_batch: list[dict]) -> dict:
        """As the stock trainer's, without its shuffle, so that a micro-batch holds whole groups."""
        count = self.args.steps_per_generation
        if self._step % (count * self.num_iterations) == 0 or self._buffered_inputs is None:
            scored = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(scored, count)]
        return self._buffered_inputs[self._step % count]

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False,
        compute_aux_loss=False, pixel_values=None, image_grid_thw=None, num_images=None, **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:  # fmt: skip
        """As the stock trainer's, ``[rows, logits_to_keep]``; ``pixel_values`` are those of :meth:`StepImages.rows`."""
        counts = image_grid_thw.prod(dim=1)
        images = pixel_values[counts.cumsum(dim=0) - counts].view(len(input_ids), -1)
        both = (input_ids, attention_mask)
        texts = chain((part[:, :-logits_to_keep] for part in both), (part[:, -logits_to_keep:] for part in both))
        rows, parts = Rows(*texts, images), torch.arange(len(input_ids)).split(batch_size or len(input_ids))
        results = [self._read(model, rows.take(numbers), logits_to_keep) for numbers in parts]
        log_probs, entropies = (torch.cat(values) for values in zip(*results, strict=True))
        return log_probs, entropies if compute_entropy else None, None

    def _read(self, model: torch.nn.Module, rows: Rows, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies, ``[rows, length]`` each, zero after a completion and without entropies."""
        size = min(len(rows.prompt), self.num_generations)  # a group, or a part of one
        with self.accelerator.autocast():
            output = model(**pack(self._plain(model), rows, self.images, size), fused_lm_head=True)

        def unpack(values: torch.Tensor) -> torch.Tensor:
            branches = values[:, rows.prompt.shape[1] - 1 :].reshape(rows.completion.shape)
            return torch.nn.functional.pad(branches, (0, length - branches.shape[1]))

        log_probs = unpack(output.log_probs)
        return log_probs, torch.zeros_like(log_probs) if output.entropy is None else unpack(output.entropy)

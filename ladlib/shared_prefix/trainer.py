"""The trainer's three passes over a group of completions, each with one reading of what the group has in common."""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain

import torch
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from ladlib.decoding.prompt import Prompt, lay_out_tokens
from ladlib.decoding.rows import begin
from ladlib.shared_prefix.attention import give_branches
from ladlib.shared_prefix.packing import Rows, pack, unpack
from ladlib.shared_prefix.shown import Shown, Told, encoded, show


class SharedPrefix:
    """Mixed into TRL's ``GRPOTrainer``: what it computes for each completion, computed once for each prompt."""

    redraws = 0  # how often a group that teaches nothing is drawn again, at most

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._moves: torch.Tensor | None = None  # [rows] of a micro-batch, False where nothing is to be learned
        self._shown: Shown | None = None  # by the prompts that were drawn from last
        self.processing_class = Told(self.processing_class, lambda: self._shown.rows(self.num_generations))
        for model in (self._plain(self.model), self.ref_model):
            if model is not None:
                give_branches(model)

    def _plain(self, model: torch.nn.Module) -> torch.nn.Module:
        """The Qwen2.5-VL within what accelerate and PEFT made of it."""
        model = self.accelerator.unwrap_model(model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    # Drawing

    def _tokenize_prompts(self, prompts: list) -> tuple[list, list, dict]:
        """A group's prompt is tokenized, and its images are cut into patches, once: the last is told once a group."""
        size = self.num_generations
        ids, images, fields = super()._tokenize_prompts(prompts[::size])
        return [one for one in ids for _ in range(size)], [one for one in images for _ in range(size)], fields

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        """Completions of each prompt, which is read once; a row that has ended is let go."""
        device, ids = self.accelerator.device, prompt_ids[::num_generations]
        given = (torch.as_tensor(multimodal_fields[name], device=device) for name in ("pixel_values", "image_grid_thw"))
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
            self._shown = show(plain, *given)
            prompts = lay_out_tokens(plain, ids, self._shown.features, self._shown.grids)
            groups = dict(enumerate(self._draw_groups(plain, prompts, num_generations)))
            for _ in range(self.redraws):
                silent = [number for number, group in groups.items() if not self._teaches(number, group)]
                again = self._draw_groups(plain, [prompts[number] for number in silent], num_generations)
                groups |= zip(silent, again, strict=True)
        return [*chain.from_iterable(groups.values())], None

    def _draw_groups(self, model: torch.nn.Module, prompts: Sequence[Prompt], size: int) -> list[list[list[int]]]:
        """The tokens of ``size`` completions of each prompt."""
        if not prompts:
            return []
        rows = begin(model, prompts, self.max_completion_length, copies=size)
        written = rows.write(self.max_completion_length, self._draw)
        drawn = {
            number: own
            for ended, tokens in written
            for number, own in zip(rows.numbers[ended].tolist(), tokens, strict=True)
        }
        return [[drawn[number] for number in range(start, start + size)] for start in range(0, len(drawn), size)]

    def _draw(self, logits: torch.Tensor) -> torch.Tensor:
        """A token for each row, from the policy at the temperature of the training."""
        return torch.multinomial((logits.float() / self.temperature).softmax(dim=1), 1).squeeze(1)

    def _teaches(self, number: int, completions: Sequence[Sequence[int]]) -> bool:
        """Whether the completions of prompt ``number`` differ in reward; a subclass that redraws can tell."""
        return True

    # Reading

    def _prepare_inputs(self, generation_batch: list[dict]) -> dict:
        """As the stock trainer's, but completions keep their order, so that a micro-batch holds whole groups."""
        count = self.args.steps_per_generation
        if self._step % (count * self.num_iterations) == 0 or self._buffered_inputs is None:
            made = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            self._buffered_inputs = [unsplit_pixel_values_by_grid(one) for one in split_tensor_dict(made, count)]
        return self._buffered_inputs[self._step % count]

    def _compute_loss(self, model: torch.nn.Module, inputs: dict) -> torch.Tensor:
        if self.beta == 0:
            advantages = inputs["advantages"].view(-1, self._size(len(inputs["advantages"])))
            moves = (advantages != 0).any(dim=1).cpu()
            self._moves = (moves if moves.any() else ~moves).repeat_interleave(advantages.shape[1])
        loss = super()._compute_loss(model, inputs)
        self._moves = None
        return loss

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False,
        compute_aux_loss=False, pixel_values=None, image_grid_thw=None, num_images=None, **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:  # fmt: skip
        """Log-probabilities and entropies ``[rows, logits_to_keep]`` of completions, as the stock trainer gives them.

        Where a group teaches nothing (no spread of rewards, and no KL term) no gradient is kept of it.
        ``pixel_values`` are the numbers that :meth:`Shown.rows` tells.
        """
        counts = image_grid_thw.prod(dim=1)
        images = pixel_values[counts.cumsum(dim=0) - counts].view(len(input_ids), -1)
        both = (input_ids, attention_mask)
        texts = ([one[:, :-logits_to_keep] for one in both], [one[:, -logits_to_keep:] for one in both])
        rows, found = Rows(*texts[0], *texts[1], images), []
        parts = self._parts(len(input_ids), batch_size or len(input_ids))
        for numbers, is_taught in parts:
            with nullcontext() if is_taught else torch.no_grad():
                found.append(self._read(model, rows.take(numbers), logits_to_keep))
        order = torch.cat([numbers for numbers, _ in parts]).argsort().to(input_ids.device)
        log_probs, entropies = (torch.cat(one)[order] for one in zip(*found, strict=True))
        return log_probs, entropies if compute_entropy else None, None

    def _parts(self, count: int, most: int) -> list[tuple[torch.Tensor, bool]]:
        """Numbers of rows that are read together, and whether a gradient is wanted of them."""
        numbers = torch.arange(count)
        if self._moves is None:
            return [(part, True) for part in numbers.split(most)]
        halves = [(numbers[self._moves], True), (numbers[~self._moves], False)]
        return [(part, is_taught) for part, is_taught in halves if len(part)]

    def _read(self, model: torch.nn.Module, rows: Rows, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``[rows, length]`` each: log-probabilities, and entropies (of the frozen model zeros)."""
        plain, size = self._plain(model), self._size(len(rows.prompt))
        with self.accelerator.autocast(), encoded(plain, self._shown, rows.images[::size].flatten()):
            output = model(**pack(plain, rows, self._shown, size), fused_lm_head=True)
        log_probs = unpack(output.log_probs, rows, length)
        entropy = output.entropy
        return log_probs, log_probs.detach() * 0 if entropy is None else unpack(entropy, rows, length)

    def _size(self, rows: int) -> int:
        """How many of ``rows`` share a prompt: a group, or all where they are a part of one."""
        return min(rows, self.num_generations)

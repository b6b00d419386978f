"""From a trainer's rows, a prompt and a completion each, to rows of one prompt and all its completions, and back."""

from typing import NamedTuple

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ladlib.shared_prefix.attention import branches_of
from ladlib.shared_prefix.shown import Shown

IGNORED = -100  # a label that asks for nothing


class Rows(NamedTuple):
    """Prompts, padded on the left, their completions, padded on the right, and the numbers of their images."""

    prompt: torch.Tensor  # [rows, prompt]
    prompt_mask: torch.Tensor  # [rows, prompt]
    completion: torch.Tensor  # [rows, completion]
    completion_mask: torch.Tensor  # [rows, completion]
    images: torch.Tensor  # [rows, 2], which of those that the step shows

    def take(self, rows: torch.Tensor) -> "Rows":
        """The rows whose numbers are given, without the padding that only others need."""
        prompt, prompt_mask, completion, completion_mask, images = (one[rows] for one in self)
        before, after = (int(mask.sum(dim=1).max()) for mask in (prompt_mask, completion_mask))
        return Rows(
            prompt[:, -before:], prompt_mask[:, -before:], completion[:, :after], completion_mask[:, :after], images
        )


def pack(model: Qwen2_5_VLForConditionalGeneration, rows: Rows, shown: Shown, size: int) -> dict:
    """The model's arguments for ``rows`` in groups of ``size``, one after the other, each of one prompt.

    A branch begins with the prompt's last token, which predicts the completion's first, and ends before the
    completion's last, which predicts nothing; so it is as long as the completion, and each label stands where it is
    predicted.
    """
    prompt, prompt_mask = rows.prompt[::size], rows.prompt_mask[::size]
    trunk, groups = prompt[:, :-1], len(prompt)
    branches = torch.cat([rows.prompt[:, -1:], rows.completion[:, :-1]], dim=1)
    labels = rows.completion.masked_fill(rows.completion_mask == 0, IGNORED)
    length, images = branches.shape[1], rows.images[::size].flatten()
    kinds = (prompt == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(prompt, kinds, shown.grids[images], attention_mask=prompt_mask)
    later = positions[:, :, -1:] + torch.arange(length, device=branches.device).repeat(size)
    return {
        "input_ids": torch.cat([trunk, branches.view(groups, -1)], dim=1),
        "position_ids": torch.cat([positions[:, :, :-1], later], dim=2),
        "attention_mask": {"full_attention": branches_of(prompt_mask[:, :-1].bool(), size, length)},
        "pixel_values": shown.patches_of(images),
        "image_grid_thw": shown.grids[images],
        "shift_labels": torch.cat([torch.full_like(trunk, IGNORED), labels.view(groups, -1)], dim=1),
    }


def unpack(values: torch.Tensor, rows: Rows, length: int) -> torch.Tensor:
    """``[rows, length]`` of ``values``, a number for each token of the packed rows; zeros where none was written."""
    own = values[:, rows.prompt.shape[1] - 1 :].reshape(rows.completion.shape)
    return torch.nn.functional.pad(own, (0, length - own.shape[1]))

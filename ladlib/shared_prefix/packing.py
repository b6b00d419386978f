"""From a trainer's rows, a prompt and a completion each, to rows of one prompt and all its completions, and back."""

from typing import NamedTuple

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ladlib.shared_prefix.attention import branches_of

IGNORED = -100  # a label that asks for nothing


class Rows(NamedTuple):
    """Prompts, padded on the left, their completions, padded on the right, and their images."""

    prompt: torch.Tensor  # [rows, prompt]
    prompt_mask: torch.Tensor  # [rows, prompt]
    completion: torch.Tensor  # [rows, completion]
    completion_mask: torch.Tensor  # [rows, completion]
    patches: tuple[torch.Tensor, ...]  # one a row: [patches, values] of all its images
    grids: tuple[torch.Tensor, ...]  # one a row: [images, 3]

    def take(self, rows: torch.Tensor) -> "Rows":
        """The rows whose numbers are given."""
        numbers = rows.tolist()
        return Rows(*(one[rows] for one in self[:4]), *(tuple(one[number] for number in numbers) for one in self[4:]))


def pack(model: Qwen2_5_VLForConditionalGeneration, rows: Rows, size: int) -> dict:
    """The model's arguments for ``rows`` in groups of ``size``, one after the other, each of one prompt.

    A branch begins with the prompt's last token, which predicts the completion's first, and ends before the
    completion's last, which predicts nothing; so it is as long as the completion, and each label stands where it is
    predicted.
    """
    one = rows.take(torch.arange(0, len(rows.prompt), size, device=rows.prompt.device))
    trunk, groups = one.prompt[:, :-1], len(one.prompt)
    branches = torch.cat([rows.prompt[:, -1:], rows.completion[:, :-1]], dim=1)
    labels = rows.completion.masked_fill(rows.completion_mask == 0, IGNORED)
    length, grids = branches.shape[1], torch.cat(one.grids)
    kinds = (one.prompt == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(one.prompt, kinds, grids, attention_mask=one.prompt_mask)
    later = positions[:, :, -1:] + torch.arange(length, device=branches.device).repeat(size)
    return {
        "input_ids": torch.cat([trunk, branches.view(groups, -1)], dim=1),
        "position_ids": torch.cat([positions[:, :, :-1], later], dim=2),
        "attention_mask": {"full_attention": branches_of(one.prompt_mask[:, :-1].bool(), size, length)},
        "pixel_values": torch.cat(one.patches),
        "image_grid_thw": grids,
        "shift_labels": torch.cat([torch.full_like(trunk, IGNORED), labels.view(groups, -1)], dim=1),
    }


def unpack(values: torch.Tensor, rows: Rows) -> torch.Tensor:
    """``[rows, completion]`` of ``values``, a number for each token of the packed rows."""
    return values[:, rows.prompt.shape[1] - 1 :].reshape(rows.completion.shape)

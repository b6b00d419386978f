"""Attention of a row that holds one prompt and several completions of it, without the pairs that cannot see each other.

A block mask over the whole row would say the same, and compute every completion against every other one for nothing.
"""

from typing import NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface, Qwen2_5_VLForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ladlib.errors import UserError

NAME = "shared_prefix"


class Branches(NamedTuple):
    """How a row ``[trunk | branch | branch | ...]`` is divided; it stands where a mask would."""

    trunk: torch.Tensor  # [rows, 1, trunk, trunk], True where a query (second last) sees a key (last)
    branch: torch.Tensor  # [rows * branches, 1, branch, trunk + branch]


def branches_of(is_prompt: torch.Tensor, branches: int, length: int) -> Branches:
    """Masks for trunks of ``is_prompt``, ``[rows, trunk]``, padded on the left, and as many branches of ``length``.

    A branch may be padded on its right: what no token sees needs no mask. A padded place of the trunk sees itself, so
    that its softmax has a sum.
    """
    rows, trunk = is_prompt.shape
    itself = torch.eye(trunk, dtype=torch.bool, device=is_prompt.device)
    below = torch.ones(trunk, trunk, dtype=torch.bool, device=is_prompt.device).tril()
    own = torch.ones(length, length, dtype=torch.bool, device=is_prompt.device).tril().expand(rows, -1, -1)
    seen = torch.cat([is_prompt[:, None].expand(-1, length, -1), own], dim=2)
    return Branches((is_prompt[:, None] & below | itself)[:, None], seen.repeat_interleave(branches, dim=0)[:, None])


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | Branches | None, **kwargs: object,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention as transformers calls it: from ``[rows, heads, tokens, size]`` to ``[rows, tokens, heads, size]``."""
    if not isinstance(attention_mask, Branches):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    (rows, *_, trunk), (every, _, length, _) = attention_mask.trunk.shape, attention_mask.branch.shape
    heads = [(one[:, :, :trunk], _branches(one[:, :, trunk:], length)) for one in (query, key, value)]
    (query_t, query_b), *shared = heads
    first, _ = sdpa_attention_forward(module, query_t, *(one for one, _ in shared), attention_mask.trunk, **kwargs)
    seen = [torch.cat([one.repeat_interleave(every // rows, dim=0), own], dim=2) for one, own in shared]
    rest, _ = sdpa_attention_forward(module, query_b, *seen, attention_mask.branch, **kwargs)
    return torch.cat([first, rest.reshape(rows, -1, *rest.shape[2:])], dim=1), None


def _branches(states: torch.Tensor, length: int) -> torch.Tensor:
    """``[rows, heads, branches * length, size]`` as ``[rows * branches, heads, length, size]``."""
    return states.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)


def give_branches(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the language model read rows with branches; all else it reads as before. Raises :class:`UserError`."""
    config = model.config.get_text_config()
    if config._attn_implementation not in ("sdpa", NAME):
        raise UserError(
            f"grpo.shared_prefix works with model.attention sdpa, not {config._attn_implementation}.",
            "Change one of them in the profile.",
        )
    config._attn_implementation = NAME


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)

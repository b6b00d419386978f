"""How the large toy model begins: as the small one, twice as wide and a layer deeper, saying the same.

Growing a trained network without changing what it computes is Net2Net (Chen et al., arXiv 1511.05641). Every
unit is doubled, and what read a unit reads both copies, each by a share; shares are drawn unevenly, so that
the copies' gradients differ and they part ways. A layer added at the end passes on what it is given.
"""

import torch

UNEVEN = 0.5  # a copy's share lies between (1 - UNEVEN) / 2 and (1 + UNEVEN) / 2


@torch.no_grad()
def grow(small: torch.nn.Module, large: torch.nn.Module) -> None:
    """Give ``large``, twice as wide and as deep or deeper, weights with which it computes what ``small`` does.

    Both are Qwen2.5-VL with heads of the same size and tied embeddings. Raises KeyError where ``large`` lacks a
    layer of ``small``.
    """
    old, new = small.state_dict(), large.state_dict()
    for name, weight in old.items():
        new[name].copy_(widened(name, weight, new[name].shape))
    new["model.language_model.norm.weight"].mul_(0.5)  # both copies of a unit meet their words in the tied embeddings
    for name, weight in new.items():
        if name not in old and name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()


def widened(name: str, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """``weight`` of the parameter ``name`` with its units doubled to ``shape``, and its inputs shared out."""
    if ".attn.qkv." in name:  # queries, keys and values lie one above the other
        third = (shape[0] // 3, *shape[1:])
        return torch.cat([widened("", one, torch.Size(third)) for one in weight.chunk(3)])
    rows = weight.repeat(shape[0] // weight.shape[0], *[1] * (weight.ndim - 1))
    if rows.ndim != 2 or shape[1] == weight.shape[1]:
        return rows
    if name.endswith("embed_tokens.weight") or name == "lm_head.weight":
        return torch.cat([rows, rows], dim=1)
    share = 0.5 + UNEVEN * (torch.rand_like(rows) - 0.5)
    if name.endswith("merger.mlp.0.weight"):  # reads four patches, each of which is doubled by itself
        parts = zip(rows.chunk(4, dim=1), share.chunk(4, dim=1), strict=True)
        return torch.cat([half for part, one in parts for half in (part * one, part * (1 - one))], dim=1)
    return torch.cat([rows * share, rows * (1 - share)], dim=1)

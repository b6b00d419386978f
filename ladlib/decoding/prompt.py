"""The prompts of a batch as the model reads them: each image encoded once, each prompt in two parts.

prompts = lay_out(model, processor, images, QUESTION)
prompts[0].before    # up to the end of the first image: the same for all pairs with that image
prompts[0].after     # the rest
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from ladlib.models import PairProcessor
from ladlib.prompts import prompt_text

Grid = tuple[int, int, int]  # of an image's patches: time, height, width


class Part(NamedTuple):
    """Consecutive tokens of a prompt."""

    embeddings: torch.Tensor  # [tokens, hidden], an image's features in place of its tokens
    positions: torch.Tensor  # [tokens, 3]


class Prompt(NamedTuple):
    """A pair's prompt."""

    first: int  # the number of its first image among the batch's
    before: Part
    after: Part
    last: int  # the token it ends with

    @property
    def tokens(self) -> int:
        """How many the prompt has."""
        return len(self.before.embeddings) + len(self.after.embeddings)


class Layout(NamedTuple):
    """What prompts with images of the same sizes have in common."""

    ids: torch.Tensor  # [tokens], an image's token as often as it has features
    positions: torch.Tensor  # [tokens, 3]


def lay_out(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, pairs: Sequence[Sequence[Image.Image]],
    question: str,
) -> list[Prompt]:  # fmt: skip
    """The prompt of each of ``pairs``, on the model's device."""
    images, numbers = distinct(pairs)
    packed = processor.image_processor(images=images, return_tensors="pt").to(model.device)
    features = model.get_image_features(packed["pixel_values"], packed["image_grid_thw"]).pooler_output
    grids = [tuple(grid) for grid in packed["image_grid_thw"].tolist()]
    ids = processor.tokenizer(prompt_text(processor, question, images=2))["input_ids"]
    shown = [(grids[first], grids[second]) for first, second in numbers]
    layouts = {sizes: _layout(model, ids, sizes) for sizes in dict.fromkeys(shown)}
    return [
        _prompt(model, layouts[sizes], features[first], features[second], first)
        for sizes, (first, second) in zip(shown, numbers, strict=True)
    ]


def lay_out_tokens(
    model: Qwen2_5_VLForConditionalGeneration, ids: Sequence[Sequence[int]], features: Sequence[torch.Tensor],
    grids: torch.Tensor,
) -> list[Prompt]:  # fmt: skip
    """The prompts whose tokens ``ids`` are known, and two images of each: ``features`` and ``grids``, one an image.

    An image's token stands in ``ids`` as often as it has features.
    """
    laid_out = []
    for number, row in enumerate(ids):
        images = slice(2 * number, 2 * number + 2)
        layout = _positioned(model, torch.tensor(row), grids[images].cpu())
        laid_out.append(_prompt(model, layout, *features[images], number))
    return laid_out


def distinct(pairs: Iterable[Sequence[Image.Image]]) -> tuple[list[Image.Image], list[list[int]]]:
    """The images of ``pairs`` that differ, in the order they come, and for each pair the numbers of its own."""
    shown = [[(image.size, image.tobytes()) for image in pair] for pair in pairs]
    images = dict(zip(chain(*shown), chain(*pairs), strict=True))
    number = {key: place for place, key in enumerate(images)}
    return list(images.values()), [[number[key] for key in pair] for pair in shown]


def _layout(model: Qwen2_5_VLForConditionalGeneration, ids: Sequence[int], sizes: Iterable[Grid]) -> Layout:
    grids, image = torch.tensor(list(sizes)), model.config.image_token_id
    counts = iter((grids.prod(dim=1) // model.config.vision_config.spatial_merge_size**2).tolist())
    tokens = torch.tensor([token for one in ids for token in [one] * (next(counts) if one == image else 1)])
    return _positioned(model, tokens, grids)


def _positioned(model: Qwen2_5_VLForConditionalGeneration, tokens: torch.Tensor, grids: torch.Tensor) -> Layout:
    kinds = (tokens == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(tokens[None], kinds[None], image_grid_thw=grids)
    return Layout(tokens.to(model.device), positions[:, 0].T.to(model.device))


def _prompt(
    model: Qwen2_5_VLForConditionalGeneration, layout: Layout, first: torch.Tensor, second: torch.Tensor, number: int
) -> Prompt:
    ids, positions = layout
    embeddings = model.get_input_embeddings()(ids)
    places = (ids == model.config.image_token_id).nonzero().squeeze(1)
    embeddings[places] = torch.cat([first, second]).to(embeddings)
    end = int(places[len(first) - 1]) + 1
    return Prompt(
        number, Part(embeddings[:end], positions[:end]), Part(embeddings[end:], positions[end:]), int(ids[-1])
    )

"""The images of a step, each once, whatever the number of completions that look at them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling


class Shown(NamedTuple):
    """Two images a prompt, one prompt after the other."""

    patches: torch.Tensor  # [patches, values] of all images
    grids: torch.Tensor  # [images, 3]
    features: tuple[torch.Tensor, ...]  # one an image, [tokens, hidden], as the policy saw it when it drew
    is_fixed: bool  # whether they stay as they are: the vision tower is not trained

    def patches_of(self, images: torch.Tensor) -> torch.Tensor:
        """The patches of the images whose numbers are given, one after the other."""
        parts = self.patches.split(self.grids.prod(dim=1).tolist())
        return torch.cat([parts[number] for number in images.tolist()])

    def rows(self, copies: int) -> dict[str, torch.Tensor]:
        """What TRL keeps of the images, ``copies`` rows a prompt: for each patch the number of its image."""
        numbers = torch.arange(len(self.grids), device=self.grids.device).view(-1, 2)
        images = numbers.repeat_interleave(copies, dim=0).flatten()
        grids = self.grids[images]
        return {"pixel_values": images.repeat_interleave(grids.prod(dim=1)), "image_grid_thw": grids}


class Told:
    """Stands in for the processor, by which TRL would have the images of each row cut into patches once more."""

    def __init__(self, processor: object, tell: Callable[[], dict[str, torch.Tensor]]) -> None:
        self._processor, self._tell = processor, tell

    def __getattr__(self, name: str) -> object:
        return getattr(self._processor, name)

    def __call__(self, **_: object) -> dict[str, torch.Tensor]:
        return self._tell()


def show(model: Qwen2_5_VLForConditionalGeneration, patches: torch.Tensor, grids: torch.Tensor) -> Shown:
    """Encode the images of a step."""
    features = model.get_image_features(patches, grids).pooler_output
    is_fixed = not any(weight.requires_grad for weight in model.model.visual.parameters())
    return Shown(patches, grids, features, is_fixed)


@contextmanager
def encoded(model: Qwen2_5_VLForConditionalGeneration, shown: Shown, images: torch.Tensor) -> Iterator[None]:
    """Within, the model does not encode the ``images`` that it is given where their features are known already."""
    known = BaseModelOutputWithPooling(pooler_output=tuple(shown.features[number] for number in images.tolist()))
    if shown.is_fixed:
        model.model.get_image_features = lambda *_, **__: known
    try:
        yield
    finally:
        vars(model.model).pop("get_image_features", None)

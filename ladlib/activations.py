"""Bytes of activations a token, derived from what the layers of transformers keep and make on the way.

With h and i the widths of a decoder layer and v that of the tower: the decoder's residual stream is float32 where
weights are (token embeddings are not autocast), the tower's is bfloat16 always. Attention is fused and keeps no
matrix of tokens by tokens. A decoder layer of float32 weights keeps 4 float32 and 9 bfloat16 tensors of width h
(norms; the inputs of each linear layer, cast one by one; queries, keys and values) and 4 of width i; with adapters,
the norms are cast, inputs of frozen layers are not kept and those of adapters are.
Tests hold each number against those layers at the 3B's widths, within 3 %.
"""

from dataclasses import dataclass

from ladlib.config import Profile
from ladlib.sizes import Sizes

FLOAT32, BFLOAT16 = 4, 2  # bytes


@dataclass(frozen=True)
class Rates:
    """Bytes a token, and bytes a patch of the vision tower."""

    boundary: float  # a layer's input, kept for the backward pass
    forward: float  # most that a forward pass without gradients holds: embeddings, stream, norm, three of width i
    backward: float  # one layer recomputed, with the gradients on its way back
    vision_boundary: float
    vision_forward: float  # most in the rotary embedding, which is float32
    vision_input: float  # the patches cast to bfloat16 weights' dtype, held until the tower's pass ends
    vision_backward: float
    projector: float  # kept from its forward to its backward pass


def rates(profile: Profile, sizes: Sizes) -> Rates:
    """The rates of training: all of the model from float32 weights, or adapters on a bfloat16 one."""
    h, i, v = sizes.hidden, sizes.intermediate, sizes.vision_hidden
    cast = BFLOAT16 * sizes.patch_values
    if profile.model.lora:
        return Rates(2 * h, 12 * h + 8 * i, 38 * h + 14 * i, 2 * v, 34.5 * v, cast, 57 * v, 10 * v)
    return Rates(4 * h, 16 * h + 6 * i, 38 * h + 12 * i, 2 * v, 36.5 * v, 0, 69 * v, 16 * v)


def inference_rates(sizes: Sizes) -> Rates:
    """The rates of a bfloat16 model that only answers."""
    h, i, v = sizes.hidden, sizes.intermediate, sizes.vision_hidden
    return Rates(0, 8 * h + 6 * i, 0, 0, 34.5 * v, BFLOAT16 * sizes.patch_values, 0, 0)

"""Greedy answers to a batch of pairs, where nothing is computed twice.

    completions = answer(model, processor, images, max_new_tokens=160)

What plain ``generate`` computes again and again is computed once (``=``), kept, and looked at (``.``) by what
follows. Three test images beside two reference images, and one answer that ends early::

    system, reference A   ====  test 1, question  ====  answer  ====
    system, reference A   ....  test 2, question  ====  answer  ==         its place is free for the others
    system, reference B   ====  test 3, question  ====  answer  =====

- an image is packed and encoded once, however many pairs show it (:mod:`ladlib.decoding.prompt`);
- the prompt up to the end of the reference image is read once for all pairs beside it: it comes first;
- of a prompt's tokens only the last one's output is read, so the last layer makes no more than keys and values of the
  others;
- keys and values are written into memory set aside once, and a row that has ended leaves the batch
  (:mod:`ladlib.decoding.cache`);
- P(yes) is read from the same keys and values: two tokens more, not the whole text again
  (:mod:`ladlib.decoding.rows`).

A token's position is its place in its own prompt, the three numbers of Qwen2.5-VL's M-RoPE; the slot in which its
key lies does not matter. So rows of unequal length are padded on the left of each part, and a mask of
``[rows, slots]`` hides the padding.

Texts are those of one pair at a time, and so are numbers but for their last digits: sums in another order.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from ladlib import prompts
from ladlib.decoding.prompt import lay_out
from ladlib.decoding.rows import begin
from ladlib.models import PairProcessor
from ladlib.records import Completion


@torch.inference_mode()
def answer(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, images: Sequence[Sequence[Image.Image]],
    max_new_tokens: int, question: str = prompts.QUESTION,
) -> list[Completion]:  # fmt: skip
    """Greedy answers to a batch of (reference image, test image), already resized, in the order given."""
    laid_out = lay_out(model, processor, images, question)
    rows = begin(model, laid_out, max_new_tokens)
    found = {}
    for ended, tokens in rows.write(max_new_tokens):
        found |= rows.completions(processor.tokenizer, ended, tokens)
    return [found[number] for number in range(len(images))]

"""Answers to a batch of pairs where nothing is computed twice; texts as from plain ``generate``, one pair at a time.

Computed (``=``) and read from the cache (``.``), for three test images, two of them with the same reference image::

    system, reference A   ====  test 1, question  ====  answer  ====
    system, reference A   ....  test 2, question  ====  answer  ==         its row leaves the batch
    system, reference B   ====  test 3, question  ====  answer  =====

Positions are those of a pair's own prompt, whatever the slot of the cache; rows of unequal length are padded on the
left of each part, and a mask ``[rows, slots]`` hides the padding. Sums in another order change the last digits.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import NamedTuple

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from ladlib.generate import beginnings, shares_of_yes, up_to_answer, up_to_stop
from ladlib.models import PairProcessor, decode
from ladlib.prompts import QUESTION, prompt_text
from ladlib.records import Completion

ENDED = 0.25  # of the rows: to remove some is to copy the others
LOOK = {"cpu": 1, "cuda": 8}  # tokens between two checks for rows that have ended: a GPU waits for each
Model = Qwen2_5_VLForConditionalGeneration
Part = tuple[torch.Tensor, torch.Tensor]  # embeddings [tokens, hidden] with images' features, and positions [tokens, 3]


class Prompt(NamedTuple):
    """A pair's prompt in two parts."""

    first: int  # number of the first image
    before: Part  # up to the end of the first image
    after: Part
    last: int  # the token it ends with
    length: int


@torch.inference_mode()
def answer(
    model: Model, processor: PairProcessor, images: Sequence[Sequence[Image.Image]], max_new_tokens: int,
    question: str = QUESTION,
) -> list[Completion]:  # fmt: skip
    """Greedy answers to a batch of (reference image, test image), already resized, in the order given."""
    rows = begin(model, lay_out(model, processor, images, question), max_new_tokens)
    completions = {}
    for ended, tokens in rows.write(max_new_tokens):
        completions |= rows.completions(processor.tokenizer, ended, tokens)
    return [completions[number] for number in range(len(images))]


# Prompts


def lay_out(
    model: Model, processor: PairProcessor, pairs: Sequence[Sequence[Image.Image]], question: str
) -> list[Prompt]:
    """The prompt of each of ``pairs``; each image is packed and encoded once."""
    images, numbers = distinct(pairs)
    packed = processor.image_processor(images=images, return_tensors="pt").to(model.device)
    features = model.get_image_features(packed["pixel_values"], packed["image_grid_thw"]).pooler_output
    text, rows = processor.tokenizer(prompt_text(processor, question, images=2))["input_ids"], []
    for pair in numbers:
        counts = iter([len(features[number]) for number in pair])
        repeats = [next(counts) if token == processor.image_token_id else 1 for token in text]
        rows.append([token for token, count in zip(text, repeats, strict=True) for _ in range(count)])
    return make_prompts(model, rows, numbers, features, packed["image_grid_thw"])


def make_prompts(
    model: Model, rows: Sequence[Sequence[int]], numbers: Sequence[Sequence[int]], features: Sequence[torch.Tensor],
    grids: torch.Tensor,
) -> list[Prompt]:  # fmt: skip
    """A prompt for each of ``rows``, its tokens (one for each feature), and the ``numbers`` of its two images."""
    prompts = []
    for row, pair in zip(rows, numbers, strict=True):
        ids, images = torch.tensor(row), [features[number] for number in pair]
        is_image = ids == model.config.image_token_id
        positions, _ = model.model.get_rope_index(ids[None], is_image[None].int(), image_grid_thw=grids[pair].cpu())
        positions, embeddings = positions[:, 0].T.to(model.device), model.get_input_embeddings()(ids.to(model.device))
        slots = is_image.nonzero().squeeze(1)
        embeddings[slots] = torch.cat(images).to(embeddings)
        end = int(slots[len(images[0]) - 1]) + 1
        before, after = (embeddings[:end], positions[:end]), (embeddings[end:], positions[end:])
        prompts.append(Prompt(pair[0], before, after, row[-1], len(row)))
    return prompts


def distinct(pairs: Iterable[Sequence[Image.Image]]) -> tuple[list[Image.Image], list[list[int]]]:
    """The images of ``pairs`` that differ, in the order they come, and for each pair the indices of its own."""
    keys = [[(image.size, image.tobytes()) for image in pair] for pair in pairs]
    images = dict(zip(chain(*keys), chain(*pairs), strict=True))
    index = {key: number for number, key in enumerate(images)}
    return list(images.values()), [[index[key] for key in pair] for pair in keys]


# Keys and values


class Layer(DynamicLayer):
    """One layer's keys and values, ``[rows, heads, slots, size]`` each, with memory for ``room`` more slots.

    A :class:`DynamicLayer` copies all of them at every token.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        rows, heads, slots, size = keys.shape
        self._memory = [keys.new_empty(rows, heads, slots + room, size) for _ in range(2)]
        self._put(keys, values, 0)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> tuple:
        """All slots, the new ones appended."""
        self._put(key_states, value_states, self.get_seq_length())
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows ``indices``, which ascend."""
        self._put(self.keys[indices], self.values[indices], 0)

    def _put(self, keys: torch.Tensor, values: torch.Tensor, start: int) -> None:
        end = start + keys.shape[-2]
        for memory, new in zip(self._memory, (keys, values), strict=True):
            memory[: len(new), :, start:end] = new
        self.keys, self.values = (memory[: len(keys), :, :end] for memory in self._memory)


def with_room(cache: Cache, rows: torch.Tensor, room: int) -> Cache:
    """A copy of ``rows`` with memory for ``room`` more slots."""
    return Cache(layers=[Layer(layer.keys[rows], layer.values[rows], room) for layer in cache.layers])


def forward(model: Model, mask: torch.Tensor | None, positions: torch.Tensor, cache: Cache, **tokens) -> torch.Tensor:
    """``[rows, tokens, vocabulary]`` logits of tokens at ``positions``, ``[3, rows, tokens]``, added to ``cache``."""
    return model(attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, **tokens).logits


def padded(rows: Iterable[torch.Tensor]) -> torch.Tensor:
    """The rows as one tensor, padded with zeros on the left."""
    return pad_sequence(list(rows), batch_first=True, padding_side="left")


# Decoding


@dataclass
class Rows:
    """The batch during decoding; a row is removed once its answer has ended."""

    model: Model
    prompts: Sequence[Prompt]
    numbers: torch.Tensor  # [rows] as the batch began; without copies those of the prompts
    mask: torch.Tensor  # [rows, slots] of the prompts: False where padded
    last: torch.Tensor  # [rows], the position of the prompt's last token
    cache: Cache
    logits: torch.Tensor  # [rows, vocabulary], for the next token
    written: torch.Tensor  # [rows, tokens]

    def write(
        self, most: int, choose: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits.argmax(dim=1)
    ) -> Iterator[tuple[torch.Tensor, list[list[int]]]]:
        """Decode at most ``most`` tokens with ``choose``, from logits ``[rows, vocabulary]`` to tokens ``[rows]``.

        Yields the indices of rows that have ended, before they are removed, and their tokens up to the end of turn.
        """
        config, ended = self.model.generation_config, torch.zeros_like(self.numbers, dtype=torch.bool)
        stops, banned = (torch.tensor(ids).to(ended.device) for ids in (config.eos_token_id, config.suppress_tokens))
        is_padded = not self.mask.all()  # else no mask is needed; to check at every token would wait for the device
        while len(self.numbers):
            chosen = choose(self.logits.index_fill(1, banned, -torch.inf))
            self.written = torch.cat([self.written, chosen[:, None]], dim=1)
            ended |= torch.isin(chosen, stops)
            steps = self.written.shape[1]
            if steps == most or (steps % LOOK[ended.device.type] == 0 and ended.float().mean() >= ENDED):
                leaving = ended | (steps == most)
                rows = leaving.nonzero().squeeze(1)
                yield rows, [up_to_stop(row, stops.tolist()) for row in self.written[rows].tolist()]
                staying = (~leaving).nonzero().squeeze(1)
                for layer in self.cache.layers:
                    layer.batch_select_indices(staying)
                self.numbers, self.mask, self.last = self.numbers[staying], self.mask[staying], self.last[staying]
                self.written, ended, is_padded = self.written[staying], ended[staying], not self.mask.all()
            if len(self.numbers):
                mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), steps)], dim=1) if is_padded else None
                positions = (self.last + steps)[None, :, None].expand(3, -1, 1)
                self.logits = forward(self.model, mask, positions, self.cache, input_ids=self.written[:, -1:])[:, 0]

    def completions(
        self, tokenizer: PreTrainedTokenizerBase, rows: torch.Tensor, tokens: Sequence[list[int]]
    ) -> Iterator[tuple[int, Completion]]:
        """The number of each row's prompt and its completion, with P(yes) as in :mod:`ladlib.generate`."""
        numbers = self.numbers[rows].tolist()
        lasts = [self.prompts[number].last for number in numbers]
        again = [read_again(tokenizer, last, row) for last, row in zip(lasts, tokens, strict=True)]
        held = torch.tensor([[count] for count, _ in again], device=rows.device)
        tails = [torch.tensor(tail, device=rows.device) for _, tail in again]
        ids, seen = padded(tails), padded(torch.ones_like(tail, dtype=torch.bool) for tail in tails)
        slots = torch.arange(self.cache.get_seq_length() - self.mask.shape[1] + 1, device=rows.device)
        mask = torch.cat([self.mask[rows, :-1], slots < held, seen], dim=1)
        positions = (self.last[rows, None] + held + seen.cumsum(dim=1) - 1)[None].expand(3, -1, -1)
        cache = with_room(self.cache, rows, ids.shape[1])
        logits = forward(self.model, mask, positions, cache, input_ids=ids, logits_to_keep=2)
        shares = shares_of_yes(logits, ids[:, -1], beginnings(tokenizer)).tolist()
        for number, row, p_yes in zip(numbers, tokens, shares, strict=True):
            text, finish = decode(tokenizer, row)
            yield number, Completion(text, finish, p_yes, self.prompts[number].length, len(row))


def begin(model: Model, prompts: Sequence[Prompt], room: int, copies: int = 1) -> Rows:
    """The batch after prefilling ``copies`` of each prompt, one after the other."""
    before = {prompt.first: prompt.before for prompt in prompts}
    order = {first: row for row, first in enumerate(before)}
    shared, nothing = DynamicCache(), torch.ones(len(before), 0, dtype=torch.bool, device=model.device)
    _, mask = _read(model, list(before.values()), nothing, shared)
    rows = torch.tensor([order[prompt.first] for prompt in prompts], device=model.device)
    cache = with_room(shared, rows, max(len(prompt.after[1]) for prompt in prompts))
    logits, mask = _read(model, [prompt.after for prompt in prompts], mask[rows], cache)
    last = torch.stack([prompt.after[1][-1, 0] for prompt in prompts])
    every = torch.arange(len(prompts), device=model.device).repeat_interleave(copies)
    numbers, nothing = torch.arange(len(every), device=model.device), every.new_empty(len(every), 0)
    return Rows(
        model, prompts, numbers, mask[every], last[every], with_room(cache, every, room), logits[every], nothing
    )


def _read(model: Model, parts: Sequence[Part], mask: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a part to each row of ``cache``: the logits of its last token, and ``mask`` with the new slots."""
    embeddings, positions = (padded(column) for column in zip(*parts, strict=True))
    seen = padded(torch.ones_like(positions[:, 0], dtype=torch.bool) for _, positions in parts)
    mask = torch.cat([mask, seen], dim=1)
    logits = forward(model, mask, positions.permute(2, 0, 1), cache, inputs_embeds=embeddings, logits_to_keep=1)
    return logits[:, -1], mask


def read_again(tokenizer: PreTrainedTokenizerBase, last: int, row: Sequence[int]) -> tuple[int, list[int]]:
    """How many tokens of ``last``, the prompt's, and ``row`` stay in the cache, and those that are read after them.

    P(yes) needs two positions' logits, so two tokens are read, or more where ``<answer>`` is missing or the word is
    joined to it.
    """
    written, wanted = [last, *row], [last, *up_to_answer(tokenizer, list(row))]
    alike = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(written, wanted, strict=False)))
    held = min(alike, len(wanted) - 2, len(written) - 1)
    return held, wanted[held:]

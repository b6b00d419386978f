"""Answers to a batch of pairs where nothing is computed twice; texts as from plain ``generate``, one pair at a time.

What ``generate`` computes again and again is computed once (``=``), kept, and looked at (``.``) by what follows. Three
test images beside two reference images, and one answer that ends early::

    system, reference A   ====  test 1, question  ====  answer  ====
    system, reference A   ....  test 2, question  ====  answer  ==         its row is free for the others
    system, reference B   ====  test 3, question  ====  answer  =====

Each image is encoded once, the prompt up to the end of the reference image is read once for all pairs beside it, keys
and values are written into memory set aside once, and P(yes) is read from the keys and values that are there.

A token's position is its index in its own prompt, the three numbers of Qwen2.5-VL's M-RoPE; the slot in which its key
lies does not matter. So rows of unequal length are padded on the left of each part, and a mask of ``[rows, slots]``
hides the padding. Numbers equal those of one pair at a time but for their last digits: sums in another order.
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

ENDED = 0.25  # of the rows: to let some go is to copy the others, so it is not done for each by itself
LOOK = {"cpu": 1, "cuda": 8}  # tokens from one look at which rows have ended to the next: a GPU waits for it
Model = Qwen2_5_VLForConditionalGeneration


Part = tuple[torch.Tensor, torch.Tensor]  # embeddings [tokens, hidden] with images' features, and positions [tokens, 3]


class Prompt(NamedTuple):
    """A pair's prompt in two parts."""

    first: int  # index of its first image among the batch's
    before: Part  # up to the end of the first image: the same for all pairs with that image
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
    """The prompt of each of ``pairs``, on the model's device; each image is packed and encoded once."""
    images, numbers = distinct(pairs)
    packed = processor.image_processor(images=images, return_tensors="pt").to(model.device)
    grids = packed["image_grid_thw"]
    features = model.get_image_features(packed["pixel_values"], grids).pooler_output
    text, image = processor.tokenizer(prompt_text(processor, question, images=2))["input_ids"], processor.image_token_id
    layouts, prompts = {}, []
    for pair in numbers:
        sizes = tuple(map(tuple, grids[pair].tolist()))
        if sizes not in layouts:  # that of all pairs with images of these sizes
            counts = iter([len(features[number]) for number in pair])
            tokens = [token for one in text for token in [one] * (next(counts) if one == image else 1)]
            layouts[sizes] = _positioned(model, tokens, grids[pair])
        prompts.append(_prompt(model, *layouts[sizes], [features[number] for number in pair], pair[0]))
    return prompts


def lay_out_tokens(
    model: Model, ids: Sequence[Sequence[int]], features: Sequence[torch.Tensor], grids: torch.Tensor
) -> list[Prompt]:
    """The prompts with the tokens ``ids``, image tokens repeated, and ``features`` and ``grids`` of two images each."""
    images = [slice(2 * number, 2 * number + 2) for number in range(len(ids))]
    return [
        _prompt(model, *_positioned(model, row, grids[two]), features[two], number)
        for number, (row, two) in enumerate(zip(ids, images, strict=True))
    ]


def distinct(pairs: Iterable[Sequence[Image.Image]]) -> tuple[list[Image.Image], list[list[int]]]:
    """The images of ``pairs`` that differ, in the order they come, and for each pair the indices of its own."""
    keys = [[(image.size, image.tobytes()) for image in pair] for pair in pairs]
    images = dict(zip(chain(*keys), chain(*pairs), strict=True))
    index = {key: number for number, key in enumerate(images)}
    return list(images.values()), [[index[key] for key in pair] for pair in keys]


def _positioned(model: Model, tokens: Sequence[int], grids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens and their positions, ``[tokens, 3]``."""
    ids = torch.tensor(tokens)
    kinds = (ids == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(ids[None], kinds[None], image_grid_thw=grids.cpu())
    return ids.to(model.device), positions[:, 0].T.to(model.device)


def _prompt(
    model: Model, ids: torch.Tensor, positions: torch.Tensor, features: Sequence[torch.Tensor], first: int
) -> Prompt:
    embeddings = model.get_input_embeddings()(ids)
    slots = (ids == model.config.image_token_id).nonzero().squeeze(1)
    embeddings[slots] = torch.cat(list(features)).to(embeddings)
    end = int(slots[len(features[0]) - 1]) + 1
    before, after = (embeddings[:end], positions[:end]), (embeddings[end:], positions[end:])
    return Prompt(first, before, after, int(ids[-1]), len(ids))


# Keys and values


class Layer(DynamicLayer):
    """One layer's keys and values, each ``[rows, heads, slots, size]``, with ``room`` for so many slots more.

    A :class:`DynamicLayer` copies all that it holds at every token; here a token goes into its slot.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        rows, heads, slots, size = keys.shape
        self._memory = [keys.new_empty(rows, heads, slots + room, size) for _ in range(2)]
        self._put(keys, values, 0)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> tuple:
        """Append the new slots; all that are filled."""
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
    """A copy of ``rows``, each as often as it is named, that can take ``room`` slots more."""
    return Cache(layers=[Layer(layer.keys[rows], layer.values[rows], room) for layer in cache.layers])


def forward(
    model: Model, mask: torch.Tensor | None, positions: torch.Tensor, cache: Cache, last: int = 1,
    **tokens: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """``[rows, last, vocabulary]`` logits of tokens at ``positions``, ``[3, rows, tokens]``, that go into ``cache``."""
    return model(
        attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=last,
        **tokens,
    ).logits  # fmt: skip


def padded(rows: Iterable[torch.Tensor]) -> torch.Tensor:
    """The rows side by side, each with zeros on its left: a token follows its prompt without a gap."""
    return pad_sequence(list(rows), batch_first=True, padding_side="left")


# Writing


@dataclass
class Rows:
    """Answers being written; every tensor has a row for each, which is gone once it has ended."""

    model: Model
    prompts: Sequence[Prompt]  # of the whole batch
    numbers: torch.Tensor  # [rows], which of ``prompts``
    mask: torch.Tensor  # [rows, slots] of the prompts: False where padded
    last: torch.Tensor  # [rows], the position of the prompt's last token
    cache: Cache
    logits: torch.Tensor  # [rows, vocabulary], for the next token
    written: torch.Tensor  # [rows, tokens]

    def write(
        self, most: int, choose: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits.argmax(dim=1)
    ) -> Iterator[tuple[torch.Tensor, list[list[int]]]]:
        """Write every answer to its end, at most ``most`` tokens, ``[rows]`` of which ``choose`` makes of logits.

        Gives the rows that have ended, while they are still here, and the tokens of each, up to its end of turn.
        """
        config, ended = self.model.generation_config, torch.zeros_like(self.numbers, dtype=torch.bool)
        stops, banned = (torch.tensor(ids).to(ended.device) for ids in (config.eos_token_id, config.suppress_tokens))
        is_padded = not self.mask.all()  # else there is nothing to mask, and to look for it would wait for the device
        while len(self.numbers):
            chosen = choose(self.logits.index_fill(1, banned, -torch.inf))
            self.written = torch.cat([self.written, chosen[:, None]], dim=1)
            ended |= torch.isin(chosen, stops)
            steps = self.written.shape[1]
            if steps == most or (steps % LOOK[ended.device.type] == 0 and ended.float().mean() >= ENDED):
                leaving = ended | (steps == most)
                rows = leaving.nonzero().squeeze(1)
                yield rows, [up_to_stop(row, stops.tolist()) for row in self.written[rows].tolist()]
                self._keep((~leaving).nonzero().squeeze(1))
                ended, is_padded = ended[~leaving], not self.mask.all()
            if len(self.numbers):
                mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), steps)], dim=1) if is_padded else None
                positions = (self.last + steps)[None, :, None].expand(3, -1, 1)
                self.logits = forward(self.model, mask, positions, self.cache, input_ids=self.written[:, -1:])[:, -1]

    def _keep(self, rows: torch.Tensor) -> None:
        for layer in self.cache.layers:
            layer.batch_select_indices(rows)
        self.numbers, self.mask, self.last = self.numbers[rows], self.mask[rows], self.last[rows]
        self.written = self.written[rows]

    def completions(
        self, tokenizer: PreTrainedTokenizerBase, rows: torch.Tensor, tokens: Sequence[list[int]]
    ) -> Iterator[tuple[int, Completion]]:
        """The numbers of the prompts of ``rows`` and what was written to them, with P(yes) as in generate.py."""
        numbers = self.numbers[rows].tolist()
        again = [
            read_again(tokenizer, self.prompts[number].last, row) for number, row in zip(numbers, tokens, strict=True)
        ]
        held = torch.tensor([[count] for count, _ in again], device=rows.device)
        tails = [torch.tensor(tail, device=rows.device) for _, tail in again]
        ids, seen = padded(tails), padded(torch.ones_like(tail, dtype=torch.bool) for tail in tails)
        slots = torch.arange(self.cache.get_seq_length() - self.mask.shape[1] + 1, device=rows.device)
        mask = torch.cat([self.mask[rows, :-1], slots < held, seen], dim=1)
        positions = (self.last[rows, None] + held + seen.cumsum(dim=1) - 1)[None].expand(3, -1, -1)
        cache = with_room(self.cache, rows, ids.shape[1])
        logits = forward(self.model, mask, positions, cache, last=2, input_ids=ids)
        shares = shares_of_yes(logits, ids[:, -1], beginnings(tokenizer)).tolist()
        for number, row, p_yes in zip(numbers, tokens, shares, strict=True):
            text, finish = decode(tokenizer, row)
            yield number, Completion(text, finish, p_yes, self.prompts[number].length, len(row))


def begin(model: Model, prompts: Sequence[Prompt], room: int, copies: int = 1) -> Rows:
    """Rows that have read the prompts, as many ``copies`` of each, one after the other."""
    before = {prompt.first: prompt.before for prompt in prompts}
    order = {first: row for row, first in enumerate(before)}
    shared, nothing = DynamicCache(), torch.ones(len(before), 0, dtype=torch.bool, device=model.device)
    _, mask = _read(model, list(before.values()), nothing, shared)
    rows = torch.tensor([order[prompt.first] for prompt in prompts], device=model.device)
    slots = max(len(prompt.after[1]) for prompt in prompts)
    cache = with_room(shared, rows, slots if copies > 1 else slots + room)
    logits, mask = _read(model, [prompt.after for prompt in prompts], mask[rows], cache)
    last = torch.stack([prompt.after[1][-1, 0] for prompt in prompts])
    every = torch.arange(len(prompts), device=model.device).repeat_interleave(copies)
    cache = with_room(cache, every, room) if copies > 1 else cache
    numbers = torch.arange(len(every), device=model.device)
    of_rows = [prompt for prompt in prompts for _ in range(copies)]
    return Rows(
        model, of_rows, numbers, mask[every], last[every], cache, logits[every], numbers.new_empty(len(every), 0)
    )


def _read(model: Model, parts: Sequence[Part], mask: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a part a row after what ``cache`` holds: the logits of its last token, and ``mask`` with its slots."""
    embeddings, positions = (padded(column) for column in zip(*parts, strict=True))
    seen = padded(torch.ones_like(positions[:, 0], dtype=torch.bool) for _, positions in parts)
    mask = torch.cat([mask, seen], dim=1)
    return forward(model, mask, positions.permute(2, 0, 1), cache, inputs_embeds=embeddings)[:, -1], mask


def read_again(tokenizer: PreTrainedTokenizerBase, last: int, row: Sequence[int]) -> tuple[int, list[int]]:
    """How many tokens, the prompt's ``last`` and those of ``row``, are held as they are, and what is read after them.

    P(yes) needs the logits of two positions, so these are two tokens where the row has its ``<answer>``: the prompt's
    last among them where it begins with it; more where the tag is missing or has the word joined to it.
    """
    written, wanted = [last, *row], [last, *up_to_answer(tokenizer, list(row))]
    alike = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(written, wanted, strict=False)))
    held = min(alike, len(wanted) - 2, len(written) - 1)
    return held, wanted[held:]

"""The answers of a batch while they are written: a row each, gone once it has ended.

rows = begin(model, prompts, room=160)
for ended, tokens in rows.write(160):
    found = dict(rows.completions(tokenizer, ended, tokens))    # {number of the prompt: its completion}
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration
from transformers.cache_utils import Cache, DynamicCache

from ladlib.decoding.cache import keep, taken, with_room
from ladlib.decoding.prompt import Part, Prompt
from ladlib.generate import beginnings, shares_of_yes, up_to_answer
from ladlib.models import decode
from ladlib.records import Completion

ENDED = 0.25  # of the rows: to let some go is to copy the others, so it is not done for each by itself
LOOK = defaultdict(lambda: 8, cpu=1)  # tokens from one look at which rows have ended to the next: a GPU waits for it


def most_likely(logits: torch.Tensor) -> torch.Tensor:
    """``[rows]``: the first token of the highest of ``[rows, vocabulary]`` logits."""
    return logits.argmax(dim=1)


@dataclass
class Rows:
    """Answers being written; every tensor has a row for each."""

    model: Qwen2_5_VLForConditionalGeneration
    prompts: Sequence[Prompt]  # of the whole batch
    numbers: torch.Tensor  # [rows], which of ``prompts``
    mask: torch.Tensor  # [rows, slots] of the prompts: False where padded
    last: torch.Tensor  # [rows], the position of the prompt's last token
    cache: Cache
    logits: torch.Tensor  # [rows, vocabulary], for the next token
    written: torch.Tensor  # [rows, tokens]
    is_padded: bool = field(init=False)  # else there is nothing to mask, and to look for it would wait for the device

    def __post_init__(self) -> None:
        self.is_padded = not self.mask.all()

    def write(
        self, most: int, choose: Callable[[torch.Tensor], torch.Tensor] = most_likely
    ) -> Iterator[tuple[torch.Tensor, list[list[int]]]]:
        """Write every answer to its end, at most ``most`` tokens; ``choose`` makes them of logits, as most_likely does.

        Gives the rows that have ended, while they are still here, and the tokens of each, up to its end of turn.
        """
        config, ended = self.model.generation_config, torch.zeros_like(self.numbers, dtype=torch.bool)
        stops, banned = (torch.tensor(ids).to(ended.device) for ids in (config.eos_token_id, config.suppress_tokens))
        look = LOOK[ended.device.type]
        while len(self.numbers):
            chosen = choose(self.logits.index_fill(1, banned, -torch.inf))
            self.written = torch.cat([self.written, chosen[:, None]], dim=1)
            ended |= torch.isin(chosen, stops)
            steps = self.written.shape[1]
            if steps == most or (steps % look == 0 and ended.float().mean() >= ENDED):
                leaving = ended | (steps == most)
                rows = leaving.nonzero().squeeze(1)
                yield rows, [up_to_stop(row, stops.tolist()) for row in self.written[rows].tolist()]
                self._keep((~leaving).nonzero().squeeze(1))
                ended = ended[~leaving]
            if len(self.numbers):
                self._read_last()

    def _read_last(self) -> None:
        """Read the last tokens written: the logits of the next."""
        steps = self.written.shape[1]
        mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), steps)], dim=1) if self.is_padded else None
        positions = (self.last + steps)[None, :, None].expand(3, -1, 1)
        self.logits = forward(self.model, mask, positions, self.cache, input_ids=self.written[:, -1:])[:, -1]

    def completions(
        self, tokenizer: PreTrainedTokenizerBase, rows: torch.Tensor, tokens: Sequence[list[int]]
    ) -> Iterator[tuple[int, Completion]]:
        """The numbers of the prompts of ``rows`` and what was written to them."""
        shares = self._p_yes(tokenizer, rows, tokens)
        for number, row, p_yes in zip(self.numbers[rows].tolist(), tokens, shares, strict=True):
            text, finish = decode(tokenizer, row)
            yield number, Completion(text, finish, p_yes, self.prompts[number].tokens, len(row))

    def _p_yes(
        self, tokenizer: PreTrainedTokenizerBase, rows: torch.Tensor, tokens: Sequence[list[int]]
    ) -> list[float]:
        """P(yes) as :mod:`ladlib.generate` has it, from the keys and values of what was written."""
        lasts = [self.prompts[number].last for number in self.numbers[rows].tolist()]
        again = [read_again(tokenizer, last, row) for last, row in zip(lasts, tokens, strict=True)]
        tails = [torch.tensor(tail, device=rows.device) for _, tail in again]
        held = torch.tensor([[count] for count, _ in again], device=rows.device)
        ids, seen = padded(tails), padded([torch.ones_like(tail, dtype=torch.bool) for tail in tails])
        slots = torch.arange(self.cache.get_seq_length() - self.mask.shape[1] + 1, device=rows.device)
        mask = torch.cat([self.mask[rows, :-1], slots < held, seen], dim=1)
        positions = (self.last[rows, None] + held + seen.cumsum(dim=1) - 1)[None].expand(3, -1, -1)
        logits = forward(self.model, mask, positions, taken(self.cache, rows), last=2, input_ids=ids)
        return shares_of_yes(logits, ids[:, -1], beginnings(tokenizer)).tolist()

    def _keep(self, rows: torch.Tensor) -> None:
        keep(self.cache, rows)
        self.numbers, self.mask, self.last = self.numbers[rows], self.mask[rows], self.last[rows]
        self.written, self.is_padded = self.written[rows], not self.mask.all()


def begin(model: Qwen2_5_VLForConditionalGeneration, prompts: Sequence[Prompt], room: int, copies: int = 1) -> Rows:
    """Read the prompts: what comes before the end of the first image once for all that begin with it.

    Each of ``prompts`` has as many rows as ``copies``, one after the other, and was read once for all of them.
    """
    before = {one.first: one.before for one in prompts}
    order = {first: row for row, first in enumerate(before)}
    shared, nothing = DynamicCache(), torch.ones(len(before), 0, dtype=torch.bool, device=model.device)
    _, mask = _read(model, list(before.values()), nothing, shared)
    rows = torch.tensor([order[one.first] for one in prompts], device=model.device)
    slots = max(len(one.after.positions) for one in prompts)
    cache = with_room(shared, rows, slots if copies > 1 else slots + room)
    logits, mask = _read(model, [one.after for one in prompts], mask[rows], cache)
    last = torch.stack([one.after.positions[-1, 0] for one in prompts])
    every = torch.arange(len(prompts), device=model.device).repeat_interleave(copies)
    cache = with_room(cache, every, room) if copies > 1 else cache
    numbers = torch.arange(len(every), device=model.device)
    every_prompt = [one for one in prompts for _ in range(copies)]
    nothing_yet = numbers.new_empty(len(every), 0)
    return Rows(model, every_prompt, numbers, mask[every], last[every], cache, logits[every], nothing_yet)


def _read(
    model: Qwen2_5_VLForConditionalGeneration, parts: Sequence[Part], mask: torch.Tensor, cache: Cache
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a part a row after what ``cache`` holds: the logits of its last token, and ``mask`` with its slots."""
    embeddings, positions = padded([part.embeddings for part in parts]), padded([part.positions for part in parts])
    seen = padded([torch.ones_like(part.positions[:, 0], dtype=torch.bool) for part in parts])
    mask = torch.cat([mask, seen], dim=1)
    with _last_token_alone(model):
        return forward(model, mask, positions.permute(2, 0, 1), cache, inputs_embeds=embeddings)[:, -1], mask


@contextmanager
def _last_token_alone(model: Qwen2_5_VLForConditionalGeneration) -> Iterator[None]:
    """In its last layer the model does for the last token alone what comes after the keys and values.

    What it makes of the others is read by nobody, and wrong: the last one's share is added to each of them.
    """
    layer = model.model.language_model.layers[-1]
    hooks = [
        part.register_forward_pre_hook(lambda _, given: (given[0][:, -1:],))
        for part in (layer.self_attn.o_proj, layer.mlp)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def forward(
    model: Qwen2_5_VLForConditionalGeneration, mask: torch.Tensor | None, positions: torch.Tensor, cache: Cache,
    last: int = 1, **tokens: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """``[rows, last, vocabulary]`` logits of tokens at ``positions``, ``[3, rows, tokens]``, that go into ``cache``."""
    return model(
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last,
        **tokens,
    ).logits


def padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows side by side, each with zeros on its left: a token follows its prompt without a gap."""
    return pad_sequence(rows, batch_first=True, padding_side="left")


def read_again(tokenizer: PreTrainedTokenizerBase, last: int, row: Sequence[int]) -> tuple[int, list[int]]:
    """How many tokens, the prompt's ``last`` and those of ``row``, are held as they are, and what is read after them.

    P(yes) needs the logits of two places, so these are two tokens where the row has its ``<answer>``: the prompt's
    last among them where it begins with it; more where the tag is missing or has the word joined to it.
    """
    written, wanted = [last, *row], [last, *up_to_answer(tokenizer, list(row))]
    alike = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(written, wanted, strict=False)))
    held = min(alike, len(wanted) - 2, len(written) - 1)
    return held, wanted[held:]


def up_to_stop(row: Sequence[int], stops: Sequence[int]) -> list[int]:
    """A row without what was written after its end of turn."""
    end = next((place for place, token in enumerate(row) if token in stops), len(row) - 1)
    return list(row[: end + 1])

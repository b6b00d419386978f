"""Keys and values of rows that leave as they end, in memory that is set aside once."""

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


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


def taken(cache: Cache, rows: torch.Tensor) -> DynamicCache:
    """A copy of ``rows`` that grows by itself."""
    copy = DynamicCache()
    for number, layer in enumerate(cache.layers):
        copy.update(layer.keys[rows], layer.values[rows], number)
    return copy


def keep(cache: Cache, rows: torch.Tensor) -> None:
    """Let go of all but ``rows``, which ascend."""
    for layer in cache.layers:
        layer.batch_select_indices(rows)

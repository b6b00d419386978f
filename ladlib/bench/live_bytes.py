"""How many bytes of tensors are alive, now and at most, counted by storage while torch works."""

import weakref
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operators make; what they need inside themselves is not seen.

    >>> with LiveBytes() as live:
    ...     kept = torch.zeros(256) + 1
    >>> live.now, live.peak
    (1024, 2048)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for storage in storages(output):
            self._add(storage)
        return output

    def known(self, *values: object) -> "LiveBytes":
        """Count ``values`` (tensors, modules), which were there before."""
        for value in values:
            tensors = value.parameters() if isinstance(value, torch.nn.Module) else value
            for storage in storages(list(tensors) if isinstance(tensors, Iterator) else tensors):
                self._add(storage)
        return self

    def reset_peak(self) -> None:
        self.peak = self.now

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def storages(value: object) -> list[torch.UntypedStorage]:
    return [one.untyped_storage() for one in tree_leaves(value) if isinstance(one, torch.Tensor)]

"""How many processes share a stage's work, and work without gradients divided among them, one a device.

def prepare():                       # called once in each process
    model = load()
    return lambda batch: model(batch)

for found in divided(prepare, batches, count=4, ahead=open_images):    # in the order of the batches
    ...
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import zip_longest
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

import torch

from ladlib.config import Parallel
from ladlib.errors import UserError

Item, Found = TypeVar("Item"), TypeVar("Found")


def count_processes(parallel: Parallel) -> int:
    """As many as the profile says; where it says 0, one for each GPU, or one in all."""
    return parallel.processes or max(1, torch.cuda.device_count())


def divided(
    prepare: Callable[[], Callable[[Item], Found]], items: Sequence[Item], count: int, ahead: Callable[[Item], object]
) -> Iterator[Found]:
    """What ``prepare()`` makes of each of ``items``, in their order: in this process, or in ``count`` others.

    Those are started anew, so ``prepare``, ``ahead``, items and what is found must be picklable. An error in one of
    them is raised here; where one was killed, :class:`UserError`. While an item is worked on, ``ahead`` is called,
    beside, with the one that will most likely come next: what it opens lies ready then.
    """
    count = max(1, min(count, len(items)))
    two = [*zip_longest(items, items[count:])]
    if count == 1:
        work = _with_next(prepare(), ahead)
        yield from (work(one) for one in two)
        return
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for place in range(count):
        places.put(place)
    with ProcessPoolExecutor(count, context, _begin, (prepare, places, count, ahead)) as processes:
        try:
            yield from processes.map(_work, two)
        except BrokenProcessPool as error:
            raise UserError(
                f"One of {count} processes ended before its work, perhaps for want of memory.",
                "Lower parallel.processes or evaluate.batch_size and run again; what was done is kept.",
            ) from error


def _with_next(work: Callable[[Item], Found], ahead: Callable) -> Callable[[tuple[Item, Item | None]], Found]:
    """``work`` on the first of two items, while ``ahead`` sees the second, if there is one."""

    def work_and_look(two: tuple[Item, Item | None]) -> Found:
        if two[1] is not None:
            threading.Thread(target=_look, args=(ahead, two[1]), daemon=True).start()
        return work(two[0])

    return work_and_look


def _look(ahead: Callable, item: object) -> None:
    with suppress(Exception):  # it comes again, and is told, when it is this item's turn
        ahead(item)


def _begin(prepare: Callable, places: SimpleQueue, count: int, ahead: Callable) -> None:
    """In one of ``count`` processes: take the device whose turn it is, and get ready."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(places.get() % torch.cuda.device_count())
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    _ready.append(_with_next(prepare(), ahead))


def _work(two: tuple) -> object:
    return _ready[-1](two)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


_ready: list[Callable] = []  # of this process, where it is one that divided has started

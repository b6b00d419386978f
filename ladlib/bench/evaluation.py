"""Evaluation on the same pairs in three ways: ours, plain ``generate`` in padded batches, and one pair at a time.

    bench(load_profile("toy"), Path("data"), repeats=3)

Each way opens the images anew, answers, and reads P(yes): what :func:`ladlib.evaluate.evaluate` does for a batch
but for writing records. Ours opens the images of the next batch meanwhile, and shares what pairs have in common
whatever the profile says, so that it can be measured before a profile turns it on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from ladlib import evaluate, prompts
from ladlib.bench.live_bytes import LiveBytes
from ladlib.bench.timing import alternate, print_result, show
from ladlib.config import Profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair
from ladlib.decoding.prompt import lay_out
from ladlib.generations import Completion, select
from ladlib.models import PairProcessor
from ladlib.processes import divided
from ladlib.records import Pair

OURS, PADDED, ALONE = "shared prefix", "generate, padded batches", "generate, one pair at a time"
FEW = 4  # pairs judged one at a time for their peak memory


@dataclass
class Work:
    """The pairs to judge and the model that judges them, and what it was last seen to do."""

    profile: Profile
    folder: Path  # of the dataset
    batches: list[list[Pair]]
    model: torch.nn.Module
    processor: PairProcessor
    answers: dict[str, list[Completion]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)

    def way(self, name: str) -> Callable[[], None]:
        """A call that judges all pairs in the way ``name``."""
        batches = [[one] for batch in self.batches for one in batch] if name == ALONE else self.batches
        return lambda: self._judge(name, batches)

    def peak(self, name: str) -> float:
        """MiB of tensors alive at most beside the weights while the first batch is judged."""
        batches = [[one] for one in self.batches[0][:FEW]] if name == ALONE else self.batches[:1]
        with LiveBytes().known(self.model) as live:
            weights = live.now
            for batch in batches:
                self._answers(name, batch)
        return (live.peak - weights) / 2**20

    def _judge(self, name: str, batches: Sequence[Sequence[Pair]]) -> None:
        view.cache_clear()
        with self._watched(name):
            judge = partial(self._answers, name)
            found = divided(lambda: judge, batches, 1, self._open) if name == OURS else map(judge, batches)
            self.answers[name] = [*chain.from_iterable(found)]

    def _answers(self, name: str, batch: Sequence[Pair]) -> list[Completion]:
        longest = self.profile.evaluate.max_new_tokens
        images = self._open(batch)
        return evaluate.answer(self.model, self.processor, images, longest, shared_prefix=name == OURS)

    def _open(self, batch: Sequence[Pair]) -> list[list[Image.Image]]:
        return [self.views(one) for one in batch]

    def views(self, one: Pair) -> list[Image.Image]:
        """Reference and test image as the model sees them."""
        band = self.profile.data.min_pixels, self.profile.data.max_pixels
        return [view(self.folder / path, *band) for path in (one.reference, one.test.image)]

    @contextmanager
    def _watched(self, name: str) -> Iterator[None]:
        """Count the tokens that the language model reads, padding included, and the images that are encoded."""
        self.tokens[name] = self.images[name] = 0

        def read(module, args, kwargs) -> None:
            rows, tokens, _ = kwargs["inputs_embeds"].shape
            self.tokens[name] += rows * tokens

        def encoded(module, args, kwargs) -> None:
            self.images[name] += len(kwargs["grid_thw"])

        inner = self.model.model
        hooks = [
            part.register_forward_pre_hook(hook, with_kwargs=True)
            for part, hook in ((inner.language_model, read), (inner.visual, encoded))
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def bench(profile: Profile, data_root: Path | str, repeats: int, model: str = "", batches: int = 0) -> dict:
    """Time the three ways on MVTec LOCO AD below ``data_root``, print a line each and the result, and return it.

    ``batches`` of the evaluation's own, spread evenly over all of them (0 = all). Raises :class:`UserError` for data
    or a model that is not there.
    """
    work = _work(profile, data_root, model, batches)
    ways = {name: work.way(name) for name in (OURS, PADDED, ALONE)}
    peaks = {name: work.peak(name) for name in ways}  # and what a first call sets up is set up
    seconds = alternate(ways, repeats)
    show(seconds, {name: _facts(work, name, peaks[name]) for name in ways})
    result = _result(work, seconds, peaks)
    print_result(result)
    return result


def _work(profile: Profile, data_root: Path | str, model: str, batches: int) -> Work:
    folder = find_dataset(data_root, "mvtec_loco")
    pairs = select(pair(read_dataset(data_root, "mvtec_loco"), profile.data.reference_seed), profile.evaluate.limit)
    size = profile.evaluate.batch_size
    every = evaluate.make_batches(pairs, {one.id for one in pairs}, folder, profile.data, size)
    step = max(1, len(every) // batches) if batches else 1
    return Work(profile, folder, every[::step][: batches or None], *evaluate.load(profile, model))


def _facts(work: Work, name: str, peak: float) -> dict[str, object]:
    return {"tokens read": work.tokens[name], "images encoded": work.images[name], "MiB at most": round(peak)}


def _result(work: Work, seconds: dict[str, list[float]], peaks: dict[str, float]) -> dict:
    middle = {name: median(values) for name, values in seconds.items()}
    return {
        "what": "eval",
        "profile": work.profile.name,
        "ratio": middle[PADDED] / middle[OURS],
        "ratio_one_by_one": middle[ALONE] / middle[OURS],
        "pairs": sum(map(len, work.batches)),
        "batch_size": work.profile.evaluate.batch_size,
        "seconds": seconds,
        "peak_mib": peaks,
        "tokens_read": work.tokens,
        "tokens_needed": needed(work, work.answers[ALONE]),
        "images_encoded": work.images,
        "images_needed": len({path for one in chain(*work.batches) for path in (one.reference, one.test.image)}),
        "apart_from_one_by_one": {name: apart(work.answers[name], work.answers[ALONE]) for name in (OURS, PADDED)},
        "device": str(work.model.device),
        "threads": torch.get_num_threads(),
    }


@torch.inference_mode()
def needed(work: Work, answers: Sequence[Completion]) -> int:
    """The tokens that must be read: each beginning of a prompt once, the rest of it, the answer but for its end."""
    beginnings, rest = {}, 0
    for batch in work.batches:
        images = [work.views(one) for one in batch]
        for one, prompt in zip(batch, lay_out(work.model, work.processor, images, prompts.QUESTION), strict=True):
            beginnings[one.reference] = len(prompt.before.positions)
            rest += len(prompt.after.positions)
    return sum(beginnings.values()) + rest + sum(one.completion_tokens - 1 for one in answers)


def apart(found: Sequence[Completion], expected: Sequence[Completion]) -> dict[str, float]:
    """How many texts differ, and by how much P(yes) does at most where they do not."""
    both = list(zip(found, expected, strict=True))
    same = [abs(one.p_yes - other.p_yes) for one, other in both if one.text == other.text]
    return {"texts": len(both) - len(same), "p_yes": max(same, default=0.0)}

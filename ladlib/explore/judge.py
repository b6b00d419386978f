"""A loaded model that judges pairs of pictures, however they came about: from files, from scenes, with parts greyed.

judge = load_judge(session, str(session.run.checkpoint("sft_grpo", 0)))
judge([(reference, test)])[0].p_yes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from ladlib.config import Profile
from ladlib.data.images import fit
from ladlib.explore.view import note, quoted
from ladlib.generations import Completion
from ladlib.notebook import Session
from ladlib.parsing import parse_answer

if TYPE_CHECKING:  # torch is loaded only where a model answers
    from ladlib.models import PairProcessor

WORDS = {"yes": "anomalous", "no": "good", None: "no answer that can be read"}


@dataclass(frozen=True)
class Judge:
    """A model with its processor, under a profile. Call it with pairs of (reference image, test image)."""

    profile: Profile
    model: object  # a Qwen2_5_VLForConditionalGeneration, as ladlib.evaluate.load gives it
    processor: "PairProcessor"

    def __call__(self, pairs: Sequence[tuple[Image.Image, Image.Image]]) -> list[Completion]:
        """One greedy answer to each pair, in batches of the profile's size; images are resized as everywhere."""
        from ladlib import evaluate

        size, found = self.profile.evaluate.batch_size, []
        for start in range(0, len(pairs), size):
            batch = [[self.seen(image) for image in two] for two in pairs[start : start + size]]
            found += evaluate.answer(self.model, self.processor, batch, self.profile.evaluate.max_new_tokens)
        return found

    def seen(self, image: Image.Image) -> Image.Image:
        """``image`` at the size that the model sees."""
        return fit(image, self.profile.data.min_pixels, self.profile.data.max_pixels)


def load_judge(session: Session, model: str = "") -> Judge:
    """The model (the profile's base where "") ready to judge. Raises :class:`UserError` where it is not there."""
    from ladlib import evaluate

    return Judge(session.profile, *evaluate.load(session.profile, model))


def told(found: Completion) -> str:
    """A verdict with its P(anomalous) and its raw rationale, as HTML."""
    answer = WORDS[parse_answer(found.text)]
    said = f"<p><b>{answer}</b>, P(anomalous) = {found.p_yes:.2f}</p>"
    return (
        said
        + f"<p style='font-family:monospace;white-space:pre-wrap;max-width:40em'>{quoted(found.text)}</p>"
        + (note("It ran out of room before it ended.") if found.finish == "length" else "")
    )

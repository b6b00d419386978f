"""What the two training stages are shown: two-image conversations for SFT, labelled pairs for GRPO. No torch.

    make_conversations(load_profile("toy"), Path("data"), seed=0)[0].answer    # "B. No."

Both come from the *test* images of MVTec AD and VisA, as in the paper, and never from MVTec LOCO AD.
Departures from the paper (section 1 of its summary in the README):

1. The paper's captions and questions were written by Gemini-2.0-Pro-Exp with MMAD's annotations as
   priors, then reviewed by people, and are not published. Here MMAD's own questions and captions are
   used as they are, short and without a chain of thought; ``ladlib data sft`` builds a file on the paper's
   way, which is trained on where ``data.sft_file`` names it.
2. Which anomalies the paper took as logical is unknown; ``ladlib/data/logical.csv`` is the choice here.
3. Good pairs are drawn from the categories of the anomalous ones, in the same numbers where there are
   enough, so that the category does not tell the label.
"""

import hashlib
import random
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from PIL import Image

from ladlib.config import Data, Profile
from ladlib.data import find_dataset, mmad, read_dataset
from ladlib.data.images import fit, open_image
from ladlib.data.mmad import Question
from ladlib.data.pairing import pair
from ladlib.errors import UserError, read_text
from ladlib.records import Conversation, Dataset, Pair
from ladlib.sft_file import read_written, refuse_absent

TRAINING_DATASETS: tuple[Dataset, ...] = ("mvtec_ad", "visa")
LOCO = frozenset({"breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"})
CAPTION = "The first image shows a normal product. Write a caption of the second image."
ABOUT = "The first image shows a normal product. About the second image: {question}"
ASK = ABOUT + "\n{options}"
CAPTION_WORDS = 60  # of MMAD's long descriptions, only the first sentences up to so many words
KNOWLEDGE = {"mvtec_ad": "MVTec", "visa": "VisA"}  # their names in domain_knowledge.json


def training_pairs(root: Path | str, seed: int) -> list[Pair]:
    """Every test image of MVTec AD and VisA below ``root`` with a normal reference image.

    A dataset that is absent or half copied is left out with a warning. Raises :class:`UserError`
    where none is left and where an image is of MVTec LOCO AD, the test set.
    """
    pairs: list[Pair] = []
    for dataset in TRAINING_DATASETS:
        try:
            pairs += pair(read_dataset(root, dataset), seed)
        except UserError as error:
            warnings.warn(f"Training goes on without {dataset}: {error.what}", stacklevel=2)
    if not pairs:
        raise UserError(f"{root} holds no test images of MVTec AD or VisA.", "Training needs one of them.")
    refuse_loco(pairs)
    return pairs


def pairs_to_train_on(profile: Profile, root: Path | str) -> list[Pair]:
    """:func:`training_pairs` without the validation split."""
    pairs = training_pairs(root, profile.data.reference_seed)
    return [one for one in pairs if not is_held_back(one, profile)]


def validation_pairs(profile: Profile, root: Path | str, seed: int) -> list[Pair]:
    """The logical and good pairs that neither stage is trained on, as many of each and of the same categories.

    For choosing steps, rates and weights without looking at the test set; [] where the profile holds none back.
    """
    pairs = training_pairs(root, profile.data.reference_seed)
    held_back = [one for one in pairs if is_held_back(one, profile)]
    return _balanced(held_back, len(held_back), random.Random(f"validation:{seed}"))


def is_held_back(one: Pair, profile: Profile) -> bool:
    """Whether the pair belongs to the validation split: told by the hash of its id alone."""
    digest = hashlib.sha256(f"validation|{one.id}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32 < profile.data.validation_share


def refuse_loco(pairs: Sequence[Pair]) -> None:
    """Raises :class:`UserError` where one of ``pairs`` is of MVTec LOCO AD, which is for testing only."""
    for one in pairs:
        named = {one.test.category, *PurePosixPath(one.test.image).parts, *PurePosixPath(one.reference).parts}
        if one.test.dataset not in TRAINING_DATASETS or named & LOCO:
            raise UserError(f"{one.test.image} is of MVTec LOCO AD, the test set.", "Take it out of the training data.")


def make_conversations(profile: Profile, root: Path | str, seed: int) -> list[Conversation]:
    """At most ``profile.data.sft_samples`` conversations, drawn by ``seed`` from all that can be made.

    They are those of ``profile.data.sft_file`` where it names a file. Otherwise questions come from ``mmad.json``;
    where it is absent, from the folders' names in MMAD's form, with a warning. Captions come from MMAD's ``.txt``
    files, else from ``domain_knowledge.json``.
    """
    rng, file = random.Random(f"sft:{seed}"), profile.data.sft_file
    found = _from_file(Path(file), root) if file else _by_template(profile, root, rng)
    made = [one for one in found if not is_held_back(one.pair, profile)]
    if file and not made:
        raise UserError(f"All of {file} is about images of the validation split.", "Build it with this profile.")
    rng.shuffle(made)
    chosen = made[: profile.data.sft_samples]
    _refuse_special_tokens(chosen)
    return chosen


def _refuse_special_tokens(conversations: Sequence[Conversation]) -> None:
    """An image token in a text stands for an image that is not there, and ends the training in the middle."""
    for one in conversations:
        if "<|" in one.question + one.answer:
            raise UserError(
                f"A conversation about {one.pair.id} holds '<|', which begins a special token.",
                "Take it out of MMAD's annotations, or of the file of conversations.",
            )


def _from_file(file: Path, root: Path | str) -> list[Conversation]:
    rows = read_written(file)
    refuse_loco([one.pair for one in rows])
    refuse_absent(rows, root, file)
    return rows


def _by_template(profile: Profile, root: Path | str, rng: random.Random) -> list[Conversation]:
    pairs = training_pairs(root, profile.data.reference_seed)
    return [*_asked(root, pairs, rng), *_captioned(root, pairs)]


def balanced_pairs(profile: Profile, root: Path | str, seed: int) -> list[Pair]:
    """``profile.data.grpo_pairs`` pairs or as many as there are: logical, good, logical, good, ...

    Raises :class:`UserError` where there is no logical or no good test image.
    """
    pairs = pairs_to_train_on(profile, root)
    for kind in ("logical", "good"):
        if not any(one.test.anomaly == kind for one in pairs):
            raise UserError(f"{root} has no {kind} test image to train on.", "GRPO needs both kinds.")
    return _balanced(pairs, profile.data.grpo_pairs, random.Random(f"grpo:{seed}"))


def _balanced(pairs: Sequence[Pair], most: int, rng: random.Random) -> list[Pair]:
    """At most ``most`` of ``pairs``: logical, good, logical, good, ..."""
    logical = [one for one in pairs if one.test.anomaly == "logical"]
    good = [one for one in pairs if one.test.anomaly == "good"]
    rng.shuffle(logical)
    rng.shuffle(good)
    wanted = min(len(logical), len(good), most // 2)
    return [one for couple in zip(logical[:wanted], _match(logical[:wanted], good), strict=True) for one in couple]


@lru_cache(maxsize=256)  # a group's completions share their images, and many pairs a reference image
def view(path: Path, min_pixels: int, max_pixels: int) -> Image.Image:
    """The image as every stage and every model sees it: opened and resized in one place."""
    return fit(open_image(path), min_pixels, max_pixels)


def pair_images(one: Pair, root: Path | str, data: Data) -> list[Image.Image]:
    """[reference image, test image] as every model sees them."""
    folder = find_dataset(root, one.test.dataset)
    return [view(folder / path, data.min_pixels, data.max_pixels) for path in (one.reference, one.test.image)]


def _match(logical: Sequence[Pair], good: Sequence[Pair]) -> list[Pair]:
    """As many good pairs as logical ones: one of the same category each, while there are any."""
    left = list(good)
    chosen = []
    for anomalous in logical:
        same = (one for one in left if one.test.category == anomalous.test.category)
        chosen.append(next(same, left[0]))
        left.remove(chosen[-1])
    return chosen


def _asked(root: Path | str, pairs: Sequence[Pair], rng: random.Random) -> list[Conversation]:
    if not _has_mmad(root, "mmad.json"):
        warnings.warn(f"{root} holds no mmad.json: questions are made from the names of folders", stacklevel=3)
        return [one for each in pairs for one in _from_labels(each, _defects(pairs, each.test.category), rng)]
    by_image = {(one.test.dataset, one.test.id): one for one in pairs}
    located = [(by_image.get(mmad.locate(one.image) or ("", "")), one) for one in _training_questions(root)]
    absent = sum(pair is None for pair, _ in located)
    if absent:
        warnings.warn(f"{absent} of {len(located)} questions are about images that are not there", stacklevel=3)
    return [_conversation(pair, question) for pair, question in located if pair]


def _training_questions(root: Path | str) -> list[Question]:
    sources = {source for source, dataset in mmad.SOURCES.items() if dataset in TRAINING_DATASETS}
    return [one for one in mmad.read_questions(root) if one.source in sources]


def _conversation(pair: Pair, question: Question) -> Conversation:
    options = {letter: f"{letter}. {text}" for letter, text in question.options.items()}
    asked = ASK.format(question=question.question, options="\n".join(options.values()))
    return Conversation(pair=pair, kind=question.type, question=asked, answer=options[question.answer])


def _from_labels(pair: Pair, defects: Sequence[str], rng: random.Random) -> Iterator[Conversation]:
    """What a folder's name can answer: is there a defect, and which of the category's defects."""
    anomalous = pair.test.label == "yes"
    question = "Is there any defect in the object?"
    yield _multiple_choice(pair, "Anomaly Detection", question, ["Yes.", "No."], 0 if anomalous else 1)
    if anomalous and len(defects) > 1:
        others = rng.sample([one for one in defects if one != pair.test.defect], min(3, len(defects) - 1))
        options = sorted([pair.test.defect, *others])
        question = "What is the type of the defect?"
        yield _multiple_choice(pair, "Defect Classification", question, options, options.index(pair.test.defect))


def _multiple_choice(pair: Pair, kind: str, question: str, options: Sequence[str], right: int) -> Conversation:
    letters = dict(zip("ABCD", options, strict=False))
    asked = Question(image=pair.test.image, question=question, options=letters, answer="ABCD"[right], type=kind)
    return _conversation(pair, asked)


def _defects(pairs: Sequence[Pair], category: str) -> list[str]:
    return sorted({one.test.defect for one in pairs if one.test.category == category} - {""})


def _captioned(root: Path | str, pairs: Sequence[Pair]) -> Iterator[Conversation]:
    knowledge = mmad.read_knowledge(root) if _has_mmad(root, "domain_knowledge.json") else {}
    texts = _captions(root)
    for one in pairs:
        sample = one.test
        about = knowledge.get(KNOWLEDGE[sample.dataset], {}).get(sample.category, {})
        known = about.get(sample.defect or "good") or (about.get("bad") if sample.defect else None)
        caption = texts.get((sample.dataset, sample.id)) or (_shortened(known) if known else "")
        if caption:
            yield Conversation(pair=one, kind="Caption", question=CAPTION, answer=caption)


def _captions(root: Path | str) -> dict[tuple[str, str], str]:
    """MMAD's captions by (dataset, sample id): a ``.txt`` of the image's name beside it."""
    if not _has_mmad(root, ""):
        return {}
    folder = find_dataset(root, "mmad")
    files = {mmad.locate(path.relative_to(folder).as_posix()): path for path in sorted(folder.glob("*/*/*/*/*.txt"))}
    return {key: read_text(path, "Copy it from the release of MMAD.").strip() for key, path in files.items() if key}


def _shortened(text: str) -> str:
    """The title and the first sentences of one of MMAD's descriptions, at least one sentence."""
    title, body = re.fullmatch(r"\s*(?:<(.*?)>)?\s*(?:Description:)?\s*(.*)", text, re.DOTALL).groups()
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(body.split()))
    kept = sentences[:1]
    for sentence in sentences[1:]:
        if len(" ".join([*kept, sentence]).split()) > CAPTION_WORDS:
            break
        kept.append(sentence)
    return f"{title}: {' '.join(kept)}" if title else " ".join(kept)


def _has_mmad(root: Path | str, name: str) -> bool:
    try:
        return (find_dataset(root, "mmad") / name).exists()
    except UserError:
        return False

"""The data of both training stages: two-image conversations for SFT, labelled pairs for GRPO. No torch.

    make_conversations(load_profile("toy"), Path("data"), seed=0)[0].answer    # "B. No."

Both come from the *test* images of MVTec AD and VisA, as in the paper, and never from MVTec LOCO AD. Unlike there:

1. MMAD's own questions and captions are used unchanged, short and without a chain of thought. The paper's were written
   by Gemini-2.0-Pro-Exp with them as priors, and are not published; :mod:`ladlib.sft_writer` builds a file in that way.
2. Which anomalies the paper took as logical is unknown; ``ladlib/data/logical.csv`` is the choice here.
3. Good pairs are of the categories of the anomalous ones, in equal numbers, so that no category reveals the label.
"""

import hashlib
import random
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from ladlib.config import Profile
from ladlib.data import find_dataset, mmad, pairing, read_dataset
from ladlib.data.readers import read_rows
from ladlib.errors import UserError, read_text
from ladlib.records import Conversation, Dataset, Pair, Record
from ladlib.runs import write_text
from ladlib.sanitize import escape_csv

TRAINING_DATASETS: tuple[Dataset, ...] = ("mvtec_ad", "visa")
LOCO = frozenset({"breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"})
CAPTION = "The first image shows a normal product. Write a caption of the second image."
ABOUT = "The first image shows a normal product. About the second image: {question}"
CAPTION_WORDS = 60  # of MMAD's long descriptions, only the first sentences up to so many words


# Pairs


def training_pairs(root: Path | str, seed: int) -> list[Pair]:
    """Every test image of MVTec AD and VisA with a normal reference image; without a dataset that cannot be read.

    Raises :class:`UserError` where none is left and where an image is of MVTec LOCO AD, the test set.
    """
    pairs: list[Pair] = []
    for dataset in TRAINING_DATASETS:
        try:
            pairs += pairing.pair(read_dataset(root, dataset), seed)
        except UserError as error:
            warnings.warn(f"Training continues without {dataset}: {error.what}", stacklevel=2)
    if not pairs:
        raise UserError(f"{root} holds no test images of MVTec AD or VisA.", "Training needs one of them.")
    refuse_loco(pairs)
    return pairs


def pairs_to_train_on(profile: Profile, root: Path | str) -> list[Pair]:
    """:func:`training_pairs` without the validation split."""
    pairs = training_pairs(root, profile.data.reference_seed)
    return [pair for pair in pairs if not in_validation_split(pair, profile)]


def in_validation_split(pair: Pair, profile: Profile) -> bool:
    """Whether neither stage is trained on the pair, by the hash of its id alone: to choose rates and weights on."""
    digest = hashlib.sha256(f"validation|{pair.id}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32 < profile.data.validation_share


def refuse_loco(pairs: Sequence[Pair]) -> None:
    """Raises :class:`UserError` where one of ``pairs`` is of MVTec LOCO AD, which is for testing only."""
    for pair in pairs:
        names = {pair.test.category, *PurePosixPath(pair.test.image).parts, *PurePosixPath(pair.reference).parts}
        if pair.test.dataset not in TRAINING_DATASETS or names & LOCO:
            what = f"{pair.test.image} is of MVTec LOCO AD, the test set."
            raise UserError(what, "Take it out of the training data.")


def balanced_pairs(profile: Profile, root: Path | str, seed: int) -> list[Pair]:
    """``profile.data.grpo_pairs`` pairs or as many as there are: logical, good, logical, good, ..."""
    pairs, rng, chosen = pairs_to_train_on(profile, root), random.Random(f"grpo:{seed}"), []
    logical, good = ([pair for pair in pairs if pair.test.anomaly == kind] for kind in ("logical", "good"))
    for kind, kind_pairs in (("logical", logical), ("good", good)):
        if not kind_pairs:
            raise UserError(f"{root} has no {kind} test image to train on.", "GRPO needs both kinds.")
        rng.shuffle(kind_pairs)
    for anomalous in logical[: min(len(logical), len(good), profile.data.grpo_pairs // 2)]:
        same = (pair for pair in good if pair.test.category == anomalous.test.category)
        normal = next(same, good[0])
        good.remove(normal)
        chosen += [anomalous, normal]
    return chosen


# Conversations


def make_conversations(profile: Profile, root: Path | str, seed: int) -> list[Conversation]:
    """At most ``profile.data.sft_samples`` conversations, chosen by ``seed`` from all that can be made.

    They are those of ``profile.data.sft_file`` where it names a file. Otherwise questions come from MMAD's
    ``mmad.json``, captions from its ``.txt`` files or ``domain_knowledge.json``.
    """
    chosen = _every_conversation(profile, root, seed)[: profile.data.sft_samples]
    for conversation in chosen:
        # An image token in a text stands for an image that is not there, and ends the training in the middle.
        if "<|" in conversation.question + conversation.answer:
            what = f"A conversation about {conversation.pair.id} holds '<|', which begins a special token."
            raise UserError(what, "Take it out of MMAD's annotations, or of the file of conversations.")
    return chosen


def held_out(profile: Profile, root: Path | str, seed: int, per_kind: int) -> list[Conversation]:
    """At most ``per_kind`` template conversations of each type, about images that stage 1 with ``seed`` never sees."""
    trained = {conversation.pair.id for conversation in make_conversations(profile, root, seed)}
    kinds: dict[str, list[Conversation]] = {}
    for conversation in _every_conversation(profile.replace({"data.sft_file": None}), root, seed):
        if conversation.pair.id not in trained:
            kinds.setdefault(conversation.kind, []).append(conversation)
    return [conversation for kind in sorted(kinds) for conversation in kinds[kind][:per_kind]]


def _every_conversation(profile: Profile, root: Path | str, seed: int) -> list[Conversation]:
    """Those not about the validation split, in the order of ``seed``."""
    file, pairs = profile.data.sft_file, training_pairs(root, profile.data.reference_seed)
    conversations = _from_file(Path(file), pairs) if file else [*_questions(root, pairs), *_captions(root, pairs)]
    conversations = [row for row in conversations if not in_validation_split(row.pair, profile)]
    if file and not conversations:
        raise UserError(f"All of {file} is about images of the validation split.", "Build it with this profile.")
    random.Random(f"sft:{seed}").shuffle(conversations)
    return conversations


def _from_file(file: Path, pairs: Sequence[Pair]) -> Iterator[Conversation]:
    by_images = {(pair.test.dataset, pair.test.image, pair.reference): pair for pair in pairs}
    for row in read_sft_file(file):
        pair = by_images.get((row.dataset, row.test, row.reference))
        if pair is None:
            what = f"{file} is about {row.test} with the reference image {row.reference}, which is no training pair."
            raise UserError(what, "Give the datasets that it was built from, or build it again.")
        yield Conversation(pair=pair, kind=row.kind, question=row.question, answer=row.answer)


def _questions(root: Path | str, pairs: Sequence[Pair]) -> list[Conversation]:
    """Without those that contradict their image, or are known mistakes of MMAD."""
    by_image, conversations = {(pair.test.dataset, pair.id): pair for pair in pairs}, []
    rows, absent, doubts = mmad.read_questions(root), 0, Counter()
    unknown = [row.image for row in rows if not row.source]
    asked = [row for row in rows if row.source in TRAINING_DATASETS]
    for row, sample, doubt in mmad.compare(asked, [pair.test for pair in pairs], root):
        if doubt:
            doubts[doubt] += 1
        elif sample:
            pair = by_image[sample.dataset, sample.id]
            options = {letter: f"{letter}. {text}" for letter, text in row.options.items()}
            question = "\n".join([ABOUT.format(question=row.question), *options.values()])
            answer = options[row.answer]
            conversations.append(Conversation(pair=pair, kind=row.type, question=question, answer=answer))
        else:
            absent += 1
    for number, what in (
        (absent, "are about images that are not there"),
        (len(unknown), f"are about no known dataset, such as {unknown[:1]}"),
        (doubts.total(), f"are left out, since they {mmad.named(doubts)}"),
    ):
        if number:
            warnings.warn(f"{number} of {len(asked) + len(unknown)} questions {what}", stacklevel=4)
    if not conversations:
        raise UserError(f"None of MMAD's {len(rows)} questions is about an image that is there.", mmad.HINT)
    return conversations


def _captions(root: Path | str, pairs: Sequence[Pair]) -> Iterator[Conversation]:
    """Captions from the ``.txt`` of an image's name beside it in MMAD, else from what MMAD knows of the defect."""
    folder, texts, left_out = find_dataset(root, "mmad"), {}, 0
    for path in sorted(folder.rglob("*.txt")):
        key = mmad.locate(path.relative_to(folder).as_posix())
        if key and not path.name.startswith("."):
            texts[key] = read_text(path, mmad.HINT).strip()
    knowledge = {mmad.split(name)[0]: about for name, about in mmad.read_knowledge(root).items()}
    for pair in pairs:
        sample = pair.test
        about = knowledge.get(sample.dataset, {}).get(sample.category, {})
        text = "" if mmad.erratum(sample, "Caption", root) else texts.get((sample.dataset, sample.id))
        known = about.get(sample.defect or "good") or section(about.get("bad", ""), sample.defect)
        left_out += not text and not known and "bad" in about
        if caption := text or _shortened(known):
            yield Conversation(pair=pair, kind="Caption", question=CAPTION, answer=caption)
    if left_out:
        warnings.warn(f"{left_out} images have no caption: MMAD has none of their defect alone", stacklevel=4)


def section(text: str, defect: str) -> str:
    """The part of a text about a product's defects whose title names ``defect`` and no second one; "" without one."""
    for title, body in re.findall("<([^<>]*)>([^<]*)", text) if defect else ():
        # Seven letters of each word, so that "scratch" and "scratches" are one.
        words, names = ({word[:7] for word in re.findall(r"\w+", one.lower())} for one in (title, defect))
        if names <= words and not words & {"and", "or"}:
            return f"<{title}>{body}"
    return ""


def _shortened(text: str) -> str:
    """The title and the first sentences of one of MMAD's descriptions, at least one sentence."""
    title, body = re.fullmatch(r"\s*(?:<(.*?)>)?\s*(?:Description:)?\s*(.*)", text, re.DOTALL).groups()
    first, *others = re.split(r"(?<=[.!?])\s+", " ".join(body.split()))
    for sentence in others:
        if len(f"{first} {sentence}".split()) > CAPTION_WORDS:
            break
        first += f" {sentence}"
    return f"{title}: {first}" if title else first


# The file of conversations


class SftRow(Record):
    """A row of the CSV file of conversations, which people review in any spreadsheet."""

    dataset: Dataset
    test: str
    reference: str
    kind: str
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    writer: str  # "template", or the model behind an endpoint
    decision: Literal["", "accept", "edit", "reject"]  # of a person; what is rejected is not trained on


def write_sft_file(file: Path, conversations: Iterable[Conversation], writer: str) -> None:
    """Write a row for each of ``conversations``."""
    import pandas as pd

    cells = [
        (row.pair.test.dataset, row.pair.test.image, row.pair.reference, row.kind, row.question, row.answer, writer, "")
        for row in conversations
    ]
    frame = pd.DataFrame(cells, columns=list(SftRow.model_fields)).map(escape_csv)
    write_text(file, "\ufeff" + frame.to_csv(index=False))  # Excel recognises UTF-8 by the mark


def read_sft_file(file: Path) -> list[SftRow]:
    """The rows of ``file`` that are not rejected, in its order. UserError for a file that is absent or damaged."""
    rows = read_rows(file, SftRow, "Save it as CSV with commas, in UTF-8, or build it again with `ladlib data sft`.")
    accepted = [row.model_copy(update={"answer": _unescaped(row.answer)}) for row in rows if row.decision != "reject"]
    if not accepted:
        raise UserError(f"{file} holds no conversation.", "Build it again with `ladlib data sft`.")
    return accepted


def _unescaped(cell: str) -> str:
    """A text without the apostrophe of :func:`escape_csv`."""
    return cell[1:] if cell.startswith("'") and escape_csv(cell[1:]) == cell else cell

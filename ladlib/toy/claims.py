"""What a rationale says, statement by statement, and whether it is true of the two scenes.

The grammar, on words that any white space divides; ``.`` is a word of its own, and a sentence is one statement:

    rationale = { sentence "." } ;
    sentence  = list | tally | place compared | kind compared ;
    list      = "none" | place what ;
    tally     = [ "kind" ] name ( place | "none" ) number ;              (* counted aloud; none 0 *)
    place compared = place what ( "same" | "then" what ) ;
    kind compared  = [ "kind" ] name ( place place | place "missing" | "extra" place ) ;      (* reference, then test *)
    what      = name | "none" ;
    name      = colour shape [ blemish ] ;
    place     = "a1" ... "h8" ;

All else is unread, also a last sentence without its ".", which may have been cut off.

How statements are judged:

1. Lists and tallies do not say which image they mean: they are held against the test image, which is asked about.
2. A tally ``red disc b3 2 .`` says that the second red disc in reading order lies at b3.
3. A pair ``red disc a2 b1 .`` says: a red disc at a2 in the reference image and one at b1 in the test image. Any
   pairing off is as good as another. ``red disc b3 missing .`` says: a red disc at b3 in the reference image, and
   fewer red discs in the test image; ``extra`` says the like of the test image.
4. Each part has one partner in all the rationale: a place paired off twice must hold two such parts (additional
   pushpins do), two missing need two fewer. So a pair that is repeated is untrue.
5. What is not said is not untrue: a list, a tally and a pairing off need not be complete.
6. A name is meant in full: ``red disc`` is not true of a red disc that is scratched.
7. A statement is true only if all of it is. ``same`` at a place is false where a second part joined the first.
   ``none`` is true only of a place that the picture has.

>>> said, unread = claims("a2 red disc then none . hello .")
>>> said, unread
([ComparedPlace(place='a2', was='red disc', now='none', differs=True)], 1)
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ladlib.toy.alphabet import BLEMISHES, COLOURS, SHAPES
from ladlib.toy.scenes import Scene

NOTHING = "none"


@dataclass(frozen=True)
class Empty:
    """The test image shows no part."""


@dataclass(frozen=True)
class Lies:
    """``what`` (a name or "none") lies at ``place`` in the test image."""

    place: str
    what: str


@dataclass(frozen=True)
class Counted:
    """The part at ``place`` is the ``number``-th called ``name`` in the test image; "none" and 0: there is none."""

    name: str
    place: str
    number: int


@dataclass(frozen=True)
class ComparedPlace:
    """``was`` lies at ``place`` in the reference image and ``now`` in the test image; both are names or "none"."""

    place: str
    was: str
    now: str
    differs: bool  # said "then", not "same"


@dataclass(frozen=True)
class Paired:
    """A part called ``name`` at ``was`` in the reference image is matched by one at ``now`` in the test image.

    "extra" for ``was`` and "missing" for ``now`` say that it has no match. Each side is named for the ``nth``
    time in the rationale.
    """

    name: str
    was: str
    now: str
    was_nth: int = 1
    now_nth: int = 1


Claim = Empty | Lies | Counted | ComparedPlace | Paired

_NAME = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})(?: (?:{'|'.join(BLEMISHES)}))?"
_PLACE = "[a-h][1-8]"
_WORD = re.compile(r"[.]|[^\s.]+")
_AT = re.compile(f"({_PLACE}) ({_NAME}|none)(?: (same)| then ({_NAME}|none))?")
_COUNTED = re.compile(f"(?:kind )?({_NAME}) ({_PLACE}|none) ([0-9]{{1,3}})")
_PAIRED = re.compile(f"(?:kind )?({_NAME}) (?!extra missing)({_PLACE}|extra) ({_PLACE}|missing)")


def claims(text: str) -> tuple[list[Claim], int]:
    """The statements of a rationale (the text inside the think tags) in order, and how many sentences are unread.

    Never raises; takes time linear in the length of ``text``.
    """
    read = [_read(sentence) for sentence in sentences(text)]
    said = [one for one in read if one is not None]
    return list(_paired_off(said)), len(read) - len(said)


def judged(text: str, reference: Scene, test: Scene) -> list[bool | None]:
    """Of each sentence of a rationale in order, whether it is true of the two scenes; None where it is unread."""
    read = [_read(sentence) for sentence in sentences(text)]
    true = (is_true(one, reference, test) for one in _paired_off(one for one in read if one is not None))
    return [None if one is None else next(true) for one in read]


def is_true(claim: Claim, reference: Scene, test: Scene) -> bool:
    """Whether all that ``claim`` says is true of the two scenes."""
    match claim:
        case Empty():
            return not test.parts
        case Lies(place, what):
            return place in test.places() and _lies(test, place, what)
        case Counted():
            return _is_true_count(claim, test)
        case ComparedPlace():
            return _is_true_place(claim, reference, test)
        case Paired():
            return _is_true_pair(claim, reference, test)


def is_comparison(claim: Claim) -> bool:
    """Whether ``claim`` speaks of both images."""
    return isinstance(claim, ComparedPlace | Paired)


def states_difference(claim: Claim) -> bool:
    """Whether ``claim`` says, truly or not, that the two images differ."""
    match claim:
        case ComparedPlace(differs=differs):
            return differs
        case Paired(was=was, now=now):
            return was == "extra" or now == "missing"
    return False


def sentences(text: str) -> Iterator[str]:
    """The sentences of a rationale without their stops, words one space apart.

    One that lacks its stop gets a mark that none has.
    """
    words: list[str] = []
    for word in _WORD.findall(text):
        if word == ".":
            yield " ".join(words)
            words = []
        else:
            words.append(word)
    if words:
        yield "... " + " ".join(words)


def _read(sentence: str) -> Claim | None:
    """The statement of one sentence, None where the grammar does not cover it."""
    if sentence == NOTHING:
        return Empty()
    if found := _AT.fullmatch(sentence):
        place, what, same, then = found.groups()
        return ComparedPlace(place, what, then or what, differs=not same) if same or then else Lies(place, what)
    if found := _COUNTED.fullmatch(sentence):
        name, place, number = found.groups()
        return Counted(name, place, int(number))
    if found := _PAIRED.fullmatch(sentence):
        return Paired(*found.groups())
    return None


def _paired_off(said: Iterable[Claim]) -> Iterator[Claim]:
    """The statements, each side of a pair with how often it has been named by then."""
    old: Counter[tuple[str, str]] = Counter()
    new: Counter[tuple[str, str]] = Counter()
    for one in said:
        if isinstance(one, Paired):
            was, now = (one.name, one.was), (one.name, one.now)
            old[was] += 1
            new[now] += 1
            yield replace(one, was_nth=old[was], now_nth=new[now])
        else:
            yield one


def _there(scene: Scene, place: str) -> Counter[str]:
    """The names of the parts at ``place``."""
    return Counter(part.name for part in scene.parts if part.place == place)


def _lies(scene: Scene, place: str, what: str, nth: int = 1) -> bool:
    there = _there(scene, place)
    return not there if what == NOTHING else there[what] >= nth


def _where(scene: Scene, name: str) -> list[str]:
    """The places of the parts called ``name`` in reading order, which is that of the alphabet."""
    return sorted(part.place for part in scene.parts if part.name == name)


def _is_true_count(claim: Counted, test: Scene) -> bool:
    places = _where(test, claim.name)
    if claim.place == NOTHING:
        return not places and claim.number == 0
    return dict(enumerate(places, 1)).get(claim.number) == claim.place


def _is_true_place(claim: ComparedPlace, reference: Scene, test: Scene) -> bool:
    place = claim.place
    if place not in reference.places() and place not in test.places():
        return False
    differ = _there(reference, place) != _there(test, place)
    return _lies(reference, place, claim.was) and _lies(test, place, claim.now) and differ == claim.differs


def _is_true_pair(claim: Paired, reference: Scene, test: Scene) -> bool:
    more = len(_where(test, claim.name)) - len(_where(reference, claim.name))
    old = more >= claim.was_nth if claim.was == "extra" else _lies(reference, claim.was, claim.name, claim.was_nth)
    new = -more >= claim.now_nth if claim.now == "missing" else _lies(test, claim.now, claim.name, claim.now_nth)
    return old and new

"""The toy language: how a scene, and the comparison of two scenes, is put into words.

Each sentence is short and ends in " .", so that a small model can learn it and a program can check it:

    a2 red disc .                       a part at a place (list)
    kind red disc a2 1 . red disc b3 2 .    the parts of a kind, counted aloud (tally)
    a2 red disc same .                  one place in both images
    b1 none then blue ring .            one place, changed
    kind red disc a2 b1 .               the parts of a kind in both images, paired off one by one
    red disc b3 missing .               ... at b3 in the first image, without a partner in the second
    red disc extra c3 .                 ... at c3 in the second image, without a partner in the first

Pairing off is how numbers are compared before one can count. No sentence depends on one far back. A sentence is a list
of (text, decisive) pieces; decisive pieces carry the judgement. What a rationale says is read statement by statement.
The grammar, on words that any white space divides; ``.`` is a word of its own, and a sentence is one statement:

    rationale = { sentence "." } ;
    sentence  = list | tally | place compared | kind compared ;
    list      = "none" | place what ;
    tally     = [ "kind" ] name ( place | "none" ) number ;              (* counted aloud; none 0 *)
    place compared = place what ( "same" | "then" what ) ;
    kind compared  = [ "kind" ] name ( place place | place "missing" | "extra" place ) ;      (* reference, then test *)
    what      = name | "none" ;    name = colour shape [ blemish ] ;
    place     = "a1" ... "h8" ;

All else is unread, also a last sentence without its ".", which may have been cut off.

How statements are judged:

1. Lists and tallies do not say which image they mean: they are held against the test image, which is asked about.
2. A tally ``red disc b3 2 .`` says that the second red disc in reading order lies at b3.
3. ``red disc a2 b1 .``: a red disc at a2 in the reference image and one at b1 in the test image, in any pairing.
   ``red disc b3 missing .``: a red disc at b3 in the reference image, fewer of them in the test image; or ``extra``.
4. Each part has one partner in all the rationale: a place paired off twice must hold two such parts (additional
   pushpins do), two missing need two fewer. So a pair that is repeated is untrue.
5. What is not said is not untrue. 6. A name is meant in full: ``red disc`` is not true of a scratched red disc.
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
from itertools import zip_longest

from ladlib.toy.parts import BLEMISHES, COLOURS, SHAPES
from ladlib.toy.scenes import Scene

Pieces = list[tuple[str, bool]]
OPENING = (" kind", True)


def list_parts(scene: Scene) -> Pieces:
    """Every part in reading order."""
    return [(f" {place} {part.name} .", False) for place, part in scene.at().items()] or [(" none .", False)]


def tally(scene: Scene) -> Pieces:
    """The parts of every kind counted aloud; kinds in the order in which they come up."""
    pieces = [piece for kind, places in kinds(scene).items() for piece in [OPENING, *count(kind, places)]]
    return pieces or [(" none .", False)]


def count(kind: str, places: list[str]) -> Pieces:
    """The parts of one kind, which lie at ``places``, counted aloud; "none 0" where there is none."""
    numbered = list(enumerate(places, 1)) or [(0, "none")]
    counted = [[(f" {kind} {place}", False), (f" {number}", True), (" .", False)] for number, place in numbered]
    return sum(counted, [])


def kinds(scene: Scene) -> dict[str, list[str]]:
    """The places of the parts of every kind, in reading order."""
    places: dict[str, list[str]] = {}
    for part in sorted(scene.parts, key=lambda part: (part.row, part.col)):
        places.setdefault(part.name, []).append(part.place)
    return places


def name_at(scene: Scene, places: list[str]) -> Pieces:
    """What lies at each of ``places``."""
    at = scene.at()
    return [(f" {place} {at[place].name if place in at else 'none'} .", False) for place in places]


def compare_places(first: Scene, second: Scene, places: list[str] | None = None) -> tuple[Pieces, bool]:
    """The two scenes place by place (all that hold a part in either), and whether they differ."""
    old, new = first.at(), second.at()
    pieces, differ = [], False
    for place in sorted(set(old) | set(new)) if places is None else places:
        was = old[place].name if place in old else "none"
        now = new[place].name if place in new else "none"
        differ |= was != now
        pieces += [(f" {place} {was}", False)]
        pieces += [(" same", True), (" .", False)] if was == now else [(" then", True), (f" {now} .", False)]
    return pieces or [(" none .", False)], differ


def compare_kinds(first: Scene, second: Scene) -> tuple[Pieces, bool]:
    """The two scenes' parts paired off kind by kind, and whether any part is left without a partner."""
    old, new = kinds(first), kinds(second)
    pieces: Pieces = []
    for kind in dict.fromkeys([*old, *new]):
        pieces.append(OPENING)
        for was, now in zip_longest(old.get(kind, []), new.get(kind, [])):
            pieces += [(f" {kind}", False), (f" {was or 'extra'}", True), (f" {now or 'missing'}", True), (" .", False)]
    return pieces or [(" none .", False)], any(text in (" extra", " missing") for text, _ in pieces)


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

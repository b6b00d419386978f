"""The toy language: a scene, or the comparison of two scenes, in words, and which of these statements are true.

Each sentence is short, so that a small model can learn it and a program can check it:
    a2 red disc .                       a part at a place (list)
    kind red disc a2 1 . red disc b3 2 .    the parts of a kind, counted aloud (tally)
    a2 red disc same .                  one place in both images
    b1 none then blue ring .            one place, changed
    kind red disc a2 b1 .               the parts of a kind in both images, paired off one by one
    red disc b3 missing .               ... without a partner in the second image; "extra c3": in the first

Pairing off is how numbers are compared before one can count. The language is written as (text, decisive) pieces;
decisive ones carry the judgement and weigh more in pretraining. The grammar, on words that any white space divides:

    rationale = { sentence "." } ;
    sentence  = list | tally | place compared | kind compared ;
    list      = "none" | place what ;
    tally     = [ "kind" ] name ( place | "none" ) number ;              (* counted aloud; none 0 *)
    place compared = place what ( "same" | "then" what ) ;
    kind compared  = [ "kind" ] name ( place place | place "missing" | "extra" place ) ;      (* reference, then test *)
    what      = name | "none" ;    name = colour shape [ blemish ] ;
    place     = "a1" ... "h8" ;

All else is unread, also a last sentence without its ".", which may have been cut off. What is true:

1. Lists and tallies are about the test image. ``red disc b3 2 .``: its second red disc in reading order lies at b3.
2. ``red disc a2 b1 .``: a red disc at a2 in the reference image and one at b1 in the test image, in any pairing.
   ``red disc b3 missing .``: a red disc at b3 in the reference image, fewer of them in the test image; or ``extra``.
3. Each part has one partner in the whole rationale: a place paired off twice must hold two such parts (additional
   pushpins do), two missing need two fewer. So a pair that is repeated is untrue.
4. All of it must be true; what is left out is not untrue. ``red disc`` is not true of a scratched red disc.
5. ``same`` is false where a second part joined the first; ``none`` is true only of a place that the picture has.

>>> read_statements("a2 red disc then none . hello .")
[ComparedPlace(place='a2', was='red disc', now='none', differs=True), None]
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import zip_longest

from ladlib.toy.parts import BLEMISHES, COLOURS, SHAPES
from ladlib.toy.scenes import Scene

Pieces = list[tuple[str, bool]]
OPENING = (" kind", True)


def list_parts(scene: Scene) -> Pieces:
    """Every part in reading order."""
    return name_at(scene, list(scene.at())) or [(" none .", False)]


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
    layout = Layout(scene)
    return [(f" {place} {layout.what(place)} .", False) for place in places]


def compare_places(first: Scene, second: Scene, places: list[str] | None = None) -> tuple[Pieces, bool]:
    """The two scenes place by place (all that hold a part in either), and whether they differ."""
    places = sorted({*first.at(), *second.at()}) if places is None else places
    old, new, pieces, differ = Layout(first), Layout(second), [], False
    for place in places:
        was, now = old.what(place), new.what(place)
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


class Layout:
    """What lies where in a scene, read once for many statements."""

    def __init__(self, scene: Scene) -> None:
        self.kinds = kinds(scene)
        self.names: dict[str, list[str]] = {place: [] for place in scene.places()}  # by place, each list sorted
        for name in sorted(self.kinds):
            for place in self.kinds[name]:
                self.names[place].append(name)

    def what(self, place: str) -> str:
        """The name of what lies at ``place``, the first where there are two; or "none"."""
        return (self.names.get(place) or ["none"])[0]

    def holds(self, place: str, what: str, times: int = 1) -> bool:
        """Whether ``what``, a name or "none", lies at ``place`` so many times."""
        names = self.names.get(place, [])
        return not names if what == "none" else names.count(what) >= times


@dataclass(frozen=True)
class Empty:
    """The test image shows no part."""

    differs = None  # here and below: whether the images differ according to the statement; None if it compares none

    def is_true(self, reference: Layout, test: Layout) -> bool:
        return not test.kinds


@dataclass(frozen=True)
class PartAt:
    """``what`` (a name or "none") lies at ``place`` in the test image."""

    place: str
    what: str
    differs = None

    def is_true(self, reference: Layout, test: Layout) -> bool:
        return self.place in test.names and test.holds(self.place, self.what)


@dataclass(frozen=True)
class Counted:
    """The part at ``place`` is the ``number``-th called ``name`` in the test image; "none" and 0: there is none."""

    name: str
    place: str
    number: int
    differs = None

    def is_true(self, reference: Layout, test: Layout) -> bool:
        places = test.kinds.get(self.name, [])
        return (self.number, self.place) in (list(enumerate(places, 1)) or [(0, "none")])


@dataclass(frozen=True)
class ComparedPlace:
    """``was`` lies at ``place`` in the reference image and ``now`` in the test image; both are names or "none"."""

    place: str
    was: str
    now: str
    differs: bool  # "then", not "same"

    def is_true(self, reference: Layout, test: Layout) -> bool:
        place = self.place
        before, after = reference.names.get(place), test.names.get(place)
        on_grid = before is not None or after is not None
        holds_both = reference.holds(place, self.was) and test.holds(place, self.now)
        return on_grid and holds_both and self.differs == ((before or []) != (after or []))


@dataclass(frozen=True)
class Paired:
    """A part called ``name`` at ``was`` in the reference image is matched by one at ``now`` in the test image.

    "extra" for ``was`` and "missing" for ``now`` state that it has no match. Each side is named for the ``nth``
    time in the rationale.
    """

    name: str
    was: str
    now: str
    was_nth: int = 1
    now_nth: int = 1

    @property
    def differs(self) -> bool:
        return self.was == "extra" or self.now == "missing"

    def is_true(self, reference: Layout, test: Layout) -> bool:
        more = len(test.kinds.get(self.name, [])) - len(reference.kinds.get(self.name, []))
        old = more >= self.was_nth if self.was == "extra" else reference.holds(self.was, self.name, self.was_nth)
        new = -more >= self.now_nth if self.now == "missing" else test.holds(self.now, self.name, self.now_nth)
        return old and new


Statement = Empty | PartAt | Counted | ComparedPlace | Paired

_NAME = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})(?: (?:{'|'.join(BLEMISHES)}))?"
_PLACE = "[a-h][1-8]"
_AT = re.compile(f"({_PLACE}) ({_NAME}|none)(?: (same)| then ({_NAME}|none))?")
_COUNTED = re.compile(f"(?:kind )?({_NAME}) ({_PLACE}|none) ([0-9]{{1,3}})")
_PAIRED = re.compile(f"(?:kind )?({_NAME}) (?!extra missing)({_PLACE}|extra) ({_PLACE}|missing)")


def check_statements(text: str, reference: Scene, test: Scene) -> list[bool | None]:
    """Of each sentence of a rationale in order, whether it is true of the two scenes; None where it is unread."""
    layouts = Layout(reference), Layout(test)
    return [statement and statement.is_true(*layouts) for statement in read_statements(text)]


def read_statements(text: str) -> list[Statement | None]:
    """The statement of each sentence of a rationale (the text inside the think tags), None where it is unread.

    Never raises; takes time linear in the length of ``text``.
    """
    *sentences, unfinished = text.split(".")
    statements: list[Statement | None] = []
    named: Counter[tuple[str, str, str]] = Counter()  # how often each side of a pair has been named so far
    for sentence in sentences:
        statement = _read(" ".join(sentence.split()))
        if isinstance(statement, Paired):
            was, now = ("reference", statement.name, statement.was), ("test", statement.name, statement.now)
            named.update([was, now])
            statement = replace(statement, was_nth=named[was], now_nth=named[now])
        statements.append(statement)
    return [*statements, None] if unfinished.strip() else statements


def _read(sentence: str) -> Statement | None:
    if sentence == "none":
        return Empty()
    if match := _AT.fullmatch(sentence):
        place, what, same, then = match.groups()
        return ComparedPlace(place, what, then or what, differs=not same) if same or then else PartAt(place, what)
    if match := _COUNTED.fullmatch(sentence):
        name, place, number = match.groups()
        return Counted(name, place, int(number))
    if match := _PAIRED.fullmatch(sentence):
        return Paired(*match.groups())
    return None

"""The toy language: how a scene, and the comparison of two scenes, is put into words.

Each sentence is short and ends in " ." so that a small model can learn it and a program can check it:

    a2 red disc .                       a part at a place (list)
    kind red disc a2 1 . red disc b3 2 .    the parts of a kind, counted aloud (tally)
    a2 red disc same .                  one place in both images
    b1 none then blue ring .            one place, changed
    kind red disc a2 b1 .               the parts of a kind in both images, paired off one by one
    red disc b3 missing .               ... at b3 in the first image, without a partner in the second
    red disc extra c3 .                 ... at c3 in the second image, without a partner in the first

Pairing off is how numbers are compared before one can count: what finds no partner is missing or extra. No
sentence leans on one far back: whatever the next word depends on was said within the last few, or behind the last
"kind", which opens the sentences on each kind and so marks how far one has come.
A sentence is a list of (text, decisive) pieces: decisive pieces carry the judgement.
"""

from itertools import zip_longest

from ladlib.toy.scenes import Scene

Pieces = list[tuple[str, bool]]
OPENING = (" kind", True)


def list_parts(scene: Scene) -> Pieces:
    """Every part in reading order."""
    return [(f" {place} {part.name} .", False) for place, part in scene.at().items()] or [(" none .", False)]


def tally(scene: Scene) -> Pieces:
    """The parts of every kind counted aloud; kinds in the order in which they come up."""
    return [piece for kind, places in kinds(scene).items() for piece in [OPENING, *count(kind, places)]] or [
        (" none .", False)
    ]


def count(kind: str, places: list[str]) -> Pieces:
    """The parts of one kind, which lie at ``places``, counted aloud; "none 0" where there is none."""
    numbered = list(enumerate(places, 1)) or [(0, "none")]
    return [
        piece
        for number, place in numbered
        for piece in [(f" {kind} {place}", False), (f" {number}", True), (" .", False)]
    ]


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

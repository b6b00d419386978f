"""The toy language: how a scene, and the comparison of two scenes, is put into words.

Each sentence is short and ends in " ." so that a small model can learn it and a program can check it:

    a2 red disc .                      a part at a place (list)
    2 red disc .                       a count (tally)
    a2 red disc same .                 one place in both images
    b1 none then blue ring .           one place, changed
    red disc 2 3 different .           one kind counted in both images

A sentence is a list of (text, decisive) pieces: decisive pieces carry the judgement.
"""

from ladlib.toy.scenes import Scene

Pieces = list[tuple[str, bool]]


def list_parts(scene: Scene) -> Pieces:
    """Every part in reading order."""
    return [(f" {place} {part.name} .", False) for place, part in scene.at().items()] or [(" none .", False)]


def tally(scene: Scene) -> Pieces:
    """The count of every kind, kinds in alphabetical order."""
    return [(f" {count} {kind} .", False) for kind, count in scene.counts().items()] or [(" none .", False)]


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
    """The two scenes' counts kind by kind, and whether any differs."""
    old, new = first.counts(), second.counts()
    pieces, differ = [], False
    for kind in sorted(set(old) | set(new)):
        was, now = old.get(kind, 0), new.get(kind, 0)
        differ |= was != now
        pieces += [(f" {kind} {was} {now}", False), (" same" if was == now else " different", True), (" .", False)]
    return pieces or [(" none .", False)], differ

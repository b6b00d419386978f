"""The lessons of pretraining: describe, count, compare, and answer in a given format.

General skills on general scenes. Never asked here: whether a product is anomalous, and never given
here: the pair of tags ``<think>`` and ``<answer>`` in which the two training stages want it said.

>>> lesson = draw_lesson("list", random.Random(0), most=3)
>>> len(lesson.scenes), lesson.question
(1, 'Describe the image.')
"""

import random
from dataclasses import dataclass

from ladlib.toy.scenes import Scene, changed, crowded_scene, random_kind, random_scene, shuffled
from ladlib.toy.statements import (
    OPENING,
    Pieces,
    compare_kinds,
    compare_places,
    count,
    kinds,
    list_parts,
    name_at,
    tally,
)

TAG_NAMES = ("think", "answer", "note", "reply", "plan", "result", "work", "final")
FORBIDDEN_TAGS = ("think", "answer")  # this pair, in this order, belongs to the task

LIST = (
    "Describe the image.",
    "List the parts of the image.",
    "Which parts does the image show?",
    "Write a caption of the image.",
)
LIST_OF_PAIR = (
    "Describe the {which} image.",
    "List the parts of the {which} image.",
    "Which parts does the {which} image show?",
)
TALLY = (
    "Count the parts of each kind.",
    "What number of parts of each kind does the image show?",
    "How many parts of each kind are there?",
)
COUNT = ("How many {kind} are there?", "What is the number of {kind}?")
AT = ("What is at {places}?", "Name the part at {places}.")
COMPARE_AT = (
    "Compare the two images at {places}.",
    "What is at {places} in the first image, then in the second image?",
)
PLACES = ("Compare the two images place by place.", "Go through the places of both images and say what changed.")
KINDS = (
    "Compare the two images kind by kind.",
    "Pair off the parts of each kind in both images and compare the number.",
)
PRESENT = ("Is there a {kind}?", "Does the image show a {kind}?")

# (question, the answer where the images differ). The way of comparing is asked for by "place by place" and "kind
# by kind" and by nothing else: every other word stands in questions of both ways and in open ones.
JUDGE = (
    ("Does the second image break the pattern of the first image?", "yes"),
    ("Is something wrong in the second image?", "yes"),
    ("Does the second image have a fault?", "yes"),
    ("Has something happened between the first image and the second?", "yes"),
    ("Is there an error in the second image, or in its order?", "yes"),
    ("Is any part of the second image not as before?", "yes"),
    ("Does the number of parts differ, or where they are?", "yes"),
    ("Does the second image agree with the first image?", "no"),
    ("Is the second image right?", "no"),
    ("Are the parts of the second image the same, and as many?", "no"),
)
OTHER = {"yes": "no", "no": "yes"}
WAYS = {"places": "Go through the images place by place.", "kinds": "Go through the images kind by kind."}
SETTINGS = (
    "The first image is an example.",
    "The first image shows how it should be.",
    "The first image shows a plan and the second image a try.",
    "The first image shows a normal day.",
    "Here are two images.",
)
REMARKS = (
    "Nothing may be missing.",
    "Nothing extra is allowed.",
    "Mind the number of parts.",
    "Mind where each part is.",
    "Mind the relation between the parts.",
    "Two things may be swapped.",
    "There may be more or fewer than before.",
)
"""Said with a question whatever the way of comparing, so that no single word of it decides that way."""
FORMATS = (
    "First output the {work} in {open1} {close1} tags, then output the final answer, {options}, "
    "in {open2} {close2} tags.",
    "Output the {work} in {open1} {close1} tags and then the answer, {options}, in {open2} {close2} tags.",
    "Write the {work} between {open1} and {close1}. Then answer {options} between {open2} and {close2}.",
)
NAME_IN_TAGS = (
    "Name the part at {place}. First output the place in {open1} {close1} tags, "
    "then output the part in {open2} {close2} tags.",
    "What is at {place}? Output the place in {open1} {close1} tags and then the part in {open2} {close2} tags.",
    "Write {place} between {open1} and {close1}. Then name the part at {place} between {open2} and {close2}.",
)
WORK = ("thinking process", "comparison", "notes", "process", "steps")


@dataclass(frozen=True)
class Lesson:
    """A question on one or two scenes and its answer in pieces.

    Decisive pieces weigh more: judgements and tags, since a tag that was not copied spoils all that follows.
    """

    kind: str
    scenes: tuple[Scene, ...]
    question: str
    answer: Pieces


def draw_lesson(kind: str, rng: random.Random, most: int) -> Lesson:
    """A lesson of ``kind`` (a key of :data:`LESSONS`) on scenes of at most ``most`` parts."""
    scenes, question, answer = LESSONS[kind](rng, most)
    return Lesson(kind, scenes, question, answer)


Drawn = tuple[tuple[Scene, ...], str, Pieces]


def _list(rng: random.Random, most: int) -> Drawn:
    scene = random_scene(rng, most)
    return (scene,), rng.choice(LIST), list_parts(scene)


def _list_of_pair(rng: random.Random, most: int) -> Drawn:
    scenes = _variants(rng, most)
    which = rng.randrange(2)
    question = rng.choice(LIST_OF_PAIR).format(which=("first", "second")[which])
    return scenes, question, list_parts(scenes[which])


def _at(rng: random.Random, most: int) -> Drawn:
    scene = crowded_scene(rng)
    places = _some_places(rng, scene)
    return (scene,), rng.choice(AT).format(places=_spoken(places)), name_at(scene, places)


def _name_in_tags(rng: random.Random, most: int) -> Drawn:
    """A short answer in two tags: the format by itself."""
    scene = crowded_scene(rng)
    part = rng.choice(scene.parts)
    one, two = _draw_tags(rng)
    question = rng.choice(NAME_IN_TAGS).format(
        place=part.place, open1=f"<{one}>", close1=f"</{one}>", open2=f"<{two}>", close2=f"</{two}>"
    )
    return (scene,), question, _tagged((one, two), [(f" {part.place} .", False)], part.name)


def _compare_at(rng: random.Random, most: int) -> Drawn:
    first = crowded_scene(rng)
    second = changed(first, rng, rng.randint(0, len(first.places()) // 2))
    places = _some_places(rng, first)
    question = rng.choice(COMPARE_AT).format(places=_spoken(places))
    return (first, second), question, compare_places(first, second, places)[0]


def _count(rng: random.Random, most: int) -> Drawn:
    scene = random_scene(rng, most)
    places = kinds(scene)
    kind = rng.choice(list(places)) if rng.random() < 0.85 else _any_kind(rng)
    return (scene,), rng.choice(COUNT).format(kind=kind), [OPENING, *count(kind, places.get(kind, []))]


def _tally(rng: random.Random, most: int) -> Drawn:
    scene = random_scene(rng, most)
    return (scene,), rng.choice(TALLY), tally(scene)


def _compare_places(rng: random.Random, most: int) -> Drawn:
    scenes = _variants(rng, most)
    return scenes, rng.choice(PLACES), compare_places(*scenes)[0]


def _compare_kinds(rng: random.Random, most: int) -> Drawn:
    scenes = _variants(rng, most, moved=rng.random() < 0.8)
    return scenes, rng.choice(KINDS), compare_kinds(*scenes)[0]


def _present(rng: random.Random, most: int) -> Drawn:
    """One image and two tags: the format without any comparison."""
    scene = random_scene(rng, most)
    kind = rng.choice(list(kinds(scene))) if rng.random() < 0.5 else _any_kind(rng)
    question, tags = _with_format(rng, rng.choice(PRESENT).format(kind=kind), "yes or no")
    notes = list_parts(scene) if rng.random() < 0.5 else tally(scene)
    return (scene,), question, _tagged(tags, notes, "yes" if kind in kinds(scene) else "no")


def _judge_places(rng: random.Random, most: int) -> Drawn:
    scenes = _variants(rng, most)
    return _judged(rng, scenes, compare_places(*scenes), WAYS["places"])


def _judge_kinds(rng: random.Random, most: int) -> Drawn:
    scenes = _variants(rng, most, moved=rng.random() < 0.8)
    return _judged(rng, scenes, compare_kinds(*scenes), WAYS["kinds"])


def _judge_open(rng: random.Random, most: int) -> Drawn:
    """No way of comparing is asked for: two of three times the places are compared, as one does, else the kinds."""
    scenes = _variants(rng, most, moved=rng.random() < 0.5)
    compare = rng.choice((compare_places, compare_places, compare_kinds))
    return _judged(rng, scenes, compare(*scenes))


LESSONS = {
    "list": _list,
    "list_of_pair": _list_of_pair,
    "at": _at,
    "name_in_tags": _name_in_tags,
    "compare_at": _compare_at,
    "count": _count,
    "tally": _tally,
    "compare_places": _compare_places,
    "compare_kinds": _compare_kinds,
    "present": _present,
    "judge_places": _judge_places,
    "judge_kinds": _judge_kinds,
    "judge_open": _judge_open,
}


def _variants(rng: random.Random, most: int, moved: bool = False) -> tuple[Scene, Scene]:
    """A scene and a second one: the same, moved about or not, and in half of the cases changed."""
    first = random_scene(rng, most)
    second = shuffled(first, rng) if moved else first
    return first, changed(second, rng, rng.choice((1, 1, 2))) if rng.random() < 0.5 else second


def _judged(rng: random.Random, scenes: tuple[Scene, Scene], compared: tuple[Pieces, bool], *way: str) -> Drawn:
    """A question on both scenes, with the ``way`` of comparing where one is given, and notes and answer in two tags."""
    notes, differ = compared
    notes = [(notes[0][0], False), *notes[1:]]  # the first word only begins one of the ways: none may weigh more
    if rng.random() < 0.15:  # the same judgement in words of its own
        question, tags = _with_format(rng, _spoken_around(rng, "Compare the two images.", *way), "same or different")
        return scenes, question, _tagged(tags, notes, "different" if differ else "same")
    asked, if_different = _asked(rng)
    question, tags = _with_format(rng, _spoken_around(rng, asked, *way), "yes or no")
    return scenes, question, _tagged(tags, notes, if_different if differ else OTHER[if_different])


def _asked(rng: random.Random) -> tuple[str, str]:
    """A question and the answer where the images differ, which is "yes" in four of five."""
    wanted = "yes" if rng.random() < 0.8 else "no"
    return rng.choice([one for one in JUDGE if one[1] == wanted])


def _spoken_around(rng: random.Random, *sentences: str) -> str:
    setting = [rng.choice(SETTINGS)] if rng.random() < 0.8 else []
    return " ".join([*setting, *sentences, *rng.sample(REMARKS, rng.randint(0, 3))])


def _with_format(rng: random.Random, question: str, options: str) -> tuple[str, tuple[str, str]]:
    tags = _draw_tags(rng)
    one, two = tags
    form = rng.choice(FORMATS).format(
        work=rng.choice(WORK), options=options,
        open1=f"<{one}>", close1=f"</{one}>", open2=f"<{two}>", close2=f"</{two}>",
    )  # fmt: skip
    return f"{question} {form}", tags


def _draw_tags(rng: random.Random) -> tuple[str, str]:
    """Two tag names, never the pair of the task."""
    while True:
        one, two = rng.sample(TAG_NAMES, 2)
        if (one, two) != FORBIDDEN_TAGS:
            return one, two


def _tagged(tags: tuple[str, str], notes: Pieces, answer: str) -> Pieces:
    one, two = tags
    return [(f"<{one}>", True), *notes, (f"</{one}><{two}>", True), (f" {answer}", True), (f"</{two}>", True)]


def _some_places(rng: random.Random, scene: Scene) -> list[str]:
    return rng.sample(scene.places(), rng.randint(2, 4))


def _spoken(places: list[str]) -> str:
    return " , ".join(places)


def _any_kind(rng: random.Random) -> str:
    return " ".join(random_kind(rng))

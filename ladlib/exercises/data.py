"""Exercises of notebook 01: a score for nothing, what resolution costs, and what a hash is good for."""

from collections.abc import Sequence
from numbers import Real

from PIL.Image import Image

from ladlib.data.images import tokens
from ladlib.exercises.exercise import Exercise, near
from ladlib.metrics import SUBSETS, Judged, measure
from ladlib.records import Pair


def _always_yes(pairs: Sequence[Pair], subset: str = "logical") -> dict:
    """What :func:`ladlib.metrics.measure` counts where every image is called anomalous."""
    tests = [one.test for one in pairs if one.test.anomaly in SUBSETS[subset]]
    called = {"called": True, "called_leniently": True, "score": None, "unparsed": False, "well_formed": None}
    return measure(
        [Judged(category=one.category, anomaly=one.anomaly, anomalous=one.label == "yes", **called) for one in tests]
    )


# about: the pairs of MVTec LOCO AD's test set
always_yes_f1 = Exercise(
    kind=Real,
    empty="Two of the four counts are 0 when every answer is yes. Which? Count the others in `pairs`.",
    is_right=near(lambda pairs: _always_yes(pairs)["f1"]),
    mistakes=(
        (
            near(lambda pairs: _always_yes(pairs)["accuracy"]),
            "That is its accuracy, the share of anomalous images. F1 counts each true positive twice, above and below.",
        ),
        (
            near(lambda pairs: _always_yes(pairs, "all")["f1"]),
            "You have counted structural anomalies too. The question is about good and logical images alone.",
        ),
        (
            near(lambda pairs: _always_yes(pairs)["recall"]),
            "That is its recall: nothing is missed. F1 also asks how many of the yeses were right.",
        ),
        (near(lambda pairs: 100 * _always_yes(pairs)["f1"]), "Right in per cent; here scores are shares, 0 to 1."),
    ),
    otherwise="Every anomalous image is a true positive, every good one a false positive, and nothing is negative.",
    why="A model has to beat this before its F1 says anything, and this one has never opened an image.",
)


def _pair_tokens(images: Sequence[Image], wider: int = 1, higher: int = 1) -> int:
    return sum(tokens((wider * one.width, higher * one.height)) for one in images)


# about: the two images of a pair, as the model sees them
visual_tokens = Exercise(
    kind=Real,
    empty="Begin with one image: `images[0].size` is its width and height. Which area does one token stand for?",
    is_right=near(lambda images: _pair_tokens(images, 2, 2)),
    mistakes=(
        (
            near(lambda images: _pair_tokens(images, 2)),
            "Half of it: both sides are doubled, so the area is four times as large, and both images count.",
        ),
        (near(lambda images: _pair_tokens(images)), "That is what the pair costs now, before its sides are doubled."),
        (
            near(lambda images: 4 * _pair_tokens(images, 2, 2)),
            "Those are patches of 14 × 14 pixels. Four of them are merged into one token.",
        ),
    ),
    otherwise="Work out w/28 · h/28 for each of the two images, with w and h doubled, and add.",
    why="Four times the tokens, and attention compares every token with every other: resolution costs most of all.",
)

# about: how many normal images a category has to choose reference images from
moved_share = Exercise(
    kind=Real,
    empty="After the copy there is one candidate more. For how many of them is the newcomer as good as any other?",
    is_right=near(lambda normals: 1 / (normals + 1), 1e-4),
    mistakes=(
        (near(lambda normals: 1 / normals, 1e-4), "Nearly. The newcomer is itself one of the candidates now."),
        (
            lambda answer, normals: 0.5 < answer <= 1 < normals,
            "So it would be if the reference image were number hash modulo n: n changes, and nearly all move. "
            "Here each candidate keeps its own hash, and only the smallest counts.",
        ),
        (
            lambda answer, normals: answer == 0,
            "Some do move: the newcomer has a hash of its own, and for some test images it is the smallest.",
        ),
    ),
    otherwise="A pair moves only if the newcomer's hash is the smallest of all. All are equally likely to be.",
    why="A copy that lacks an image, or has one more, still gives nearly the same pairs, so its scores compare.",
)

"""Exercises of notebook 03: an advantage by hand, a third reward, one that is hacked, and what a collapse looks like.

A reward of one's own is held against four made-up completions. None of them is more than an example: a policy under
training tries thousands.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from statistics import fmean, pstdev

from ladlib.exercises.exercise import Exercise, near
from ladlib.records import Pair
from ladlib.rewards import accuracy_reward, format_reward, group_advantages

REASON = "The reference image has two washers, one above the other, and here the lower washer is missing."
HONEST, HOLLOW, REPEATED, STUFFED = (
    f"<think>{thinking}</think><answer>yes</answer>"
    for thinking in (REASON, "yes", " ".join([REASON] * 10), f"{REASON} because missing different not same wrong " * 10)
)

Reward = Callable[[str], float]

# about: the rewards of a group
lone_advantage = Exercise(
    kind=Real,
    empty="Three numbers are needed: the first reward, the mean of all, and their standard deviation.",
    is_right=near(lambda rewards: group_advantages(rewards)[0]),
    mistakes=(
        (
            near(lambda rewards: rewards[0] - fmean(rewards)),
            "That says how much better it is than the group. Divide it by the group's standard deviation.",
        ),
        (
            near(lambda rewards: (rewards[0] - fmean(rewards)) / pstdev(rewards)),
            "Nearly. This divides by G under the root, as numpy does by default; TRL divides by G - 1 (ddof=1).",
        ),
        (near(lambda rewards: rewards[0]), "That is its reward. The advantage compares it with its group."),
        (near(lambda rewards: group_advantages(rewards)[-1]), "That is the advantage of one that failed."),
    ),
    otherwise="(reward - mean) / (standard deviation + 0.0001), with the sample standard deviation.",
    why="A rare success is pushed up harder than each failure is pushed down; the advantages of a group sum to zero.",
)


def _has_a_scale(reward: Reward) -> bool:
    return all(isinstance(paid, Real) and 0 <= paid <= 1 for paid in map(reward, (HONEST, HOLLOW, REPEATED, STUFFED)))


def _prefers_a_reason(reward: Reward) -> bool:
    return reward(HONEST) > reward(HOLLOW)


def _is_gamed(reward: Reward) -> bool:
    return max(reward(REPEATED), reward(STUFFED)) > reward(HONEST)


third_reward = Exercise(
    kind=Callable,
    empty="What do you see in a good rationale that a bad one lacks, and that a line of code could see too?",
    is_right=lambda reward, _: _has_a_scale(reward) and _prefers_a_reason(reward) and not _is_gamed(reward),
    mistakes=(
        (
            lambda reward, _: not _has_a_scale(reward),
            "Pay a number from 0 to 1 for every text, or this reward drowns the others.",
        ),
        (
            lambda reward, _: reward(HONEST) == reward(HOLLOW) == reward(REPEATED) == reward(STUFFED),
            "It pays for everything alike. Such a reward adds no spread, so it teaches nothing.",
        ),
        (
            lambda reward, _: not _prefers_a_reason(reward),
            "A rationale that is the one word 'yes' earns as much as a reason. What does it lack?",
        ),
        (
            lambda reward, _: _is_gamed(reward),
            "A rationale that says the same ten times earns more than one that says it once, and a policy finds that "
            "out. Pay up to a limit, or take away for repetition.",
        ),
    ),
    otherwise="Try it on single texts: `my_reward(text)`.",
    why="It adds spread where the two others agree, and the plain tricks do not pay. It still cannot tell whether the "
    "sentence is true: exchange the words and it pays the same.",
)

hacked_reward = Exercise(
    kind=Callable,
    empty="Take a wish that sounds reasonable, such as thorough thinking, and pay for its most visible sign.",
    is_right=lambda reward, _: _prefers_a_reason(reward) and _is_gamed(reward),
    mistakes=(
        (
            lambda reward, _: not _prefers_a_reason(reward),
            "This one does not mean well: one word earns as much as a reason. Pay a reason more than that first.",
        ),
    ),
    otherwise="It holds: saying the same ten times, or heaping up telling words, earns no more than a plain reason. "
    "Pay for something that can grow without end.",
    why="It means well, and saying the same thing ten times earns most. In the curves its own line would climb while "
    "accuracy stays; length runs to the limit, and the share of completions cut off follows.",
)

ALWAYS_NO = "<think>Both images show the same parts.</think><answer>no</answer>"
GROUP = 8


def _collapsed(pairs: Sequence[Pair]) -> dict[str, float]:
    """What the log shows once every completion is ``ALWAYS_NO``: means over completions, and over groups."""
    earned = [[accuracy_reward(ALWAYS_NO, one.test.label) + format_reward(ALWAYS_NO)] * GROUP for one in pairs]
    return {
        "accuracy_reward": fmean(accuracy_reward(ALWAYS_NO, one.test.label) for one in pairs),
        "format_reward": format_reward(ALWAYS_NO),
        "yes_rate": accuracy_reward(ALWAYS_NO, "yes"),
        "frac_reward_zero_std": fmean(not any(group_advantages(group)) for group in earned),
    }


def _told(name: str, wrong: Callable[[float, float], bool]) -> Callable[[Mapping, Sequence[Pair]], bool]:
    return lambda answer, pairs: wrong(answer[name], _collapsed(pairs)[name])


def _agrees(answer: Mapping, pairs: Sequence[Pair]) -> bool:
    settled = _collapsed(pairs)
    return set(settled) <= set(answer) and all(abs(answer[name] - settled[name]) < 0.02 for name in settled)


# about: the pairs that GRPO is trained on
collapse_curves = Exercise(
    kind=Mapping,
    empty="Half of the labels are yes. Take one prompt, eight times the same completion, and work out each number.",
    is_right=_agrees,
    mistakes=(
        (
            lambda answer, pairs: (
                not set(_collapsed(pairs)) <= set(answer)
                or not all(isinstance(answer[name], Real) for name in _collapsed(pairs))
            ),
            "Give all four their number: accuracy_reward, format_reward, yes_rate and frac_reward_zero_std.",
        ),
        (_told("yes_rate", lambda told, is_so: abs(told - is_so) > 0.02), "How often is an answer yes by then?"),
        (
            _told("format_reward", lambda told, is_so: abs(told - is_so) > 0.02),
            "The form is kept: one thinking block, one answer block, yes or no in it. What does that earn?",
        ),
        (
            _told("accuracy_reward", lambda told, is_so: told < is_so - 0.02),
            "It still earns something: no is the right answer to every good product.",
        ),
        (
            _told("accuracy_reward", lambda told, is_so: told > is_so + 0.02),
            "That is too much: no is wrong for every anomalous product, and half of the pairs are.",
        ),
    ),
    otherwise="Eight equal completions of one prompt earn eight equal rewards. In how many of the groups is that so?",
    why="The rewards alone look decent. The yes-rate tells it, and so does the share of groups without spread: with "
    "every advantage zero, nothing but the KL term is left to bring it back.",
)

"""The rollout explorer: a step, a group, its completions with rewards and advantages, and their tokens coloured.

    rollout_explorer(rollouts)                                       # tokens by advantage
    rollout_explorer(rollouts, changes_between(session, before, after, pairs))    # and by what training made of them

A token inherits its completion's advantage; what becomes of its probability is another matter, since all completions
move the same weights. With two checkpoints at hand the second can be seen: log pi_after - log pi_before, each token
given all before it.
"""

from collections.abc import Callable, Sequence

import ipywidgets

from ladlib.conversations import pair_images
from ladlib.explore.view import Explorer, choice, explorer, note, quoted, table
from ladlib.notebook import Session
from ladlib.records import Pair

Tokens = list[tuple[str, float]]  # each token's text, and its change of log-probability
BY_ADVANTAGE, BY_CHANGE = "the completion's advantage", "log-probability gained or lost"
FULL = 2.0  # the advantage, or the change in nats, from which on a colour is at its strongest


def rollout_explorer(rollouts: Sequence[dict], changes: Callable[[dict], list[Tokens]] | None = None) -> Explorer:
    """A slider of steps, a menu of the step's kept groups and, with ``changes``, one of what the colours mean.

    ``rollouts`` are rows of ``logs/<arm>-seed<k>-rollouts.jsonl``. Raises :class:`UserError` where there is none.
    """
    steps = list(dict.fromkeys(row["step"] for row in rollouts))
    first = choice("Group", _groups(rollouts, steps[0] if steps else 0))
    step = ipywidgets.SelectionSlider(options=steps, description="Step", tooltip="Optimizer step")
    colours = choice("Colour by", [BY_CHANGE, BY_ADVANTAGE] if changes else [BY_ADVANTAGE])

    def follow(change: dict) -> None:
        first.options = _groups(rollouts, change["new"])

    def draw(step: int, group: int, colour: str) -> str:
        chosen = rollouts[group]
        tokens = changes(chosen) if changes and colour == BY_CHANGE else _inherited(chosen)
        return _group(chosen, tokens, colour)

    step.observe(follow, names="value")
    return explorer("Rollout explorer", draw, step=step, group=first, colour=colours)


def changes_between(session: Session, before: str, after: str, pairs: Sequence[Pair]) -> Callable[[dict], list[Tokens]]:
    """What becomes of each token of a group between two checkpoints: a function from rollout to tokens.

    ``pairs`` are those the rollouts are about. Raises :class:`UserError` for a model that is not there.
    """
    from ladlib import evaluate
    from ladlib.likelihood import token_log_probabilities

    models = [evaluate.load(session.profile, name) for name in (before, after)]
    by_id = {one.id: one for one in pairs}

    def changes(rollout: dict) -> list[Tokens]:
        images = pair_images(by_id[rollout["id"]], session.data, session.profile.data)
        texts = [one["text"] for one in rollout["completions"]]
        old, new = (token_log_probabilities(model, processor, images, texts) for model, processor in models)
        return [
            [(token, later - sooner) for (token, sooner), (_, later) in zip(was, now, strict=True)]
            for was, now in zip(old, new, strict=True)
        ]

    return changes


def coloured(tokens: Tokens) -> str:
    """Tokens as HTML: blue and underlined above zero, orange and dotted below, stronger the farther off."""
    return "".join(_token(text, value) for text, value in tokens)


def _token(text: str, value: float) -> str:
    strength = min(1.0, abs(value) / FULL)
    if strength < 0.02:
        return quoted(text)
    rgb, line = ("86,180,233", "solid") if value > 0 else ("230,159,0", "dotted")
    style = f"background:rgba({rgb},{0.15 + 0.65 * strength:.2f});text-decoration:underline {line} 1px"
    return f"<span style='{style}' title='{value:+.2f}'>{quoted(text)}</span>"


def _groups(rollouts: Sequence[dict], step: int) -> list[tuple[str, int]]:
    """(what a menu shows, place in ``rollouts``) of the kept groups of a step."""
    return [(_named(row), at) for at, row in enumerate(rollouts) if row["step"] == step]


def _named(row: dict) -> str:
    right = sum(one["accuracy"] for one in row["completions"])
    return f"{row['id']} ({right:.0f} of {len(row['completions'])} right)"


def _inherited(rollout: dict) -> list[Tokens]:
    return [[(one["text"], one["advantage"])] for one in rollout["completions"]]


def _group(rollout: dict, tokens: Sequence[Tokens], colour: str) -> str:
    numbers = [
        [f"{one[name]:{form}}" for name, form in (("accuracy", ".0f"), ("format", ".0f"), ("reward", ".2f"))]
        + [f"{one['advantage']:+.2f}"]
        for one in rollout["completions"]
    ]
    rows = [[coloured(said), *line] for said, line in zip(tokens, numbers, strict=True)]
    caption = f"Step {rollout['step']}, {rollout['id']}: the label is {rollout['label']}"
    even = len({one["reward"] for one in rollout["completions"]}) == 1
    told = f"Colours: {colour}. Blue, underlined: up. Orange, dotted: down. At the full strength from {FULL:g} on."
    return table(["completion", "accuracy", "format", "reward", "advantage"], rows, caption) + note(
        told + (" All rewards are equal: this group teaches nothing." if even else "")
    )

"""All pairs of an arm judged through an endpoint, each answer on disk as it is given."""

from contextlib import closing
from pathlib import Path

from ladlib import prompts
from ladlib.config import Endpoint, Profile
from ladlib.endpoint import estimate
from ladlib.endpoint.asking import Asking, Work, message
from ladlib.endpoint.client import Client
from ladlib.errors import UserError
from ladlib.generations import Generations
from ladlib.records import Generation, Pair
from ladlib.runs import RunFolder, read_jsonl


def evaluate(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, arm: str = "large", limit: int | None = None
) -> Path:
    """Let the profile's endpoint judge the test pairs of MVTec LOCO AD below ``data_root``; the generations' file.

    ``limit`` as in :func:`ladlib.evaluate.evaluate`. Pairs that were answered before are not asked again. Raises
    :class:`UserError` where no request can be answered, and where at the end some were not: their ids and
    reasons stand in ``<arm>-seed<k>.unanswered.jsonl`` beside the answers, and the next call asks for them alone.
    """
    if not profile.endpoint.url:
        raise UserError("The profile names no endpoint.", "Give its address as endpoint.url, or large_endpoint=URL.")
    model = profile.endpoint.model or profile.model.large
    inputs = {"model": model, "label": profile.endpoint.label, "extra": profile.endpoint.extra}
    kept = Generations.open(profile, data_root, run, seed, arm=arm, inputs=inputs, limit=limit)
    if kept.left:
        served = f"{model}, {profile.endpoint.label or 'quantisation and engine not stated'}"
        print(_announced(kept, served), flush=True)
        answer_all(kept, profile.endpoint, model, served)
        print(estimate.summary(arm, profile.endpoint, read_jsonl(kept.path)))
    return kept.path


def answer_all(kept: Generations, reached: Endpoint, model: str, served: str = "") -> None:
    """Have the ``model`` at ``reached`` answer to all pairs that are left. Raises as :func:`evaluate`."""
    with closing(Client(reached)) as client:
        Asking(_work(kept, model, served, client), client).all()


def _announced(kept: Generations, served: str) -> str:
    pairs, requests = [(one, kept.folder) for one in kept.left], len(kept.left)
    tokens_in = estimate.input_tokens(pairs, [prompts.QUESTION] * requests, kept.profile.data)
    tokens_out = requests * kept.profile.evaluate.max_new_tokens
    return estimate.announce(kept.arm, kept.profile.endpoint, served, requests, tokens_in, tokens_out)


def _work(kept: Generations, model: str, served: str, client: Client) -> Work[Pair, Generation]:
    fixed = request_values(kept.profile, model)

    def ask(one: Pair) -> Generation:
        seen = kept.views(one)
        found, seconds = client.ask(fixed | {"messages": [message(prompts.QUESTION, seen)]})
        return kept.record(one, seen, prompts.QUESTION, found, seconds, served)

    return Work(
        title=kept.arm, noun="pair", total=len(kept.pairs), left=kept.left, name=lambda one: one.id, ask=ask,
        keep=kept.keep, unanswered=kept.path.with_suffix(".unanswered.jsonl"),
    )  # fmt: skip


def request_values(profile: Profile, model: str) -> dict:
    """What all requests have in common: greedy, as long as everywhere, with probabilities where wanted."""
    listed = profile.endpoint.top_logprobs
    values = {"model": model, "temperature": 0, "max_tokens": profile.evaluate.max_new_tokens}
    told = {"logprobs": True, "top_logprobs": listed} if listed else {}
    return values | told | profile.endpoint.extra

"""A checkpoint judged by vLLM: served on this machine, held against transformers, asked, stopped.

    evaluate(profile, Path("data"), run, 0, arm="sft_grpo", model="results/runs/paper/checkpoints/sft_grpo-seed0")

The command ``vllm`` may come from an environment of its own. What it answers is read as from any other endpoint
(:mod:`ladlib.endpoint`), P(yes) from the listed alternatives.
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import torch
from PIL import Image

from ladlib import prompts
from ladlib.config import Endpoint, Profile
from ladlib.endpoint.asking import message
from ladlib.endpoint.judging import answer_all, request_values
from ladlib.engine.parity import OPENING, PAIRS, Answered, insist
from ladlib.errors import UserError
from ladlib.generations import Generations
from ladlib.models import load_model, load_processor, locate
from ladlib.progress import Progress
from ladlib.published_models import commit_of
from ladlib.runs import RunFolder

COMMAND = ("vllm", "serve")
PATIENCE = 900  # seconds until it must answer: weights are read and kernels compiled first
TEXT = 512  # tokens of a prompt beside its images, generously

Images = Sequence[Image.Image]


def evaluate(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, arm: str, model: str,
    inputs: Mapping[str, object], limit: int | None = None,
) -> Path:  # fmt: skip
    """As :func:`ladlib.evaluate.evaluate`, answered by vLLM; ``inputs`` are what the answers depend on.

    Raises :class:`UserError` where vLLM is not installed, does not start, or answers otherwise than transformers.
    """
    reached = Endpoint(model=arm, concurrency=profile.evaluate.batch_size)
    asking = profile.model_copy(update={"endpoint": reached})
    inputs = dict(inputs) | {"engine": "vllm"}
    kept = Generations.open(asking, data_root, run, seed, arm=arm, inputs=inputs, limit=limit)
    if kept.left:
        seen = [kept.views(one) for one in kept.left[:PAIRS]]
        with tempfile.TemporaryDirectory() as merged:
            ours, image_token, folder = answered_here(profile, model, seen, Path(merged))
            with served(asking, folder) as url:
                insist(ours, [answered_there(asking, url, images) for images in seen], image_token, "vLLM")
                answer_all(kept, reached.model_copy(update={"url": url}), arm)
    return kept.path


def answered_here(
    profile: Profile, model: str, seen: Sequence[Images], merged: Path
) -> tuple[list[Answered], int, str]:
    """What transformers sees and answers, its token of an image, and what vLLM is to load: adapters come merged."""
    judge, processor = load_model(model, profile.model).eval(), load_processor(model, profile.data)
    text = prompts.prompt_text(processor, prompts.QUESTION, images=2)
    answered = []
    for images in seen:
        inputs = processor(text=[text], images=[list(images)], return_tensors="pt").to(judge.device)
        with torch.inference_mode():
            (ids,) = judge.generate(**inputs, max_new_tokens=OPENING).tolist()
        length = inputs["input_ids"].shape[1]
        answered.append(Answered(ids[:length], ids[length:]))
    folder = locate(model)
    if (Path(folder) / "adapter_config.json").is_file():
        folder = str(merged)
        judge.save_pretrained(folder)
        processor.save_pretrained(folder)
    image_token = judge.config.image_token_id
    del judge
    torch.cuda.empty_cache()  # vLLM takes most of the memory
    return answered, image_token, folder


def answered_there(profile: Profile, url: str, images: Images) -> Answered:
    """What the server at ``url`` sees and answers. Raises :class:`UserError` where it does not tell its tokens."""
    body = request_values(profile, profile.endpoint.model)
    body |= {"max_tokens": OPENING, "return_token_ids": True, "messages": [message(prompts.QUESTION, images)]}
    found = httpx.post(f"{url}/chat/completions", json=body, timeout=profile.endpoint.timeout)
    try:
        told = found.raise_for_status().json()
        return Answered(list(told["prompt_token_ids"]), list(told["choices"][0]["token_ids"]))
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"vLLM does not tell which tokens it saw: {found.text[:200]}", "Update it: 0.22 and newer ones do."
        ) from error


@contextmanager
def served(profile: Profile, folder: str) -> Iterator[str]:
    """The address at which vLLM serves ``folder``, as long as it is needed."""
    if not shutil.which(COMMAND[0]):
        raise UserError("There is no command `vllm`.", "Install vLLM, or set evaluate.engine to transformers.")
    port = _free_port()
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([*COMMAND, folder, *_options(profile, port)], stdout=log, stderr=log)
        try:
            _await(server, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait()


def _options(profile: Profile, port: int) -> list[str]:
    images = 2 * profile.data.max_pixels // 28**2
    options = {
        "--host": "127.0.0.1", "--port": port, "--served-model-name": profile.endpoint.model,
        "--dtype": profile.model.dtype, "--revision": commit_of(profile.model.base, profile.model.revision),
        "--max-model-len": images + TEXT + profile.evaluate.max_new_tokens,
        "--limit-mm-per-prompt": json.dumps({"image": 2}),
        "--mm-processor-kwargs": json.dumps(profile.data.model_dump(include={"min_pixels", "max_pixels"})),
        "--generation-config": "vllm",  # no penalty from the model's repository
    }  # fmt: skip
    return [str(part) for pair in options.items() for part in pair]


def _await(server: subprocess.Popen, url: str, log) -> None:
    progress, begun = Progress("vllm serve", "second", PATIENCE), time.monotonic()
    while (waited := time.monotonic() - begun) < PATIENCE and server.poll() is None:
        try:
            httpx.get(url, timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            progress.tell(int(waited), "it reads the weights")
            time.sleep(1)
    log.seek(0)
    last = "\n".join(log.read().splitlines()[-15:])
    raise UserError(f"`vllm serve` did not start. Its last lines:\n{last}\n", "Mend what it says, then run again.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
